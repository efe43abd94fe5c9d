"""Objects under a prefix that belong to no model."""

from uuid import UUID

from app.registry.builds.lease import state_of
from app.registry.builds.steps import BuildView
from app.storage.bucket import ObjectInfo
from app.words import BuildState
from worker.workbench import Workbench


def is_leftover(build: BuildView, work: Workbench, there: ObjectInfo) -> bool:
    """Whether another build, which ended without a model, wrote the object. Nothing else is ever removed."""
    try:
        owner = UUID(there.build_id or "")
    except ValueError:
        return False
    with work.transaction() as session:
        state = state_of(session, owner)
    return owner != build.id and state in (BuildState.FAILED, BuildState.CANCELLED)
