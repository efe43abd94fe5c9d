"""Stages: what runs where, what ran there before, and going back to it."""

from datetime import datetime
from typing import Annotated, Self

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, ConfigDict, Field, StrictBool

from app.api.common import examples
from app.api.common.deps import AnyCaller, BucketDep, DatabaseDep, Db, Limit, NextCursor, PageCursor
from app.api.common.errors import problems
from app.api.common.shown import ShownStage, ShownVerdict
from app.api.common.strict import StrictRoute
from app.api.common.text import Line, Lines, Moment
from app.api.stages.kept import KeptDep
from app.api.stages.promotions import PromotionOut
from app.registry.errors import (
    BucketUnavailable,
    GateRefused,
    ModelCollected,
    ModelMarked,
    NotFound,
    NothingToRollBackTo,
    StageChanged,
)
from app.registry.stages import history, rollbacks
from app.registry.stages.history import Current, Period
from app.registry.stages.rollbacks import RollbackRequest
from app.words import Scope, Stage

router = APIRouter(tags=["stages"], route_class=StrictRoute)


class CurrentOut(BaseModel):
    """The model that a stage runs, and the promotion that brought it there."""

    prefix: str = Field(examples=["0.0.2-aff1242"])
    version: str = Field(examples=["0.0.2"])
    verdict: ShownVerdict
    missing_artifacts: list[str] = Field(
        description="The model's files that the bucket is known to lack. While there are any, nobody can "
        "deploy the model, and GET /models/{stage}/latest answers 503."
    )
    promotion: PromotionOut

    @classmethod
    def of(cls, current: Current) -> Self:
        return cls(
            prefix=current.model.prefix,
            version=current.model.version,
            verdict=current.model.verdict,
            missing_artifacts=list(current.missing),
            promotion=PromotionOut.of(current.promotion, current.model.prefix),
        )


class StageOut(BaseModel):
    """A stage and what runs in it."""

    stage: ShownStage
    current: CurrentOut | None = Field(description="Null before the first promotion to the stage.")


class StageList(BaseModel):
    """The stages in their order."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.STAGES]})

    items: list[StageOut]


class PeriodOut(PromotionOut):
    """A promotion, and the end of the time in which its model ran in the stage."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.PERIOD]})

    until: datetime | None = Field(description="When the next promotion replaced it. Null while it runs.")

    @classmethod
    def of_period(cls, period: Period) -> Self:
        promotion = PromotionOut.of(period.promotion, period.prefix)
        return cls(**promotion.model_dump(), until=period.until)


class HistoryPage(BaseModel):
    """What ran in a stage, newest first."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"items": [examples.PERIOD], "next": None}]})

    items: list[PeriodOut]
    next: NextCursor


class RollbackCreate(BaseModel):
    """Which model is replaced, by which one, and why."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [examples.ROLLBACK_CREATE]})

    expected: Line = Field(
        max_length=200,
        description="The prefix that the stage runs and that is to be replaced. If it runs another one by "
        "then, nothing happens, so a repeated request rolls back once.",
    )
    to: Line | None = Field(
        default=None,
        max_length=200,
        description="The prefix to go back to, which must have run in the stage. Without it, the newest one "
        "that ran there before and whose files are all in the bucket.",
    )
    note: Lines = Field(max_length=2000, description="The reason.")
    override: StrictBool = Field(
        default=False,
        description="Go back to the model although files of it are missing, or S3 cannot say whether they "
        "are.",
    )


StagePath = Annotated[Stage, Path(description="The stage.")]


@router.get(
    "/stages",
    operation_id="stages:list",
    summary="What runs where",
    response_description="Every stage",
    responses=problems(),
)
def list_stages(db: Db) -> StageList:
    """Every stage with the model that it runs, since when, and who promoted it."""
    found = {stage: history.current(db, stage) for stage in Stage}
    return StageList(
        items=[
            StageOut(stage=stage, current=None if current is None else CurrentOut.of(current))
            for stage, current in found.items()
        ]
    )


@router.get(
    "/stages/{stage}/history",
    operation_id="stages:history",
    summary="What ran in a stage",
    response_description="A page of promotions with their ends",
    responses=problems(),
)
def list_history(
    stage: StagePath,
    db: Db,
    cursor: PageCursor,
    limit: Limit = 50,
    at: Annotated[
        Moment | None,
        Query(
            description="Begin with what ran at this time (RFC 3339). Escape a `+` in it as `%2B`.",
            examples=["2026-11-23T10:12:44Z"],
        ),
    ] = None,
) -> HistoryPage:
    """The promotions to the stage, newest first, each with the time at which the next one replaced it.

    With `at`, the first item is what ran in the stage at that time; without any item, nothing ran there yet.
    """
    page = history.history(db, stage, limit=limit, cursor=cursor, at=at)
    return HistoryPage(
        items=[PeriodOut.of_period(period) for period in page.items],
        next=page.next_cursor,
    )


@router.post(
    "/stages/{stage}/rollback",
    operation_id="stages:rollback",
    summary="Go back to a model that ran in the stage before",
    status_code=201,
    response_description="The stage runs the earlier model from now on",
    responses=problems(
        NotFound,
        StageChanged,
        NothingToRollBackTo,
        ModelMarked,
        ModelCollected,
        GateRefused,
        BucketUnavailable,
    ),
)
def rollback(
    stage: StagePath,
    body: RollbackCreate,
    who: AnyCaller,
    database: DatabaseDep,
    bucket: BucketDep,
    kept: KeptDep,
) -> PromotionOut:
    """Promote a model that ran in the stage before. Its verdict and the stage before it do not matter.

    Without `to`, that is the model that ran before the current one came to the stage. Models that the stage
    was rolled back from are not chosen again.
    """
    who.need(Scope.promote(stage), *([Scope.OVERRIDE] if body.override else []))
    wanted = RollbackRequest(stage, body.expected, body.note, body.to, body.override)
    promotion, prefix = rollbacks.roll_back(database, bucket, who.name, wanted, who.kind)
    kept.forget()
    return PromotionOut.of(promotion, prefix)
