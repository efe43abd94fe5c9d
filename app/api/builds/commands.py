"""What people ask of a build that is there."""

from fastapi import APIRouter

from app.api.builds.answers import BuildOut
from app.api.builds.reading import BuildId
from app.api.common.deps import CanBuild, Db
from app.api.common.errors import problems
from app.api.common.strict import StrictRoute
from app.registry.builds import cancellation
from app.registry.errors import BuildEnded, NotFound

router = APIRouter(tags=["builds"], route_class=StrictRoute)


@router.post(
    "/builds/{id}/cancel",
    operation_id="builds:cancel",
    summary="Cancel a build",
    status_code=202,
    response_description="The build is being cancelled, or was cancelled before",
    responses=problems(NotFound, BuildEnded),
)
def cancel(id: BuildId, who: CanBuild, db: Db) -> BuildOut:  # noqa: A002 - the contract's name
    """The answer comes at once. A queued build is `cancelled` in it already.

    A running build stays `running` until its instance is terminated, which takes a few seconds, and is
    `cancelled` then. Its log is kept, and its prefix is free for another build. Repeating the request changes
    nothing.
    """
    return BuildOut.of(cancellation.cancel(db, id, who.name, who.kind))
