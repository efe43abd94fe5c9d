"""Changes a model's verdict, where a person knows better than the validation."""

import logging

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.db.tables import Build, Model
from app.registry import mirror, notifications
from app.registry.access import audit
from app.registry.errors import Invalid
from app.registry.models import catalogue, states
from app.registry.reasons import is_reason
from app.storage.keys import verdict_key
from app.words import Actor, AuditAction, Verdict

_log = logging.getLogger(__name__)


def change(session: Session, who: str, kind: Actor, prefix: str, verdict: Verdict, reason: str) -> Model:
    """Give the model the verdict, and have its markers follow. The same verdict again changes nothing.

    A promotion reads the verdict under a lock of the model's row, so it comes either before the change or
    after it. The report of the validation stays as it was. Raises NotFound, ModelMarked, ModelCollected, and
    Invalid for a reason without text.
    """
    if not is_reason(reason):
        message = "A verdict is changed against what the validation found. Say why in `reason`."
        raise Invalid(message)
    # Other transactions may add promotions of the model meanwhile, which need the key of its row.
    model = catalogue.get_locked(session, prefix)
    states.refuse_unless_kept(model)
    if model.verdict == verdict:
        return model
    before = {"verdict": model.verdict, "reason": model.verdict_reason}
    _log.warning("override: %s gives %s the verdict %s: %r", who, prefix, verdict, reason)
    model.verdict = verdict
    model.verdict_reason = reason
    model.verdict_changed_at = session.execute(select(func.clock_timestamp())).scalar_one()
    model.verdict_changed_by = who
    model.verdict_changed_by_kind = kind
    session.flush()
    audit.record(
        session,
        who,
        kind,
        AuditAction.VERDICT_CHANGED,
        prefix,
        before=before,
        after={"verdict": verdict, "reason": reason},
    )
    notifications.verdict_given(session, model, before=str(before["verdict"]), by=who)
    # The markers of both verdicts: one of them may have to go. mirror.ask says why this comes last.
    mirror.ask(session, *(verdict_key(prefix, word) for word in Verdict if word.has_marker))
    return model


def report_of(session: Session, model: Model) -> dict[str, object] | None:
    """What the validation of the model found. None for models that were imported or have no report."""
    if model.build_id is None:
        return None
    return session.scalar(select(Build.validation_report).where(Build.id == model.build_id))
