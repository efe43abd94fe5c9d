"""Cancels builds: the request takes the build away from its worker, and another thread ends it."""

from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db.tables import Build
from app.queue import enqueue_cancellation
from app.registry.access import audit
from app.registry.builds import events, lease, listing
from app.registry.builds.clock import now
from app.registry.builds.state import switch
from app.registry.errors import BuildEnded
from app.words import Actor, AuditAction, BuildState, EventType


def cancel(session: Session, build_id: UUID, who: str, kind: Actor) -> Build:
    """Record that the build is to be cancelled. To ask again changes nothing.

    A queued build is cancelled at once, because it never had an instance. A running build loses its worker
    in this transaction: from then on that worker can store nothing for the build, however long it hangs in a
    call. A job in a queue of its own takes the build, terminates its instance and ends it.
    Raises NotFound, and BuildEnded when the build has succeeded or failed.
    """
    build = session.scalar(
        select(Build)
        .where(Build.id == build_id)
        .options(*listing.SHOWN)
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    if build is None:
        raise listing.not_found(build_id)
    state = BuildState(build.state)
    if state is not BuildState.CANCELLED and not state.active:
        message = f"Build {build.id} has {state} already, so it cannot be cancelled. Nothing was changed."
        raise BuildEnded(message, build=build.id, state=state)
    if build.cancel_requested_at is None:
        build.cancel_requested_at = now(session)
        build.cancel_requested_by = who
        build.cancel_requested_by_kind = kind
        session.flush()
        events.add(session, build.id, EventType.CANCEL_REQUESTED, {"by": who})
        audit.record(
            session,
            who,
            kind,
            AuditAction.BUILD_CANCELLED,
            str(build.id),
            before={"state": state},
            after={"prefix": build.prefix},
        )
        if state is BuildState.QUEUED:
            switch(session, build, BuildState.CANCELLED)
        else:
            lease.take_away(session, build)
            enqueue_cancellation(session, build.id)
    return build
