"""Runs: long pieces of work that a person or the schedule asks for, such as an import.

A run is carried by one worker at a time, under a lease with an epoch, as a build is. It stores how far it has
got, so that another worker goes on there. To stop a run is to end it: its worker's next write is refused.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, func, or_, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session, defer

from app.db.tables import ACTIVE_RUN, Run
from app.queue import enqueue_run, has_run_job
from app.registry import notifications
from app.registry.access import audit
from app.registry.builds.clock import now
from app.registry.builds.lease import LeaseLost
from app.registry.errors import NotFound, RunActive
from app.registry.pages import EVERYTHING, Cursor, Page, Search, paginate
from app.words import Actor, AuditAction, RunKind, RunState

# How many workers in a row may take a run without getting it any further.
_MAX_TAKINGS = 10

# How many things a run's result lists. Its counts are always of all of them.
LISTED = 300


@dataclass(frozen=True)
class RunLease:
    """A worker's hold on a run."""

    run_id: UUID
    epoch: int


def request(
    session: Session, kind: RunKind, options: Mapping[str, Any], who: str, actor: Actor = Actor.TOKEN
) -> Run:
    """Record the run, and enqueue it in the same transaction. Raises RunActive."""
    run_id = session.scalar(
        insert(Run)
        .values(kind=kind, options=dict(options), requested_by=who, requested_by_kind=actor)
        .on_conflict_do_nothing(index_elements=[Run.kind], index_where=ACTIVE_RUN)
        .returning(Run.id)
    )
    if run_id is None:
        active = session.scalar(select(Run.id).where(Run.kind == kind, ACTIVE_RUN))
        message = (
            f"Another {kind} is under way, and there is one at a time. Follow it with GET /runs/{active}, "
            f"or stop it with POST /runs/{active}/stop."
        )
        raise RunActive(message, run=active)
    enqueue_run(session, run_id)
    audit.record(
        session,
        who,
        actor,
        AuditAction.RUN_REQUESTED,
        str(run_id),
        after={"kind": kind, "options": dict(options)},
    )
    return get(session, run_id)


def get(session: Session, run_id: UUID) -> Run:
    """Raises NotFound."""
    run = session.get(Run, run_id)
    if run is None:
        message = f"There is no run {run_id}. GET /runs lists the runs."
        raise NotFound(message)
    return run


def find(
    session: Session,
    *,
    limit: int,
    cursor: Cursor | None = None,
    kind: RunKind | None = None,
    state: RunState | None = None,
    between: Search = EVERYTHING,
) -> Page[Run]:
    """Runs, newest first."""
    # How its worker goes on is not shown, and can be large.
    query = between.narrow(select(Run).options(defer(Run.checkpoint, raiseload=True)), Run.created_at)
    if kind is not None:
        query = query.where(Run.kind == kind)
    if state is not None:
        query = query.where(Run.state == state)
    return paginate(session, query, Run.created_at, Run.id, limit=limit, cursor=cursor)


def stop(session: Session, run_id: UUID, who: str, actor: Actor = Actor.TOKEN) -> Run:
    """End the run as stopped, with what it has done so far. A run that has ended stays as it is.

    Raises NotFound.
    """
    get(session, run_id)
    run = session.scalars(
        select(Run).where(Run.id == run_id).with_for_update().execution_options(populate_existing=True)
    ).one()
    if RunState(run.state).active:
        before = {"state": run.state}
        _end(session, run, RunState.STOPPED, stopped_by=who)
        after = {"state": run.state, "kind": run.kind}
        audit.record(session, who, actor, AuditAction.RUN_STOPPED, str(run.id), before=before, after=after)
    return run


# What workers do


def take(session: Session, run_id: UUID, duration: timedelta, kinds: Collection[RunKind]) -> RunLease | None:
    """Take an active run that no other worker holds. None if it has ended, or if another worker holds it.

    `kinds` are those that this worker can carry. A run of another kind is left to a newer worker. A run that
    worker after worker has taken without getting any further fails.
    """
    run = session.scalar(
        select(Run)
        .where(
            Run.id == run_id,
            Run.kind.in_(kinds),
            ACTIVE_RUN,
            or_(Run.lease_expires_at.is_(None), Run.lease_expires_at < func.clock_timestamp()),
        )
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    if run is None:
        return None
    if run.takings >= _MAX_TAKINGS:
        reason = run.last_error or "each of them died without a word"
        failure = f"{_MAX_TAKINGS} workers in a row got no further: {reason}"
        _end(session, run, RunState.FAILED, failure=failure)
        return None
    at = now(session)
    run.lease_epoch += 1
    run.takings += 1
    run.lease_expires_at = at + duration
    run.state = RunState.RUNNING
    run.started_at = run.started_at or at
    return RunLease(run_id, run.lease_epoch)


def fence(session: Session, lease: RunLease) -> Run:
    """Lock and return the run's row. Raises LeaseLost unless the lease is still held."""
    run = session.scalar(
        select(Run).where(*_held(lease)).with_for_update().execution_options(populate_existing=True)
    )
    if run is None:
        raise _lost(lease)
    return run


def confirm(session: Session, lease: RunLease) -> None:
    """Raises LeaseLost unless the lease is still held at this moment."""
    if session.scalar(select(Run.id).where(*_held(lease))) is None:
        raise _lost(lease)


def _held(lease: RunLease) -> tuple[ColumnElement[bool], ...]:
    return (
        Run.id == lease.run_id,
        Run.lease_epoch == lease.epoch,
        Run.lease_expires_at.is_not(None),
        Run.state == RunState.RUNNING,
    )


def _lost(lease: RunLease) -> LeaseLost:
    message = f"run {lease.run_id} was stopped, or is no longer held with epoch {lease.epoch}"
    return LeaseLost(message)


def renew(session: Session, lease: RunLease, duration: timedelta) -> None:
    """Raises LeaseLost."""
    fence(session, lease).lease_expires_at = now(session) + duration


def save(
    session: Session,
    lease: RunLease,
    checkpoint: Mapping[str, Any],
    progress: Mapping[str, Any],
    result: Mapping[str, Any],
) -> None:
    """Store how far the run has got. Raises LeaseLost."""
    run = fence(session, lease)
    run.checkpoint, run.progress, run.result = dict(checkpoint), dict(progress), dict(result)
    run.takings, run.last_error = 0, None


def succeed(session: Session, lease: RunLease) -> None:
    """Raises LeaseLost."""
    _end(session, fence(session, lease), RunState.SUCCEEDED)


def fail(session: Session, lease: RunLease, failure: str) -> None:
    """End the run as failed, with what it has done so far. Raises LeaseLost."""
    _end(session, fence(session, lease), RunState.FAILED, failure=failure)


def put_off(session: Session, lease: RunLease, error: str | None, *, counts: bool) -> None:
    """Give the run up, so that it is tried again. `counts`: whether the try counts as one without progress.

    Raises LeaseLost.
    """
    run = fence(session, lease)
    run.last_error = error or run.last_error
    if not counts:
        run.takings = max(0, run.takings - 1)
    run.lease_expires_at = None


def is_active(session: Session, run_id: UUID) -> bool:
    state = session.scalar(select(Run.state).where(Run.id == run_id))
    return state is not None and RunState(state).active


def requeue_unattended(session: Session) -> int:
    """Enqueue every active run that no worker holds and that has no job. Returns how many there were."""
    found = list(
        session.scalars(
            select(Run.id)
            .where(
                ACTIVE_RUN,
                or_(Run.lease_expires_at.is_(None), Run.lease_expires_at < func.clock_timestamp()),
                ~has_run_job(Run.id),
            )
            .with_for_update(skip_locked=True)
        )
    )
    for run_id in found:
        enqueue_run(session, run_id)
    return len(found)


def _end(session: Session, run: Run, state: RunState, **facts: str) -> None:
    """`facts` are what else is recorded of the end. All of it is one update, as the constraints demand."""
    values = {"state": state, "finished_at": now(session), "lease_expires_at": None, **facts}
    for name, value in values.items():
        setattr(run, name, value)
    session.flush()
    notifications.run_ended(session, run)
