"""How far garbage collection has got with a model: kept, marked, sweeping, collected.

Here is everything that changes a model's state. Each change locks the model's row first. A promotion locks
the row too, against any change of it. So either the promotion comes first, and the database refuses the mark,
or the mark comes first, and the promotion is refused. The rules that must hold whatever the policy says are a
trigger's (migration 0026), so they bind every program that writes to the database.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from uuid import UUID

import psycopg
from sqlalchemy import func, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.db.tables import Model
from app.registry import notifications
from app.registry.access import audit
from app.registry.errors import CollectionRefused, Conflict
from app.registry.models import catalogue, documents, states
from app.words import Actor, AuditAction, ModelState

# Who marks and collects, in the audit trail. The run says who asked for it.
COLLECTED_BY = "collection"


@dataclass(frozen=True)
class MarkReason:
    """Why a model may go. Programs go by the code; the text is for people."""

    code: str
    text: str


def mark(session: Session, model_id: UUID, reason: MarkReason, run: UUID | None) -> Model:
    """Mark the model, so that its files are not handed out and it is not promoted any more.

    A model that is marked already stays as it is: the grace period counts from its first mark.
    Raises NotFound, ModelCollected, and CollectionRefused for a model that must be kept.
    """
    model = catalogue.get_locked(session, model_id)
    if model.state == ModelState.MARKED:
        return model
    states.refuse_gone(model)
    if model.pinned_at is not None:
        message = f"{model.prefix} is pinned by {model.pinned_by}, so it cannot be collected."
        raise CollectionRefused(message, prefix=model.prefix, rule="pinned")
    _change(
        session,
        model,
        ModelState.MARKED,
        marked_at=func.clock_timestamp(),
        mark_reason=asdict(reason),
        marked_by_run=run,
    )
    after = {"state": ModelState.MARKED, "reason": asdict(reason), "run": None if run is None else str(run)}
    _record(session, model, AuditAction.MODEL_MARKED, ModelState.KEPT, after)
    return model


def restore(session: Session, prefix: str, who: str, kind: Actor) -> Model:
    """Take the mark off the model. A model that is kept stays as it is.

    Raises NotFound and ModelCollected.
    """
    return unmark(session, catalogue.get_locked(session, prefix), who, kind)


def unmark(session: Session, model: Model, who: str, kind: Actor) -> Model:
    """As `restore`, for a model whose row is locked. Raises ModelCollected."""
    if model.state == ModelState.KEPT:
        return model
    states.refuse_gone(model)
    since = None if model.marked_at is None else model.marked_at.isoformat()
    before = {"state": ModelState.MARKED, "reason": model.mark_reason, "since": since}
    _change(
        session,
        model,
        ModelState.KEPT,
        marked_at=None,
        mark_reason=None,
        marked_by_run=None,
        restored_at=func.clock_timestamp(),
    )
    audit.record(
        session,
        who,
        kind,
        AuditAction.MODEL_RESTORED,
        model.prefix,
        before=before,
        after={"state": ModelState.KEPT},
    )
    return model


def begin_sweep(session: Session, model_id: UUID, saved: Mapping[str, bytes]) -> Model:
    """From the commit on, the model cannot be restored any more, and its objects may be deleted.

    `saved` are the documents that stay readable: what `documents.fetch` says for `documents.to_save`.
    The caller checks in the same transaction that the model may still go: lock it first, with
    `catalogue.get_locked`. A model that is sweeping already stays as it is, so a sweep can be resumed.
    Raises NotFound, ModelCollected if nothing is left to sweep, Conflict for a model that is not marked, and
    CollectionRefused.
    """
    model = catalogue.get_locked(session, model_id)
    if model.state == ModelState.SWEEPING:
        return model
    if model.state == ModelState.KEPT:
        message = f"{model.prefix} is not marked, so it is not swept. It was restored, or never marked."
        raise Conflict(message)
    states.refuse_gone(model)
    documents.save(session, model.id, saved)
    _change(session, model, ModelState.SWEEPING)
    _record(session, model, AuditAction.MODEL_SWEPT, ModelState.MARKED, {"state": ModelState.SWEEPING})
    return model


def collected(session: Session, model_id: UUID) -> Model:
    """Record that the objects of a model that was swept are gone. Once is enough.

    Raises NotFound, and Conflict for a model that nobody has begun to sweep.
    """
    model = catalogue.get_locked(session, model_id)
    if model.state == ModelState.COLLECTED:
        return model
    if model.state != ModelState.SWEEPING:
        message = f"{model.prefix} is {model.state}, so its objects cannot have been deleted."
        raise Conflict(message)
    _change(session, model, ModelState.COLLECTED, collected_at=func.clock_timestamp())
    _record(session, model, AuditAction.MODEL_COLLECTED, ModelState.SWEEPING, {"state": ModelState.COLLECTED})
    return model


def _change(session: Session, model: Model, state: ModelState, **values: object) -> None:
    """Change the state of a model whose row is locked. This is the only place that does."""
    statement = update(Model).where(Model.id == model.id).values(state=state, **values)
    with _refusals(model.prefix), session.begin_nested():
        session.execute(statement.execution_options(synchronize_session=False))
    session.refresh(model, ["state", "marked_at", "mark_reason", "marked_by_run", "collected_at"])
    notifications.model_changed(session, model)


@contextmanager
def _refusals(prefix: str) -> Iterator[None]:
    """Raise CollectionRefused for what the database's own rules refuse."""
    try:
        yield
    except IntegrityError as exc:
        error = exc.orig
        if not isinstance(error, psycopg.errors.RestrictViolation):
            raise
        said, rule = error.diag.message_primary, error.diag.constraint_name or "unknown"
        raise CollectionRefused(f"The database refuses it: {said}.", prefix=prefix, rule=rule) from exc


def _record(
    session: Session, model: Model, action: AuditAction, before: ModelState, after: Mapping[str, object]
) -> None:
    audit.record(
        session, COLLECTED_BY, Actor.SYSTEM, action, model.prefix, before={"state": before}, after=after
    )
