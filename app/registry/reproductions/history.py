"""Which models were reproduced, when and with what outcome, and which are being reproduced now."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import Select, select
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Session

from app.db.tables import ACTIVE_REPRODUCTION, Build, BuildStep
from app.registry.reproductions.outcomes import Outcome
from app.words import BuildState, StepName


@dataclass(frozen=True)
class LastReproduction:
    """The newest reproduction of a model that got as far as a verdict."""

    build_id: UUID
    verdict: str
    at: datetime


def last_of(session: Session, model_ids: Collection[UUID]) -> dict[UUID, LastReproduction]:
    """The last reproduction of each of the models that ever had one. It is one statement."""
    rows = session.execute(
        select(Build.reproduces, Build.id, BuildStep.output, Build.finished_at)
        .ext(distinct_on(Build.reproduces))
        .join(BuildStep, BuildStep.build_id == Build.id)
        .where(
            Build.reproduces.in_(list(model_ids)),
            Build.state == BuildState.SUCCEEDED,
            BuildStep.name == StepName.COMPARE,
        )
        .order_by(Build.reproduces, Build.created_at.desc(), Build.id.desc())
    )
    return {
        model_id: LastReproduction(build_id, outcome.verdict, at)
        for model_id, build_id, output, at in rows
        if model_id is not None and at is not None and (outcome := Outcome.read(output)) is not None
    }


def reproduced_now() -> Select[UUID | None]:
    """A query for the ids of the models that are being reproduced: they and their inputs are needed."""
    return select(Build.reproduces).where(ACTIVE_REPRODUCTION)
