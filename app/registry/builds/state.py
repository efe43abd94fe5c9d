"""The one place where a build's state changes."""

from sqlalchemy.orm import Session

from app.db.tables import Build
from app.registry import notifications
from app.registry.builds import events
from app.registry.builds.clock import now
from app.words import BuildState, EventType


class InvalidTransition(Exception):
    """A build cannot change from its state to the new one. This is a defect of the caller."""


def switch(session: Session, build: Build, state: BuildState) -> None:
    """Change the build's state and record the event, in the caller's transaction.

    The caller must hold the lock on the build's row. Raises InvalidTransition.
    """
    if state not in BuildState(build.state).next:
        msg = f"build {build.id} is {build.state} and cannot become {state}"
        raise InvalidTransition(msg)
    # Read the clock before the change: a query flushes, and half of the change breaks the constraints.
    at = now(session)
    build.state = state
    if state is BuildState.RUNNING:
        build.started_at = at
    if not state.active:
        build.finished_at = at
        build.progress = None
        build.lease_owner = None
        build.lease_expires_at = None
    session.flush()
    events.add(session, build.id, EventType.STATE, {"state": state})
    if not state.active:
        notifications.build_ended(session, build)
