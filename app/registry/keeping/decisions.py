"""What people decide about models: to pin one, and to let one go that was in staging or production.

A pin and a release say who decided it, when and why. The same decision again changes nothing.
"""

from uuid import UUID

from sqlalchemy import exists, func, select
from sqlalchemy.orm import Session

from app.db.tables import Model, Promotion, ReleaseRule
from app.registry.access import audit
from app.registry.errors import Invalid
from app.registry.keeping import marks
from app.registry.models import catalogue, states
from app.registry.reasons import is_reason
from app.words import Actor, AuditAction, ModelState, Stage

# Nobody deletes a model that was in one of these, unless a person with `admin` has released it.
GUARDED = (Stage.STAGING, Stage.PRODUCTION)


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

    It covers only the promotions until now. After a later one to these stages, it can be given again. It
    takes the place of a release that a rule gave, which would end with its rule.
    Raises NotFound, ModelCollected, and Invalid for a reason without text.
    """
    if not is_reason(reason):
        message = "A released model can be deleted for ever. Say in `reason` why it may be."
        raise Invalid(message)
    # This waits for a promotion that is under way, and the time is taken afterwards.
    model = catalogue.get_locked(session, prefix)
    states.refuse_gone(model)
    is_own = model.released_at is not None and model.released_by_rule is None
    if is_own and not _was_promoted_since(session, model):
        return model
    _release(session, model, who, kind, reason)
    audit.record(session, who, kind, AuditAction.MODEL_RELEASED, prefix, after={"reason": reason})
    return model


def release_by_rule(session: Session, model: Model, rule: ReleaseRule, patterns: str) -> None:
    """Release the model in the name of whoever has set the rule. The rows of both are locked."""
    note = f"Released by the rule {rule.id} of {rule.created_by} ({patterns}): {rule.reason}"
    _release(session, model, rule.created_by, Actor(rule.created_by_kind), note, rule.id)
    after = {"reason": note, "rule": str(rule.id), "by": rule.created_by}
    audit.record(
        session, marks.COLLECTED_BY, Actor.SYSTEM, AuditAction.MODEL_RELEASED, model.prefix, after=after
    )


def _release(
    session: Session, model: Model, who: str, kind: Actor, note: str, rule_id: UUID | None = None
) -> None:
    model.released_at = session.execute(select(func.clock_timestamp())).scalar_one()
    model.released_by, model.released_by_kind, model.release_note = who, kind, note
    model.released_by_rule = rule_id
    session.flush()


def withdraw_release(session: Session, prefix: str, who: str, kind: Actor) -> Model:
    """Take the release back. A marked model that needs it is restored. Raises NotFound and ModelCollected."""
    model = catalogue.get_locked(session, prefix)
    states.refuse_gone(model)
    if model.released_at is not None:
        _withdraw(session, model, who, kind)
    return model


def withdraw_what_a_rule_gave(session: Session, rule_id: UUID, who: str, kind: Actor) -> None:
    """Take the releases back that the rule gave. Marked models that need them are restored.

    Those whose files are being deleted, or are gone, keep them as a record. The rule's row is locked.
    """
    there = [state for state in ModelState if not state.gone]
    models = session.scalars(
        select(Model)
        .where(Model.released_by_rule == rule_id, Model.state.in_(there))
        .order_by(Model.id)
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    )
    for model in models.all():
        _withdraw(session, model, who, kind)


def _withdraw(session: Session, model: Model, who: str, kind: Actor) -> None:
    before = {"reason": model.release_note, "by": model.released_by}
    model.released_at = model.released_by = model.released_by_kind = model.release_note = None
    model.released_by_rule = None
    session.flush()
    audit.record(session, who, kind, AuditAction.RELEASE_WITHDRAWN, model.prefix, before=before)
    if _was_promoted_since(session, model):
        marks.unmark(session, model, who, kind)


def _was_promoted_since(session: Session, model: Model) -> bool:
    """Whether the model was promoted to staging or production since its release, or ever without one."""
    promoted = exists().where(Promotion.model_id == model.id, Promotion.stage.in_(GUARDED))
    if model.released_at is not None:
        promoted = promoted.where(Promotion.promoted_at >= model.released_at)
    return bool(session.scalar(select(promoted)))
