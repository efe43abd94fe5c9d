"""Making a model again from its recorded inputs, to see whether the same model comes of it."""

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field, StrictBool

from app.api.builds.answers import BuildOut
from app.api.builds.reading import BuildPage
from app.api.common.deps import BucketDep, CanBuild, DatabaseDep, Db, Limit, PageCursor, PrefixPath
from app.api.common.errors import problems
from app.api.common.strict import StrictRoute
from app.registry.builds import listing
from app.registry.errors import BucketUnavailable, Conflict, NotFound, NotReproducible
from app.registry.models import catalogue
from app.registry.reproductions import requests
from app.registry.reproductions.outcomes import Wanted
from app.registry.reproductions.requests import ReproductionRequest
from app.words import Pinned, Scope

router = APIRouter(tags=["models"], route_class=StrictRoute)


class ReproductionCreate(BaseModel):
    """What the reproduction may do. Without anything, every input must be had as it was recorded."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"accept": [each.value for each in Pinned]}]}
    )

    accept: list[Pinned] = Field(
        default=[],
        max_length=2 * len(Pinned),
        description="The inputs for which what is there now may be used, where they cannot be had as they "
        "were recorded any more. The outcome names each of them.",
    )
    repair: StrictBool = Field(
        default=False,
        description="Put files of the model that the bucket has lost back, where the reproduction has made "
        "exactly the same. Needs the scope `admin`, as POST /mirror/reconcile does.",
    )
    model_zip: StrictBool = Field(
        default=False,
        description="With `repair`, also write a missing or different model.zip again. Existing tools then "
        "take it for the newest model of its version.",
    )


@router.post(
    "/models/{prefix}/reproduce",
    operation_id="models:reproduce",
    summary="Make a model again from its recorded inputs",
    status_code=202,
    response_description="A build was created, which makes the model again",
    responses={
        200: {"model": BuildOut, "description": "The model is being made again already, by this build"},
        **problems(NotFound, NotReproducible, Conflict, BucketUnavailable),
    },
)
def reproduce(
    prefix: PrefixPath,
    body: ReproductionCreate,
    who: CanBuild,
    database: DatabaseDep,
    bucket: BucketDep,
    response: Response,
) -> BuildOut:
    """Queue a build that trains with everything as it was recorded, and compares the two models.

    Nothing of it is published.
    The commit, the configuration, the data, the answers of additional sources, the machine image and the type
    of the instance are those of the original. The build's `reproduction.outcome` says whether the model is
    `identical`, `equivalent` or `different`. Inputs that cannot be had any more are refused, by name, before
    anything costs money; `accept` uses what is there now instead. Repeating the request while the build is
    active gives the same build.
    """
    if body.repair:
        who.need(Scope.ADMIN)
    wanted = Wanted(accept=tuple(dict.fromkeys(body.accept)), repair=body.repair, model_zip=body.model_zip)
    build, new = requests.request(database, bucket, ReproductionRequest(prefix, wanted, who.name, who.kind))
    if not new:
        response.status_code = 200
    return BuildOut.of(build)


@router.get(
    "/models/{prefix}/reproductions",
    operation_id="models:reproductions",
    summary="The reproductions of a model, newest first",
    response_description="A page of builds",
    responses=problems(NotFound),
)
def list_reproductions(prefix: PrefixPath, db: Db, cursor: PageCursor, limit: Limit = 50) -> BuildPage:
    """The builds that have made the model again, or are doing so, with what came of each."""
    model = catalogue.get_with_artifacts(db, prefix)
    page = listing.find(db, limit=limit, cursor=cursor, reproduces=model.id)
    return BuildPage(items=[BuildOut.of(build) for build in page.items], next=page.next_cursor)
