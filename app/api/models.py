"""The published models, their files and their promotions."""

import re
from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Any, Self
from uuid import UUID

from fastapi import APIRouter, Header, Path, Query, Response
from fastapi.responses import RedirectResponse
from pydantic import BaseModel, ConfigDict, Field, StrictBool

from app.api import examples
from app.api.deps import (
    AnyCaller,
    BucketDep,
    DatabaseDep,
    Db,
    Limit,
    PageCursor,
    PrefixPath,
    SettingsDep,
)
from app.api.errors import problems
from app.api.shown import ShownActor, ShownMessage, ShownOrigin, ShownStage, ShownVerdict
from app.api.strict import StrictRoute
from app.api.text import Line, Lines
from app.aws import CloudError
from app.db.tables import Model, Promotion
from app.registry import models, stages
from app.registry.errors import Forbidden, GateRefused, NotFound, NothingPromoted, Unauthorized
from app.registry.stages import PromotionRequest
from app.words import Scope, Stage, known

_TAG = re.compile(r'(?:W/)?"([0-9]+)(?:[-;:][a-z]+)?"')

router = APIRouter(tags=["models"], route_class=StrictRoute)


def _order(stage: str) -> int:
    """Sorts stages in their order. Stages that only a newer version knows come last."""
    word = known(Stage, stage)
    return len(Stage) if word is None else list(Stage).index(word)


class ArtifactOut(BaseModel):
    """One file of a model."""

    name: str = Field(examples=["model.zip"])
    sha256: str | None = Field(
        description="Null for an imported file until its digest has been computed.",
        examples=["9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"],
    )
    size: int = Field(description="Size in bytes.")
    content_type: str
    missing_since: datetime | None = Field(
        description="Since when the bucket is known not to hold this file, or to hold other content there. "
        "Null while it is there."
    )


class PromotionOut(BaseModel):
    """The record that a model was deployed to a stage."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.PROMOTION]})

    id: int
    prefix: str = Field(examples=["0.0.2-aff1242"])
    stage: ShownStage
    promoted_at: datetime
    promoted_by: str
    promoted_by_kind: ShownActor
    note: str | None
    override: bool = Field(description="Whether the promotion went through a closed gate.")

    @classmethod
    def of(cls, promotion: Promotion, prefix: str) -> Self:
        return cls(
            id=promotion.id,
            prefix=prefix,
            stage=promotion.stage,
            promoted_at=promotion.promoted_at,
            promoted_by=promotion.promoted_by,
            promoted_by_kind=promotion.promoted_by_kind,
            note=promotion.note,
            override=promotion.override,
        )


class ModelOut(BaseModel):
    """The model of a prefix: a build published it, or an import found it in the bucket."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.MODEL]})

    prefix: str = Field(examples=["0.0.2-aff1242"])
    version: str = Field(examples=["0.0.2"])
    sha: str = Field(description="The git commit. Of an imported model, only its first digits may be known.")
    branch: str | None = Field(description="Null for an imported model.")
    origin: ShownOrigin
    build: UUID | None = Field(description="The build that made the model. Null for an imported model.")
    published_at: datetime
    metrics: dict[str, Any] = Field(
        description="The figures of each benchmark, by its name.", examples=[examples.METRICS]
    )
    verdict: ShownVerdict = Field(
        description="The verdict of the validation. `unknown` for a model that was imported without one."
    )
    verdict_reason: ShownMessage
    stages: list[ShownStage] = Field(description="Every stage that the model was ever promoted to.")
    artifacts: list[ArtifactOut]
    promotions: list[PromotionOut]

    @classmethod
    def of(cls, model: Model) -> Self:
        been_in = {promotion.stage for promotion in model.promotions}
        return cls(
            prefix=model.prefix,
            version=model.version,
            sha=model.sha,
            branch=model.branch,
            origin=model.origin,
            build=model.build_id,
            published_at=model.published_at,
            metrics=model.metrics,
            verdict=model.verdict,
            verdict_reason=model.verdict_reason,
            stages=sorted(been_in, key=_order),
            artifacts=[
                ArtifactOut(
                    name=file.name,
                    sha256=file.sha256,
                    size=file.size_bytes,
                    content_type=file.content_type,
                    missing_since=file.missing_since,
                )
                for file in model.artifacts
            ],
            promotions=[PromotionOut.of(promotion, model.prefix) for promotion in model.promotions],
        )


class ModelPage(BaseModel):
    """Models, newest first."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"items": [examples.MODEL], "next": None}]})

    items: list[ModelOut]
    next: str | None = Field(description="The `cursor` of the next page. Null on the last page.")


class PromotionCreate(BaseModel):
    """The stage that the model now runs in, and why."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"stage": "staging", "note": "release 2026-11"}]}
    )

    stage: Stage
    note: Lines | None = Field(
        default=None, max_length=2000, description="The reason. An override needs one."
    )
    override: StrictBool = Field(default=False, description="Promote the model although a gate is closed.")


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
    "/models",
    operation_id="models:list",
    summary="Models, newest first",
    response_description="A page of models",
    responses=problems(),
)
def list_models(
    db: Db,
    cursor: PageCursor,
    limit: Limit = 50,
    version: Annotated[Line | None, Query(description="Only models of this version.")] = None,
    branch: Annotated[Line | None, Query(description="Only models of this branch.")] = None,
    stage: Annotated[
        Stage | None, Query(description="Only models that were ever promoted to this stage.")
    ] = None,
) -> ModelPage:
    """Models with their files and promotions. If there are several filters, a model must match all."""
    page = models.find(db, limit=limit, cursor=cursor, version=version, branch=branch, stage=stage)
    return ModelPage(
        items=[ModelOut.of(model) for model in page.items], next=str(page.next) if page.next else None
    )


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
        **problems(NothingPromoted, CloudError),
    },
)
def latest(
    stage: Annotated[Stage, Path(description="The stage to deploy to.")],
    database: DatabaseDep,
    bucket: BucketDep,
    settings: SettingsDep,
    version: Annotated[Line | None, Query(description="Only models of this version.")] = None,
    if_none_match: Annotated[
        list[str] | None, Header(description="The `ETag`s of earlier answers, in one or several headers.")
    ] = None,
) -> Response:
    """The model most recently promoted to the stage, with URLs and digests of its files.

    The `ETag` stays the same until the next promotion. A 304 says that there is nothing new to deploy. The
    URLs of the earlier answer may have expired by then. To download again, ask without `If-None-Match`.
    """
    # This must serve thousands of requests per second, so it has no transaction, no second thread and no
    # validation of the answer. With these it was two to three times slower (benchmarks/latest.py).
    found = database.read(lambda connection: stages.latest(connection, stage, version))
    # The URLs expire, so no cache may keep the answer. The tag is weak: it does not identify the bytes.
    caching = {"ETag": f'W/"{found.promotion_id}"', "Cache-Control": "no-store"}
    if _names(if_none_match or (), str(found.promotion_id)):
        return Response(status_code=304, headers=caching)
    lifetime_s = int(settings.presigned_url_lifetime.total_seconds())
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
    return Response(answer.model_dump_json(), media_type="application/json", headers=caching)


def _names(lines: Iterable[str], promotion: str) -> bool:
    """Whether one of the tags in these `If-None-Match` headers belongs to the promotion.

    A proxy that compresses answers adds to their tags, as in `"41-gzip"`.
    """
    tags = {tag.strip() for line in lines for tag in line.split(",")}
    return "*" in tags or any(
        found is not None and found[1] == promotion for found in map(_TAG.fullmatch, tags)
    )


@router.get(
    "/models/{prefix}",
    operation_id="models:get",
    summary="One model",
    response_description="The model",
    responses=problems(NotFound),
)
def get(prefix: PrefixPath, db: Db) -> ModelOut:
    """The model with its files, figures, verdict and promotions."""
    return ModelOut.of(models.get(db, prefix))


@router.get(
    "/models/{prefix}/artifacts/{name}",
    operation_id="models:artifact",
    summary="Download a file of a model",
    status_code=307,
    response_class=RedirectResponse,
    responses={
        307: {
            "description": "Where the file is",
            "headers": {
                "Location": {
                    "description": "the presigned URL",
                    "schema": {"type": "string", "format": "uri"},
                }
            },
        },
        **problems(NotFound, CloudError),
    },
)
def artifact(
    prefix: PrefixPath,
    name: Annotated[str, Path(description="The file's name.", examples=["model.zip"])],
    db: Db,
    bucket: BucketDep,
    settings: SettingsDep,
) -> RedirectResponse:
    """Redirects to a presigned URL. Follow it without sending your registry token along."""
    file = models.get_artifact(db, prefix, name)
    url = bucket.presign(file.key, int(settings.presigned_url_lifetime.total_seconds()))
    return RedirectResponse(url, status_code=307, headers={"Cache-Control": "no-store"})


@router.post(
    "/models/{prefix}/promotions",
    operation_id="models:promote",
    summary="Promote a model to a stage",
    status_code=201,
    response_description="The stage runs this model from now on",
    responses={
        200: {"model": PromotionOut, "description": "The stage already runs this model; nothing changed"},
        **problems(NotFound, GateRefused, Unauthorized, Forbidden),
    },
)
def promote(
    prefix: PrefixPath, body: PromotionCreate, who: AnyCaller, db: Db, response: Response
) -> PromotionOut:
    """Record that the model now runs in the stage.

    Refused while a gate is closed; the answer names the gate.
    """
    who.need(Scope.promote(body.stage), *([Scope.OVERRIDE] if body.override else []))
    wanted = PromotionRequest(body.stage, body.note, body.override)
    promotion, new = stages.promote(db, who.name, prefix, wanted, who.kind)
    if not new:
        response.status_code = 200
    return PromotionOut.of(promotion, prefix)
