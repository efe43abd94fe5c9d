"""Ends builds. The worker's runner calls this after the build's instance is terminated."""

from sqlalchemy.orm import Session

from app.registry.builds.lease import Lease, fence
from app.registry.builds.state import switch
from app.words import BuildState


def end(session: Session, lease: Lease, state: BuildState) -> None:
    """End the build. A failed one has its failure recorded before. Raises LeaseLost."""
    switch(session, fence(session, lease), state)
