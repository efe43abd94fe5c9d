"""Ends builds. The worker's runner calls this after the build's instance is terminated."""

from sqlalchemy.orm import Session

from app.registry.builds.lease import Lease, fence
from app.registry.builds.state import switch
from app.words import BuildState


def end(session: Session, lease: Lease, state: BuildState) -> None:
    """End the build. Before a build can fail, its failure must be recorded. Raises LeaseLost."""
    switch(session, fence(session, lease), state)
