"""Retries: a new build of the same prefix, which takes over what still holds of a failed or cancelled one."""

from collections.abc import Collection
from datetime import timedelta
from uuid import UUID

from sqlalchemy import Select, and_, func, or_, select
from sqlalchemy.orm import Session, undefer

from app.db.tables import ACTIVE_BUILD, Build
from app.registry.access import audit
from app.registry.builds import events, listing
from app.registry.builds.holders import Holder, holder_of, restore
from app.registry.builds.queueing import NewBuild, queue
from app.registry.errors import Conflict, RetryRefused
from app.words import (
    Actor,
    AuditAction,
    BuildKind,
    BuildState,
    EventType,
    RetryRefusal,
    Stage,
)


def can_be_retried(build: Build) -> bool:
    """Whether the build's kind and state allow it. Its prefix may have been taken meanwhile."""
    return build.kind == BuildKind.TRAIN and build.state in (BuildState.FAILED, BuildState.CANCELLED)


def retry(session: Session, build_id: UUID, who: str, kind: Actor) -> tuple[Build, bool]:
    """Queue a build that repeats a failed or cancelled one, with everything that was asked for then.

    Returns the build, and whether it is new. However often and however many at once ask for it, there is one
    retry while it is active or has succeeded: the constraint on the prefix decides. If the model that it made
    is marked for garbage collection, it is restored.
    Raises NotFound, RetryRefused and PrefixCollected.
    """
    earlier = session.scalar(
        select(Build)
        .where(Build.id == build_id)
        .options(undefer(Build.search_config), undefer(Build.base_search_config), undefer(Build.thresholds))
    )
    if earlier is None:
        raise listing.not_found(build_id)
    _refuse_unless_ended(earlier)
    # What holds the prefix can fail before we read it. Then try again.
    for _ in range(10):
        if build := queue(session, _again(earlier, who, kind)):
            _record(session, earlier, build)
            return build, True
        if holder := holder_of(session, earlier.prefix):
            found = None if holder.build is None else listing.get(session, holder.build)
            if found is not None and found.retry_of == earlier.id:
                if holder.what == "model":
                    restore(session, earlier.prefix, who, kind)
                return found, False
            raise _held(earlier, holder)
    message = f"The builds of {earlier.prefix} keep starting and ending. Send the request again."
    raise Conflict(message)


def _refuse_unless_ended(build: Build) -> None:
    if build.kind != BuildKind.TRAIN:
        reason, why = RetryRefusal.KIND, f"it is of the kind {build.kind}. Ask for another one instead"
    elif BuildState(build.state).active:
        reason, why = RetryRefusal.ACTIVE, f"it is {build.state}. Wait for its end, or cancel it first"
    elif build.state == BuildState.SUCCEEDED:
        reason = RetryRefusal.SUCCEEDED
        why = f"it has succeeded. GET /models/{build.prefix} shows its model"
    else:
        return
    message = f"Build {build.id} of {build.prefix} cannot be retried: {why}."
    raise RetryRefused(message, build=build.id, prefix=build.prefix, reason=reason)


def _held(earlier: Build, holder: Holder) -> RetryRefused:
    if holder.what == "model":
        reason = RetryRefusal.MODEL_EXISTS
        why = f"{earlier.prefix} has a model already. GET /models/{earlier.prefix} shows it"
    else:
        reason = RetryRefusal.PREFIX_HELD
        why = f"the build {holder.build} has its prefix, {earlier.prefix}. Follow that build"
    message = f"Build {earlier.id} cannot be retried: {why}."
    return RetryRefused(message, build=earlier.id, prefix=earlier.prefix, reason=reason, held_by=holder.build)


def _again(earlier: Build, who: str, kind: Actor) -> NewBuild:
    return NewBuild(
        prefix=earlier.prefix,
        version=earlier.version,
        sha=earlier.sha,
        branch=earlier.branch,
        search_config=earlier.search_config,
        base_search_config=earlier.base_search_config,
        thresholds=earlier.thresholds,
        promote_to=Stage(earlier.promote_to) if earlier.promote_to else None,
        forced=earlier.forced,
        requested_by=who,
        requested_by_kind=kind,
        retry_of=earlier.id,
    )


def _record(session: Session, earlier: Build, build: Build) -> None:
    by = build.requested_by
    events.add(session, build.id, EventType.RETRY_REQUESTED, {"retry_of": str(earlier.id), "by": by})
    audit.record(
        session,
        by,
        Actor(build.requested_by_kind),
        AuditAction.BUILD_RETRIED,
        str(build.id),
        before={"build": str(earlier.id), "state": earlier.state},
        after={"prefix": build.prefix, "retry_of": str(earlier.id)},
    )


def being_repeated() -> Select[UUID]:
    """The builds that an active build repeats, and those that these have repeated."""
    needed = (
        select(Build.retry_of.label("id"))
        .where(ACTIVE_BUILD, Build.retry_of.is_not(None))
        .cte("needed", recursive=True)
    )
    needed = needed.union(
        select(Build.retry_of).join(needed, Build.id == needed.c.id).where(Build.retry_of.is_not(None))
    )
    return select(needed.c.id)


def without_use(session: Session, build_ids: Collection[UUID], window: timedelta) -> set[UUID]:
    """Those of the builds whose unpublished files nobody needs any more.

    A build that has succeeded needs none, and neither does a reproduction that has ended. The files of others
    that failed or were cancelled are kept for the window, and as long as a retry of them is active. Builds
    that this registry does not know are left out.
    """
    kept_until = Build.finished_at + window
    return set(
        session.scalars(
            select(Build.id).where(
                Build.id.in_(build_ids),
                or_(
                    Build.state == BuildState.SUCCEEDED,
                    and_(Build.finished_at.is_not(None), Build.kind != BuildKind.TRAIN),
                    and_(
                        Build.finished_at.is_not(None),
                        kept_until < func.clock_timestamp(),
                        Build.id.not_in(being_repeated()),
                    ),
                ),
            )
        )
    )
