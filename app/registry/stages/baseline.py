"""The model that a new one is compared with."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db.tables import BuildStep, Model
from app.registry.models.validation import Baseline, Evidence, Why
from app.registry.stages import history
from app.words import ModelState, Stage, StepName, Verdict


def find(session: Session) -> Baseline | None:
    """What runs in production; else the newest model that passed and is kept; None if there is neither."""
    model, why = current(session)
    if model is None:
        return None
    # Of an imported model, nobody knows what it was trained on.
    trained = session.scalar(
        select(BuildStep.output).where(BuildStep.build_id == model.build_id, BuildStep.name == StepName.TRAIN)
    )
    counts = (trained or {}).get("counts")
    return Baseline(model.prefix, why, Evidence(model.metrics, counts if isinstance(counts, dict) else {}))


def current(session: Session) -> tuple[Model | None, Why]:
    """The model that new ones are compared with, and why this one. Garbage collection must not delete it."""
    model = history.running(session, Stage.PRODUCTION)
    if model is not None:
        return model, Why.PRODUCTION
    newest_passed = (
        select(Model)
        .where(Model.verdict == Verdict.PASSED, Model.state == ModelState.KEPT)
        .order_by(Model.published_at.desc(), Model.id.desc())
        .limit(1)
    )
    return session.scalar(newest_passed), Why.NEWEST_PASSED
