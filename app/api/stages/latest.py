"""What a stage runs, for the deploy job. Thousands ask this each second."""

import re
from collections.abc import Iterable
from datetime import datetime
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Header, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from app.api.common import examples
from app.api.common.deps import BucketDep, DatabaseDep, SettingsDep
from app.api.common.errors import problems
from app.api.common.shown import ShownVerdict
from app.api.common.strict import StrictRoute
from app.api.common.text import Line
from app.api.stages.kept import Answer, KeptDep
from app.aws import CloudError
from app.db.session import Database
from app.registry.errors import ArtifactsMissing, ModelCollected, ModelMarked, NothingPromoted
from app.registry.stages import latest as registry
from app.registry.stages.latest import Asked, Latest
from app.storage.bucket import Bucket
from app.words import Stage

_TAG = re.compile(r'(?:W/)?"([0-9]+)(?:[-;:][a-z]+)?"')

router = APIRouter(tags=["models"], route_class=StrictRoute)


class DownloadOut(BaseModel):
    """A file, and the URL to download it from."""

    url: str = Field(description="A presigned URL, which needs no credentials.")
    sha256: str | None = Field(description="Null for an imported file until its digest has been computed.")
    size: int = Field(description="Size in bytes.")


class LatestOut(BaseModel):
    """The model that a stage runs."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.LATEST]})

    prefix: str = Field(examples=["0.0.2-aff1242"])
    version: str = Field(examples=["0.0.2"])
    sha: str
    verdict: ShownVerdict
    promoted_at: datetime
    promoted_by: str
    artifacts: dict[str, DownloadOut]


@router.get(
    "/models/{stage}/latest",
    operation_id="models:latest",
    summary="The model that a stage runs",
    response_model=LatestOut,
    responses={
        200: {
            "description": "The model",
            "headers": {"ETag": {"description": "identifies the promotion", "schema": {"type": "string"}}},
        },
        304: {"description": "No new promotion since the one in `If-None-Match`"},
        **problems(NothingPromoted, ModelMarked, ModelCollected, ArtifactsMissing, CloudError),
    },
)
async def latest(
    stage: Annotated[Stage, Path(description="The stage to deploy to.")],
    kept: KeptDep,
    database: DatabaseDep,
    bucket: BucketDep,
    settings: SettingsDep,
    version: Annotated[Line | None, Query(description="Only models of exactly this version.")] = None,
    if_none_match: Annotated[
        list[str] | None, Header(description="The `ETag`s of earlier answers, in one or several headers.")
    ] = None,
) -> Response:
    """The model most recently promoted to the stage, with URLs and digests of its files.

    The answer was true at most 100 ms ago (`REGISTRY_LATEST_MAX_AGE`). The `ETag` stays the same until the
    next promotion. A 304 says that there is nothing new to deploy. The URLs of the earlier answer may have
    expired by then. To download again, ask without `If-None-Match`.
    """
    asked = Asked(stage, version)
    lifetime_s = int(settings.presigned_url_lifetime.total_seconds())
    answer = kept.get(asked, bucket.signing_period(lifetime_s))
    if answer is None:
        answer = await kept.load(asked, partial(_load, asked, database, bucket, lifetime_s))
    number = str(answer.found.promotion_id)
    # The URLs expire, so no cache may keep the answer. The tag is weak: it does not identify the bytes.
    caching = {"ETag": f'W/"{number}"', "Cache-Control": "no-store"}
    if if_none_match and _names(if_none_match, number):
        return Response(status_code=304, headers=caching)
    answer.found.check()
    return Response(answer.body, media_type="application/json", headers=caching)


def _load(asked: Asked, database: Database, bucket: Bucket, lifetime_s: int) -> Answer:
    """The answer of the database as bytes. Signing may wait for new credentials, so this runs in a thread."""
    period = bucket.signing_period(lifetime_s)
    found = database.read(lambda connection: registry.find(connection, asked))
    return Answer(found, _body(found, bucket, lifetime_s) if found.available else None, period)


def _body(found: Latest, bucket: Bucket, lifetime_s: int) -> bytes:
    answer = LatestOut(
        prefix=found.prefix,
        version=found.version,
        sha=found.sha,
        verdict=found.verdict,
        promoted_at=found.promoted_at,
        promoted_by=found.promoted_by,
        artifacts={
            file.name: DownloadOut(
                url=bucket.presign(file.key, lifetime_s), sha256=file.sha256, size=file.size_bytes
            )
            for file in found.artifacts
        },
    )
    return answer.model_dump_json().encode()


def _names(lines: Iterable[str], promotion: str) -> bool:
    """Whether one of the tags in these `If-None-Match` headers belongs to the promotion.

    A proxy that compresses answers adds to their tags, as in `"41-gzip"`.
    """
    tags = {tag.strip() for line in lines for tag in line.split(",")}
    return "*" in tags or any(
        found is not None and found[1] == promotion for found in map(_TAG.fullmatch, tags)
    )
