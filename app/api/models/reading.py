"""The published models and their files."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Self
from uuid import UUID

from fastapi import APIRouter, Path, Query
from fastapi.responses import RedirectResponse
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from app.api.common import examples
from app.api.common.deps import (
    BucketDep,
    Db,
    Limit,
    NextCursor,
    PageCursor,
    PrefixPath,
    SearchDep,
    SettingsDep,
)
from app.api.common.errors import problems
from app.api.common.shown import (
    ShownActor,
    ShownMessage,
    ShownModelState,
    ShownOrigin,
    ShownSameness,
    ShownStage,
    ShownVerdict,
)
from app.api.common.strict import StrictRoute
from app.api.common.text import Line
from app.api.stages.promotions import PromotionOut
from app.aws import CloudError
from app.db.tables import Model
from app.registry.errors import ModelCollected, ModelMarked, NotFound
from app.registry.lineage import outputs
from app.registry.models import catalogue, states
from app.registry.reproductions import history
from app.registry.reproductions.history import LastReproduction
from app.words import ModelState, Origin, Stage, Verdict, known

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


class SignatureOut(BaseModel):
    """The signature over the model's files. `model.sig` has it."""

    key: str = Field(description="The fingerprint of the key; GET /signing-keys has its public half.")
    signed_at: datetime


class MarkOut(BaseModel):
    """Why garbage collection will delete the model's files, or has deleted them, and since when."""

    at: datetime = Field(description="When the model was marked.")
    reason: str = Field(description="A code for programs.", examples=["branch_gone"])
    why: ShownMessage
    run: UUID | None = Field(description="The run that has marked it.")

    @classmethod
    def of(cls, model: Model) -> Self | None:
        mark = states.mark_of(model)
        if mark is None:
            return None
        return cls(at=mark.since, reason=mark.code, why=mark.text, run=model.marked_by_run)


class DecisionOut(BaseModel):
    """What a person has decided about a model, and why."""

    at: datetime
    by: str
    by_kind: ShownActor
    note: str

    @classmethod
    def of(cls, at: datetime | None, by: str | None, kind: str | None, note: str | None) -> Self | None:
        """None without a decision."""
        return None if at is None else cls(at=at, by=by or "", by_kind=kind or "", note=note or "")


class LastReproductionOut(BaseModel):
    """The newest build that made the model again and got as far as a verdict."""

    build: UUID
    verdict: ShownSameness
    at: datetime = Field(description="When it ended.")

    @classmethod
    def of(cls, last: LastReproduction) -> Self:
        return cls(build=last.build_id, verdict=last.verdict, at=last.at)


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
        description="The figures of each benchmark, by its name. `measurement` is the version of the way in "
        "which they were measured, and 1 where it is absent. Only figures of one version can be compared.",
        examples=[examples.METRICS],
    )
    verdict: ShownVerdict = Field(
        description="The verdict of the validation. `unknown` for a model that was imported without one."
    )
    verdict_reason: ShownMessage
    signature: SignatureOut | None = Field(
        description="Null for a model that is not signed. The signature is not verified by this call."
    )
    state: ShownModelState = Field(
        description="Whether garbage collection has the model. The files of a model that is not `kept` are "
        "not handed out. While it is `marked`, POST /models/{prefix}/restore keeps it."
    )
    mark: MarkOut | None = Field(description="Null for a model that is kept.")
    collected_at: datetime | None = Field(description="When its files were gone. Null before that.")
    pin: DecisionOut | None = Field(description="Who wants the model to be kept. Null if it is not pinned.")
    release: DecisionOut | None = Field(
        description="Who allows the model to be collected although it was in staging or production. It "
        "covers only promotions that are older than it. Null if nobody does."
    )
    last_reproduction: LastReproductionOut | None = Field(
        description="When the model was last made again from its recorded inputs, and how that compared. "
        "Null if it never was. GET /models/{prefix}/reproductions lists all."
    )
    stages: list[ShownStage] = Field(description="Every stage that the model was ever promoted to.")
    artifacts: list[ArtifactOut]
    promotions: list[PromotionOut]

    @classmethod
    def of(cls, model: Model, last: LastReproduction | None) -> Self:
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
            signature=signature_of(model),
            state=model.state,
            mark=MarkOut.of(model),
            collected_at=model.collected_at,
            pin=DecisionOut.of(model.pinned_at, model.pinned_by, model.pinned_by_kind, model.pin_note),
            release=DecisionOut.of(
                model.released_at, model.released_by, model.released_by_kind, model.release_note
            ),
            last_reproduction=None if last is None else LastReproductionOut.of(last),
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


def signature_of(model: Model) -> SignatureOut | None:
    """The signature as it was recorded. None for a model that is not signed."""
    if model.signed_with is None or model.signed_at is None:
        return None
    return SignatureOut(key=model.signed_with, signed_at=model.signed_at)


def model_out(session: Session, prefix: str) -> ModelOut:
    """The model as answers to changes show it. Raises NotFound."""
    model = catalogue.get(session, prefix)
    return ModelOut.of(model, history.last_of(session, [model.id]).get(model.id))


class OneModelOut(ModelOut):
    """A model with what a person should know before they use it."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.ONE_MODEL]})

    warnings: list[ShownMessage] = Field(
        description="What its training and its benchmark warned of, such as a source of which hardly a row "
        "could be used. `GET /models/{prefix}/lineage` shows what happened to the rows of each source."
    )

    @classmethod
    def of_one(cls, model: Model, warnings: Sequence[str], last: LastReproduction | None) -> Self:
        return cls(**dict(ModelOut.of(model, last)), warnings=list(warnings))


class ModelPage(BaseModel):
    """Models, newest first."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"items": [examples.MODEL], "next": None}]})

    items: list[ModelOut]
    next: NextCursor


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
    search: SearchDep,
    limit: Limit = 50,
    version: Annotated[Line | None, Query(description="Only models of this version.")] = None,
    branch: Annotated[Line | None, Query(description="Only models of this branch.")] = None,
    stage: Annotated[
        Stage | None, Query(description="Only models that were ever promoted to this stage.")
    ] = None,
    verdict: Annotated[Verdict | None, Query(description="Only models with this verdict.")] = None,
    origin: Annotated[Origin | None, Query(description="Only models that came here in this way.")] = None,
    state: Annotated[
        ModelState | None, Query(description="Only models in this state. Without it, models in every state.")
    ] = None,
) -> ModelPage:
    """Models with their files and promotions. If there are several filters, a model must match all."""
    page = catalogue.find(
        db,
        limit=limit,
        cursor=cursor,
        version=version,
        branch=branch,
        stage=stage,
        verdict=verdict,
        origin=origin,
        state=state,
        search=search,
    )
    last = history.last_of(db, [model.id for model in page.items])
    items = [ModelOut.of(model, last.get(model.id)) for model in page.items]
    return ModelPage(items=items, next=page.next_cursor)


@router.get(
    "/models/{prefix}",
    operation_id="models:get",
    summary="One model",
    response_description="The model",
    responses=problems(NotFound),
)
def get(prefix: PrefixPath, db: Db) -> OneModelOut:
    """The model with its files, figures, verdict and promotions, and the warnings of its training."""
    model = catalogue.get(db, prefix)
    return OneModelOut.of_one(
        model,
        () if model.build_id is None else outputs.warnings_of_build(db, model.build_id),
        history.last_of(db, [model.id]).get(model.id),
    )


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
        **problems(NotFound, ModelMarked, ModelCollected, CloudError),
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
    file = catalogue.get_artifact(db, prefix, name)
    url = bucket.presign(file.key, int(settings.presigned_url_lifetime.total_seconds()))
    return RedirectResponse(url, status_code=307, headers={"Cache-Control": "no-store"})
