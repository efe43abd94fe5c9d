"""Promotions: recording which model a stage runs from now on."""

from datetime import datetime
from typing import Self

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field, StrictBool

from app.api.common import examples
from app.api.common.deps import AnyCaller, BucketDep, DatabaseDep, PrefixPath
from app.api.common.errors import problems
from app.api.common.shown import ShownActor, ShownStage
from app.api.common.strict import StrictRoute
from app.api.common.text import Line, Lines
from app.api.stages.kept import KeptDep
from app.db.tables import Promotion
from app.registry.errors import (
    BucketUnavailable,
    GateRefused,
    ModelCollected,
    ModelMarked,
    NotFound,
    StageChanged,
)
from app.registry.stages import promotions
from app.registry.stages.promotions import PromotionRequest
from app.words import Scope, Stage

router = APIRouter(tags=["models"], route_class=StrictRoute)


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
    rollback: bool = Field(description="Whether the stage went back to a model that it had run before.")

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
            rollback=promotion.rollback,
        )


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
    expected: Line | None = Field(
        default=None,
        max_length=200,
        description="The prefix that the promotion replaces. If the stage runs another one by then, nothing "
        "is promoted.",
    )


@router.post(
    "/models/{prefix}/promotions",
    operation_id="models:promote",
    summary="Promote a model to a stage",
    status_code=201,
    response_description="The stage runs this model from now on",
    responses={
        200: {"model": PromotionOut, "description": "The stage already runs this model; nothing changed"},
        **problems(NotFound, ModelMarked, ModelCollected, GateRefused, StageChanged, BucketUnavailable),
    },
)
def promote(
    prefix: PrefixPath,
    body: PromotionCreate,
    who: AnyCaller,
    database: DatabaseDep,
    bucket: BucketDep,
    kept: KeptDep,
    response: Response,
) -> PromotionOut:
    """Record that the model now runs in the stage.

    Refused while a gate is closed; the answer names the gate. Staging and production take a model that passed
    its validation and was in the stage before; development takes any verdict. The model's files must be in
    the bucket as they were recorded, which S3 is asked for. For production, the signature of a signed model
    is verified too, and a model that was published since models are signed must have one.
    """
    who.need(Scope.promote(body.stage), *([Scope.OVERRIDE] if body.override else []))
    wanted = PromotionRequest(body.stage, body.note, body.override, body.expected)
    promotion, new = promotions.promote(database, bucket, who.name, prefix, wanted, who.kind)
    kept.forget()
    if not new:
        response.status_code = 200
    return PromotionOut.of(promotion, prefix)
