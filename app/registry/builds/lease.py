"""The lease on a build's row decides which worker may write for the build.

Before each write, a worker calls `fence`, which locks the row and compares the lease's epoch, a number that
increases each time a worker takes the build. If a worker was paused and another one has taken its build
meanwhile, the first can no longer change anything.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import func, literal, or_, select, update
from sqlalchemy.orm import Session

from app.db.tables import ACTIVE_BUILD, Build, BuildStep
from app.queue import has_job
from app.registry.builds.clock import now
from app.registry.builds.state import switch
from app.words import BuildKind, BuildState, StepState

_UNATTENDED_LOCK = 0x7A52


class LeaseLost(Exception):
    """Another worker has taken the build, or the build has ended. Nothing may be written for it."""


@dataclass(frozen=True)
class Lease:
    """A worker's hold on a build."""

    build_id: UUID
    epoch: int


def take(
    session: Session,
    build_id: UUID,
    owner: str,
    duration: timedelta,
    kinds: Collection[BuildKind] = tuple(BuildKind),
) -> Lease | None:
    """Take an active build that has no lease, or whose lease has expired. None if it cannot be taken.

    `kinds` are the kinds that this worker can build. A build of another kind is left to a newer worker.
    The database's clock decides whether a lease has expired.
    """
    build = session.scalar(
        select(Build)
        .where(
            Build.id == build_id,
            Build.kind.in_(kinds),
            ACTIVE_BUILD,
            or_(Build.lease_expires_at.is_(None), Build.lease_expires_at < func.clock_timestamp()),
        )
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    if build is None:
        return None
    at = now(session)
    if build.lease_expires_at is not None:
        # The previous worker may have died at any moment before the end of its lease.
        _count_time(session, build, build.lease_expires_at)
    build.lease_epoch += 1
    build.takings += 1
    build.lease_owner = owner
    build.lease_expires_at = at + duration
    if build.state == BuildState.QUEUED:
        switch(session, build, BuildState.RUNNING)
    return Lease(build_id, build.lease_epoch)


def renew(session: Session, lease: Lease, duration: timedelta) -> None:
    """Raises LeaseLost."""
    fence(session, lease).lease_expires_at = now(session) + duration


def note_error(session: Session, lease: Lease, error: str) -> None:
    """Record the error that made a worker stop. The build will be tried again. Raises LeaseLost."""
    fence(session, lease).last_error = error


def release(session: Session, lease: Lease) -> None:
    """Give the build up, so that another worker can take it at once. Raises LeaseLost."""
    build = fence(session, lease)
    _count_time(session, build, now(session))
    # Handing a build over is not a failure, so it does not count. After progress the count is 0 already.
    build.takings = max(0, build.takings - 1)
    build.lease_owner = None
    build.lease_expires_at = None


def take_away(session: Session, build: Build) -> None:
    """End the lease of whoever holds the build. The caller holds the lock on its row.

    From now on that worker can store nothing, and any worker may take the build.
    """
    if build.lease_expires_at is not None:
        _count_time(session, build, min(build.lease_expires_at, now(session)))
    build.takings = 0
    build.lease_owner = None
    build.lease_expires_at = None


def release_all_of(session: Session, owner: str) -> None:
    """Give up every build that the worker still holds. After this, the worker must not renew any lease."""
    for build_id, epoch in session.execute(
        select(Build.id, Build.lease_epoch).where(Build.lease_owner == owner, ACTIVE_BUILD)
    ):
        release(session, Lease(build_id, epoch))


def _count_time(session: Session, build: Build, until: datetime) -> None:
    """Add the time that a worker spent on the running step to the time that counts for its deadline."""
    worked = func.extract("epoch", literal(until) - BuildStep.resumed_at)
    session.execute(
        update(BuildStep)
        .where(
            BuildStep.build_id == build.id,
            BuildStep.state == StepState.RUNNING,
            BuildStep.resumed_at.is_not(None),
        )
        .values(worked_s=BuildStep.worked_s + func.greatest(0, worked), resumed_at=None)
        .execution_options(synchronize_session=False)
    )


def fence(session: Session, lease: Lease) -> Build:
    """Lock and return the build's row. Raises LeaseLost unless the lease is still held."""
    build = session.scalar(
        select(Build)
        .where(
            Build.id == lease.build_id,
            Build.lease_epoch == lease.epoch,
            # The heartbeat of a worker that has just released the build must not renew the lease.
            Build.lease_owner.is_not(None),
            ACTIVE_BUILD,
        )
        .with_for_update()
        # Read the row again under the lock, even if this session has read it before.
        .execution_options(populate_existing=True)
    )
    if build is None:
        msg = f"build {lease.build_id} is no longer held with epoch {lease.epoch}"
        raise LeaseLost(msg)
    return build


def unattended(session: Session) -> list[UUID]:
    """Active builds that no worker holds and that have no job in the queue, oldest first.

    A lock that is held until the transaction ends keeps two callers from enqueuing the same build.
    """
    session.execute(select(func.pg_advisory_xact_lock(_UNATTENDED_LOCK)))
    return list(
        session.scalars(
            select(Build.id)
            .where(
                ACTIVE_BUILD,
                or_(Build.lease_expires_at.is_(None), Build.lease_expires_at < func.clock_timestamp()),
                ~has_job(Build.id),
            )
            .order_by(Build.created_at)
        )
    )


def state_of(session: Session, build_id: UUID) -> BuildState | None:
    """None for a build that this registry does not know."""
    state = session.scalar(select(Build.state).where(Build.id == build_id))
    return None if state is None else BuildState(state)
