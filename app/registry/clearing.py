"""Prefixes without a model that are cleared: what may be deleted there, and when a build may publish there.

No row says that a prefix is being cleared. Its deletes are signed first, then `kept_because` asks the
database whether anything speaks against them, and S3 refuses them EXPIRE_AFTER their signature. So a build
that is queued after that question meets no delete once it has been running for OVER_AFTER, and until then it
does not publish (`wait`). A build that was there before is an answer to the question. An import leaves out
what is being cleared, and nothing is cleared while one is under way.
"""

from collections.abc import Collection
from datetime import timedelta

from sqlalchemy import ColumnElement, and_, exists, func, or_, select
from sqlalchemy.orm import Session, aliased

from app.db.tables import (
    ACTIVE_RUN,
    HOLDS_PREFIX,
    UNSUCCESSFUL_BUILD,
    Build,
    BuildStep,
    Model,
    Run,
)
from app.registry import late_deletes
from app.registry.builds.lease import Lease, fence
from app.registry.errors import NotAStray
from app.words import BuildKind, RunKind, StepName

# The option of a reconciliation that names the prefixes to clear.
DELETE_STRAYS = "delete_strays"


def kept_because(session: Session, prefix: str, window: timedelta) -> str | None:
    """Why nothing under the prefix may be deleted. None if nothing speaks against it."""
    if session.scalar(select(Model.id).where(Model.prefix == prefix)) is not None:
        return f"the registry knows its model, which GET /models/{prefix} shows"
    holder = session.scalar(select(Build.id).where(Build.prefix == prefix, HOLDS_PREFIX))
    if holder is not None:
        return f"the build {holder} makes it. Wait for its end, or cancel it"
    ended = session.scalar(
        select(Build.id)
        .where(Build.prefix == prefix, UNSUCCESSFUL_BUILD, ~_past(window))
        .order_by(Build.finished_at.desc())
        .limit(1)
    )
    if ended is not None:
        return f"its build {ended} can still be retried. Wait until REGISTRY_RETRY_WINDOW is over"
    importing = session.scalar(select(Run.id).where(Run.kind == RunKind.IMPORT, ACTIVE_RUN))
    if importing is not None:
        return f"the import {importing} may adopt it. Wait for its end, or stop it"
    return None


def refuse_unless_strays(session: Session, prefixes: Collection[str], window: timedelta) -> None:
    """Raises NotAStray."""
    for prefix in prefixes:
        if (why := kept_because(session, prefix, window)) is not None:
            message = f"{prefix} is not deleted: {why}. Leave it out of `{DELETE_STRAYS}`."
            raise NotAStray(message, prefix=prefix)


def being_cleared(session: Session, prefixes: Collection[str]) -> set[str]:
    """Those of the prefixes that a reconciliation was asked to clear, unless that is over for long."""
    over = func.clock_timestamp() - late_deletes.OVER_AFTER
    named = select(func.jsonb_array_elements_text(Run.options[DELETE_STRAYS])).where(
        Run.kind == RunKind.RECONCILIATION, or_(ACTIVE_RUN, Run.finished_at > over)
    )
    return set(session.scalars(named)) & set(prefixes)


def wait(session: Session, lease: Lease, window: timedelta) -> timedelta | None:
    """How long the build has to wait before it may write under its prefix. None if it may now.

    It waits only where something may have been deleted shortly before it was queued. Raises LeaseLost.
    """
    build = fence(session, lease)
    at = session.execute(select(func.clock_timestamp())).scalar_one()
    over_at = (build.started_at or at) + late_deletes.OVER_AFTER
    if at >= over_at:
        return None
    earlier = aliased(Build)
    left = exists().where(
        earlier.prefix == build.prefix,
        earlier.id != build.id,
        earlier.finished_at + window < func.clock_timestamp(),
        _has_published(earlier),
    )
    if being_cleared(session, [build.prefix]) or session.scalar(select(left)):
        remaining: timedelta = over_at - at
        return remaining
    return None


def left_by_builds(session: Session, window: timedelta) -> dict[str, frozenset[str]]:
    """The prefixes under which builds may have left files that can go, and the ids of these builds.

    They have no model and no active build, and the builds ended without success while they published, longer
    ago than the window.
    """
    holder = aliased(Build)
    rows = session.execute(
        select(Build.prefix, func.array_agg(Build.id))
        .where(
            UNSUCCESSFUL_BUILD,
            Build.kind == BuildKind.TRAIN,
            _past(window),
            _has_published(Build),
            ~exists().where(Model.prefix == Build.prefix),
            ~exists().where(
                holder.prefix == Build.prefix, holder.kind == BuildKind.TRAIN, holder.finished_at.is_(None)
            ),
        )
        .group_by(Build.prefix)
        .order_by(Build.prefix)
    )
    return {prefix: frozenset(str(one) for one in ids) for prefix, ids in rows}


def _past(window: timedelta) -> ColumnElement[bool]:
    return and_(Build.finished_at.is_not(None), Build.finished_at + window < func.clock_timestamp())


def _has_published(build: type[Build]) -> ColumnElement[bool]:
    """Whether the build has begun to put files under its prefix."""
    return exists().where(BuildStep.build_id == build.id, BuildStep.name == StepName.PUBLISH)
