"""What people ask of a build that is there."""

from fastapi import APIRouter, Response

from app.api.builds.answers import BuildOut
from app.api.builds.reading import BuildId
from app.api.common.deps import CanBuild, Db
from app.api.common.errors import problems
from app.api.common.strict import StrictRoute
from app.registry.builds import cancellation, listing, retries
from app.registry.errors import BuildEnded, Conflict, NotFound, PrefixCollected, RetryRefused
from app.words import Scope, Stage

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


@router.post(
    "/builds/{id}/retry",
    operation_id="builds:retry",
    summary="Retry a failed or cancelled build",
    status_code=202,
    response_description="A build was created, which repeats this one",
    responses={
        200: {"model": BuildOut, "description": "This build was retried already; the answer is that retry"},
        **problems(NotFound, RetryRefused, PrefixCollected, Conflict),
    },
)
def retry(id: BuildId, who: CanBuild, db: Db, response: Response) -> BuildOut:  # noqa: A002 - see above
    """Queue a new build of the same prefix, with everything that was posted for this one.

    If this build has collected the model's files, the new one publishes them without another training, as
    long as the bucket has them: for 24 hours, unless the operator has set another time. Otherwise it trains
    again, with the same inputs. To build with inputs that were replaced since, post the commit again.
    Repeating the request gives the same build, as long as it is active or has succeeded.
    """
    promote_to = listing.get(db, id).promote_to
    if promote_to is not None:
        who.need(Scope.promote(Stage(promote_to)))
    build, new = retries.retry(db, id, who.name, who.kind)
    if not new:
        response.status_code = 200
    return BuildOut.of(build)
