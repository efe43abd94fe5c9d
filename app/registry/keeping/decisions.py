"""What people decide about models: to pin one, and to let one go that was in staging or production.

A pin and a release say who decided it, when and why. The same decision again changes nothing.
"""

from sqlalchemy import exists, func, select
from sqlalchemy.orm import Session

from app.db.tables import Model, Promotion
from app.registry.access import audit
from app.registry.errors import Invalid
from app.registry.keeping import marks
from app.registry.models import catalogue, states
from app.registry.reasons import is_reason
from app.words import Actor, AuditAction, Stage

# Nobody deletes a model that was in one of these, unless a person with `admin` has released it.
_GUARDED = (Stage.STAGING, Stage.PRODUCTION)


def pin(session: Session, prefix: str, who: str, kind: Actor, note: str) -> Model:
    """Keep the model, whatever the policy says. A model that is marked is restored.

    Raises NotFound, ModelCollected, and Invalid for a note without text.
    """
    if not is_reason(note):
        message = "A pinned model is kept until somebody unpins it. Say in `note` what it is kept for."
        raise Invalid(message)
    model = catalogue.get_locked(session, prefix)
    states.refuse_gone(model)
    if model.pinned_at is not None:
        return model
    marks.unmark(session, model, who, kind)
    model.pinned_at = session.execute(select(func.clock_timestamp())).scalar_one()
    model.pinned_by, model.pinned_by_kind, model.pin_note = who, kind, note
    session.flush()
    audit.record(session, who, kind, AuditAction.MODEL_PINNED, prefix, after={"note": note})
    return model


def unpin(session: Session, prefix: str, who: str, kind: Actor) -> Model:
    """Take the pin off, so that the policy decides about the model again. Raises NotFound."""
    model = catalogue.get_locked(session, prefix)
    if model.pinned_at is None:
        return model
    before = {"note": model.pin_note, "by": model.pinned_by}
    model.pinned_at = model.pinned_by = model.pinned_by_kind = model.pin_note = None
    session.flush()
    audit.record(session, who, kind, AuditAction.MODEL_UNPINNED, prefix, before=before)
    return model


def release(session: Session, prefix: str, who: str, kind: Actor, reason: str) -> Model:
    """Allow the model to be collected, although it was in staging or production.

    It covers only the promotions until now. After a later one to these stages, it can be given again.
    Raises NotFound, ModelCollected, and Invalid for a reason without text.
    """
    if not is_reason(reason):
        message = "A released model can be deleted for ever. Say in `reason` why it may be."
        raise Invalid(message)
    # This waits for a promotion that is under way, and the time is taken afterwards.
    model = catalogue.get_locked(session, prefix)
    states.refuse_gone(model)
    if model.released_at is not None and not _was_promoted_since(session, model):
        return model
    model.released_at = session.execute(select(func.clock_timestamp())).scalar_one()
    model.released_by, model.released_by_kind, model.release_note = who, kind, reason
    session.flush()
    audit.record(session, who, kind, AuditAction.MODEL_RELEASED, prefix, after={"reason": reason})
    return model


def withdraw_release(session: Session, prefix: str, who: str, kind: Actor) -> Model:
    """Take the release back. A marked model that needs it is restored. Raises NotFound and ModelCollected."""
    model = catalogue.get_locked(session, prefix)
    states.refuse_gone(model)
    if model.released_at is None:
        return model
    before = {"reason": model.release_note, "by": model.released_by}
    model.released_at = model.released_by = model.released_by_kind = model.release_note = None
    session.flush()
    audit.record(session, who, kind, AuditAction.RELEASE_WITHDRAWN, prefix, before=before)
    if _was_promoted_since(session, model):
        marks.unmark(session, model, who, kind)
    return model


def _was_promoted_since(session: Session, model: Model) -> bool:
    """Whether the model was promoted to staging or production since its release, or ever without one."""
    promoted = exists().where(Promotion.model_id == model.id, Promotion.stage.in_(_GUARDED))
    if model.released_at is not None:
        promoted = promoted.where(Promotion.promoted_at >= model.released_at)
    return bool(session.scalar(select(promoted)))
