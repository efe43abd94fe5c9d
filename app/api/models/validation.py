"""What the validation of a model found, and the verdict that a person may give it instead."""

from datetime import datetime
from typing import Self

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from sqlalchemy.orm import Session

from app.api.common import examples
from app.api.common.deps import CanOverride, DatabaseDep, Db, PrefixPath
from app.api.common.errors import problems
from app.api.common.shown import ShownActor, ShownMessage, ShownVerdict
from app.api.common.strict import StrictRoute
from app.api.common.text import Lines
from app.api.stages.kept import KeptDep
from app.db.tables import Model
from app.registry.errors import ModelCollected, ModelMarked, NotFound
from app.registry.models import catalogue, verdicts
from app.registry.models.report import Report
from app.words import Verdict

router = APIRouter(tags=["models"], route_class=StrictRoute)


class VerdictCreate(BaseModel):
    """The verdict that the model gets, and why."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [examples.VERDICT_CREATE]})

    verdict: Verdict
    reason: Lines = Field(min_length=1, max_length=2000, description="Why. It is kept, and shown.")


class VerdictChangeOut(BaseModel):
    """The last change of a verdict."""

    at: datetime
    by: str
    by_kind: ShownActor


class ValidationOut(BaseModel):
    """The verdict of a model, and the report of its validation."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.VALIDATION]})

    prefix: str = Field(examples=["0.0.2-aff1242"])
    verdict: ShownVerdict
    verdict_reason: ShownMessage
    changed: VerdictChangeOut | None = Field(
        description="Who gave the model this verdict. Null while it has the one of its validation."
    )
    report: Report | None = Field(
        description="What the validation found, whatever the verdict is now. Null for an imported model; "
        "GET /models/{prefix}/documents/check_result.json has its report, if it has one."
    )

    @classmethod
    def of(cls, session: Session, model: Model) -> Self:
        changed = None
        if model.verdict_changed_at is not None:
            changed = VerdictChangeOut(
                at=model.verdict_changed_at,
                by=model.verdict_changed_by or "",
                by_kind=model.verdict_changed_by_kind or "",
            )
        return cls(
            prefix=model.prefix,
            verdict=model.verdict,
            verdict_reason=model.verdict_reason,
            changed=changed,
            report=_readable(verdicts.report_of(session, model)),
        )


def _readable(stored: dict[str, object] | None) -> Report | None:
    try:
        return None if stored is None else Report.model_validate(stored)
    except ValidationError:
        # Another release wrote it. The file is among the model's artifacts.
        return None


@router.get(
    "/models/{prefix}/validation",
    operation_id="models:validation",
    summary="What the validation of a model found",
    response_description="The verdict and the report",
    responses=problems(NotFound),
)
def get(prefix: PrefixPath, db: Db) -> ValidationOut:
    """The figures beside those of the baseline, and which descriptions got better and which got worse.

    The model's `check_result.json` holds the same report.
    """
    return ValidationOut.of(db, catalogue.get(db, prefix))


@router.post(
    "/models/{prefix}/verdict",
    operation_id="models:verdict",
    summary="Change the verdict of a model",
    response_description="The model has this verdict now",
    responses=problems(NotFound, ModelMarked, ModelCollected),
)
def change(
    prefix: PrefixPath,
    body: VerdictCreate,
    who: CanOverride,
    database: DatabaseDep,
    kept: KeptDep,
) -> ValidationOut:
    """Give the model another verdict than its validation did. Gates and markers follow it.

    The reason and its author are kept, and the report stays as it was. Sending the same verdict again changes
    nothing.
    """
    with database.transaction() as session:
        model = verdicts.change(session, who.name, who.kind, prefix, body.verdict, body.reason)
        answer = ValidationOut.of(session, model)
    kept.forget()
    return answer
