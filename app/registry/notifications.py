"""What the registry tells other systems: a message for each change, sent by a worker once it is committed.

A change writes one row for each target, whatever is configured: only the worker knows the targets, with their
addresses and secrets. It deletes the rows that nobody wants, and sends the others. A message is sent at least
once, and those about one subject are sent in their order.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import delete, exists, func, literal_column, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session, aliased

from app.db.storable import text_of
from app.db.tables import PENDING_NOTIFICATION, Build, Model, Notification, Promotion, Run
from app.queue import enqueue_notifications
from app.registry.access import audit
from app.registry.access.callers import Caller
from app.registry.pages import Cursor, Page, paginate
from app.words import (
    AuditAction,
    ModelState,
    NotificationKind,
    NotificationState,
    NotificationTarget,
    RunKind,
)

# How long a target is tried, and how long what was sent, or could not be sent, is kept for people to see.
TRIED_FOR = timedelta(days=3)
SENT_KEPT_FOR = timedelta(days=7)
FAILED_KEPT_FOR = timedelta(days=90)

# A worker that takes a message has this long to send it. Then other workers may take it.
CLAIM = timedelta(minutes=1)

# Of a text that somebody else wrote, such as a failure, so much is told.
_TEXT_LIMIT = 1_000

_NOW = func.clock_timestamp()


# What happened. Each is called in the transaction of the change, by whoever holds the lock of its subject.


def build_ended(session: Session, build: Build) -> None:
    failure = None
    if build.failure_code is not None:
        failure = {
            "step": build.failure_step,
            "code": build.failure_code,
            "message": text_of(build.failure_message or "", _TEXT_LIMIT),
        }
    data = {
        "build": build.id,
        "kind": build.kind,
        "prefix": build.prefix,
        "version": build.version,
        "sha": build.sha,
        "branch": build.branch,
        "state": build.state,
        "failure": failure,
        "requested_by": build.requested_by,
        "cancelled_by": build.cancel_requested_by,
        "started_at": _time(build.started_at),
        "finished_at": _time(build.finished_at),
    }
    _add(session, NotificationKind.BUILD_ENDED, build.prefix, data)


def verdict_given(session: Session, model: Model, before: str | None = None, by: str | None = None) -> None:
    """By a validation, or by a person who has changed it from another one."""
    data = {
        "prefix": model.prefix,
        "verdict": model.verdict,
        "reason": text_of(model.verdict_reason, _TEXT_LIMIT),
        "before": before,
        "by": by,
    }
    _add(session, NotificationKind.MODEL_VERDICT, model.prefix, data)


def promoted(session: Session, promotion: Promotion, prefix: str, replaced: str | None) -> None:
    kind = NotificationKind.STAGE_ROLLED_BACK if promotion.rollback else NotificationKind.STAGE_PROMOTED
    data = {
        "stage": promotion.stage,
        "prefix": prefix,
        "replaces": replaced,
        "promoted_at": _time(promotion.promoted_at),
        "by": promotion.promoted_by,
        "note": None if promotion.note is None else text_of(promotion.note, _TEXT_LIMIT),
        "override": promotion.override,
    }
    _add(session, kind, promotion.stage, data)


_OF_STATE = {
    ModelState.MARKED: NotificationKind.MODEL_MARKED,
    ModelState.KEPT: NotificationKind.MODEL_RESTORED,
    ModelState.COLLECTED: NotificationKind.MODEL_COLLECTED,
}


def model_changed(session: Session, model: Model) -> None:
    """The model has got another state. That its objects are about to be deleted is not told."""
    kind = _OF_STATE.get(ModelState(model.state))
    if kind is None:
        return
    run = None if model.marked_by_run is None else str(model.marked_by_run)
    data = {"prefix": model.prefix, "reason": model.mark_reason, "run": run}
    _add(session, kind, model.prefix, data)


def run_ended(session: Session, run: Run) -> None:
    """Only collections are told about."""
    if run.kind != RunKind.COLLECTION:
        return
    counts = {
        name: value
        for name, value in (run.result or {}).items()
        if isinstance(value, int) and not isinstance(value, bool)
    }
    data = {
        "run": run.id,
        "state": run.state,
        "dry_run": run.options.get("dry_run") is True,
        "counts": counts,
        "failure": None if run.failure is None else text_of(run.failure, _TEXT_LIMIT),
        "requested_by": run.requested_by,
    }
    _add(session, NotificationKind.COLLECTION_ENDED, str(run.id), data)


def send_test(session: Session, who: Caller) -> UUID:
    """Have one test message sent to every target. Returns its id."""
    message = _add(session, NotificationKind.TEST, "test", {"by": who.name})
    audit.record(session, who.name, who.kind, AuditAction.NOTIFICATION_TESTED, str(message))
    return message


def _add(session: Session, kind: NotificationKind, subject: str, data: Mapping[str, object]) -> UUID:
    message = uuid4()
    row = {"message": message, "kind": kind, "subject": subject, "data": dict(data)}
    session.execute(insert(Notification).values([row | {"target": target} for target in NotificationTarget]))
    enqueue_notifications(session)
    return message


def _time(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat().replace("+00:00", "Z")


# For people.


def find(
    session: Session,
    *,
    limit: int,
    cursor: Cursor | None = None,
    state: NotificationState | None = None,
    target: NotificationTarget | None = None,
    kind: NotificationKind | None = None,
    message: UUID | None = None,
) -> Page[Notification]:
    """Notifications, newest first. If there are several filters, one must match all of them."""
    query = select(Notification)
    if state is not None:
        query = query.where(Notification.state == state)
    if target is not None:
        query = query.where(Notification.target == target)
    if kind is not None:
        query = query.where(Notification.kind == kind)
    if message is not None:
        query = query.where(Notification.message == message)
    return paginate(session, query, Notification.created_at, Notification.id, limit=limit, cursor=cursor)


# What workers do.


@dataclass(frozen=True)
class Claimed:
    """A message that this worker has taken to send. `attempt` counts from 1."""

    id: int
    message: UUID
    kind: str
    data: Mapping[str, Any]
    created_at: datetime
    attempt: int


def tidy(session: Session, target: NotificationTarget, wanted: Collection[NotificationKind]) -> None:
    """Delete the target's messages that nobody wants, and those that were kept for long enough.

    `wanted` is empty where the target is not configured. Otherwise, messages of kinds that only a newer
    version knows are left to its workers.
    """
    unwanted = delete(Notification).where(Notification.target == target, PENDING_NOTIFICATION)
    if wanted:
        unwanted = unwanted.where(
            Notification.kind.in_([kind for kind in NotificationKind if kind not in wanted])
        )
    session.execute(unwanted)
    for state, kept_for in (
        (NotificationState.SENT, SENT_KEPT_FOR),
        (NotificationState.FAILED, FAILED_KEPT_FOR),
    ):
        session.execute(
            delete(Notification).where(
                Notification.target == target,
                Notification.state == state,
                Notification.finished_at < _NOW - kept_for,
            )
        )


def claim(
    session: Session, target: NotificationTarget, wanted: Collection[NotificationKind]
) -> Claimed | None:
    """Take the message to this target that has been due for longest. None if none is due.

    A message waits while one before it about the same subject has neither been sent nor been given up.
    """
    earlier = aliased(Notification)
    due = (
        select(Notification.id)
        .where(
            Notification.target == target,
            PENDING_NOTIFICATION,
            Notification.next_attempt_at <= _NOW,
            Notification.kind.in_(wanted),
            ~exists().where(
                earlier.target == Notification.target,
                earlier.subject == Notification.subject,
                earlier.id < Notification.id,
                earlier.kind.in_(wanted),
                earlier.state == literal_column("'pending'"),
            ),
        )
        .order_by(Notification.next_attempt_at, Notification.id)
        .limit(1)
        .with_for_update(skip_locked=True, of=Notification)
        # As a CTE it is evaluated once. A subquery can be evaluated again, and would take several messages.
        .cte("due")
    )
    row = session.execute(
        update(Notification)
        .where(Notification.id == due.c.id)
        .values(attempts=Notification.attempts + 1, next_attempt_at=_NOW + CLAIM)
        .returning(
            Notification.id,
            Notification.message,
            Notification.kind,
            Notification.data,
            Notification.created_at,
            Notification.attempts,
        )
        .execution_options(synchronize_session=False)
    ).one_or_none()
    return None if row is None else Claimed(*row)


def sent(session: Session, claimed: Claimed) -> bool:
    """Record that the target has the message. False if another worker has taken it meanwhile."""
    return _change(session, claimed, state=NotificationState.SENT, finished_at=_NOW, last_error=None)


def put_off(session: Session, claimed: Claimed, error: str, wait: timedelta) -> NotificationState | None:
    """Record why the message was not sent. It is tried again after `wait`, or given up if it is too old.

    Returns its state, or None if another worker has taken it meanwhile.
    """
    now = session.execute(select(_NOW)).scalar_one()
    if now - claimed.created_at >= TRIED_FOR:
        return NotificationState.FAILED if give_up(session, claimed, error) else None
    changed = _change(session, claimed, last_error=error, next_attempt_at=_NOW + wait)
    return NotificationState.PENDING if changed else None


def give_up(session: Session, claimed: Claimed, error: str) -> bool:
    """Keep the message as one that could not be sent. False if another worker has taken it meanwhile."""
    return _change(session, claimed, state=NotificationState.FAILED, finished_at=_NOW, last_error=error)


def _change(session: Session, claimed: Claimed, **values: Any) -> bool:
    changed = session.scalar(
        update(Notification)
        .where(Notification.id == claimed.id, Notification.attempts == claimed.attempt, PENDING_NOTIFICATION)
        .values(**values)
        .returning(Notification.id)
        .execution_options(synchronize_session=False)
    )
    return changed is not None
