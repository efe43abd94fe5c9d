"""Promotions: the append-only record of what was deployed where."""

from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.db.tables import Model, Outbox, Promotion
from app.queue import enqueue_outbox
from app.registry import models
from app.registry.errors import GateRefused, Invalid
from app.storage.keys import marker_key
from app.words import Stage, Verdict

# The first half names our locks among an advisory lock's users; the second is the stage.
_LOCK_CLASS = 0x7A51


@dataclass(frozen=True)
class PromotionRequest:
    stage: Stage
    note: str | None = None
    override: bool = False


def promote(session: Session, who: str, prefix: str, wanted: PromotionRequest) -> tuple[Promotion, bool]:
    """Record that the model now runs in the stage; returns the record and whether it is new.

    Asking again for what the stage already runs changes nothing. The first promotion of a model to a
    stage puts its marker into the outbox, in the same transaction.
    The record's `override` tells whether a closed gate was gone through.
    Raises NotFound, Invalid (an override without a reason), GateRefused.
    """
    model = models.get(session, prefix)
    if wanted.override and not (wanted.note or "").strip():
        msg = "An override opens a closed gate: say why in `note`."
        raise Invalid(msg)
    # Promotions to one stage come one after the other, so that the highest id is the latest.
    session.execute(select(func.pg_advisory_xact_lock(_LOCK_CLASS, list(Stage).index(wanted.stage))))
    latest = session.scalar(
        select(Promotion).where(Promotion.stage == wanted.stage).order_by(Promotion.id.desc()).limit(1)
    )
    if latest is not None and latest.model_id == model.id:
        return latest, False
    been_in = set(session.scalars(select(Promotion.stage).where(Promotion.model_id == model.id).distinct()))
    refusal = _closed_gate(model, wanted.stage, been_in)
    if refusal is not None and not wanted.override:
        raise refusal
    promotion = Promotion(
        model_id=model.id,
        version=model.version,
        stage=wanted.stage,
        promoted_by=who,
        note=wanted.note,
        # An override that nothing asked for is none: the record tells which promotions went through a gate.
        override=refusal is not None,
    )
    session.add(promotion)
    session.flush()
    if wanted.stage not in been_in:
        session.add(Outbox(key=marker_key(prefix, wanted.stage)))
        session.flush()
        enqueue_outbox(session)
    return promotion, True


def _closed_gate(model: Model, stage: Stage, been_in: set[str]) -> GateRefused | None:
    before = stage.before
    if before is not None and before not in been_in:
        msg = (
            f"{model.prefix} was never in {before}, and {stage} takes only models that were. "
            f"Promote it to {before} first, or send override with a note that says why."
        )
        return GateRefused(msg, gate="stage_order", required_stage=before.value)
    # Development is where a model that failed its validation can be looked into.
    if stage is not Stage.DEVELOPMENT and model.verdict == Verdict.FAILED:
        msg = (
            f"{model.prefix} failed its validation: {model.verdict_reason}. "
            "Train a better one, or send override with a note that says why."
        )
        return GateRefused(msg, gate="verdict")
    return None
