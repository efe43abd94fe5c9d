"""Lists builds, and shows one of them and its log."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Path, Query, Response
from pydantic import BaseModel, ConfigDict

from app.api.builds.answers import BuildOut
from app.api.common import examples
from app.api.common.deps import Db, Limit, NextCursor, PageCursor, SearchDep
from app.api.common.errors import problems
from app.api.common.strict import StrictRoute
from app.api.common.text import Line
from app.registry.builds import listing
from app.registry.builds import log as build_log
from app.registry.errors import NotFound
from app.words import BuildKind, BuildState

router = APIRouter(tags=["builds"], route_class=StrictRoute)

_LOG_BYTES = 4 << 20
_MAX_OFFSET = 1 << 53


class BuildPage(BaseModel):
    """Builds, newest first."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"items": [examples.BUILD], "next": None}]})

    items: list[BuildOut]
    next: NextCursor


@router.get(
    "/builds",
    operation_id="builds:list",
    summary="Builds, newest first",
    response_description="A page of builds",
    responses=problems(),
)
def list_builds(
    db: Db,
    cursor: PageCursor,
    search: SearchDep,
    limit: Limit = 50,
    state: Annotated[BuildState | None, Query(description="Only builds in this state.")] = None,
    prefix: Annotated[Line | None, Query(description="Only builds of this prefix.")] = None,
    branch: Annotated[Line | None, Query(description="Only builds of this branch.")] = None,
    version: Annotated[Line | None, Query(description="Only builds of this version.")] = None,
    kind: Annotated[
        BuildKind | None, Query(description="Only builds that train a new model, or make one again.")
    ] = None,
) -> BuildPage:
    """The builds with their steps. If there are several filters, a build must match all of them."""
    page = listing.find(
        db,
        limit=limit,
        cursor=cursor,
        state=state,
        prefix=prefix,
        branch=branch,
        version=version,
        kind=kind,
        search=search,
    )
    return BuildPage(items=[BuildOut.of(build, whole=False) for build in page.items], next=page.next_cursor)


BuildId = Annotated[UUID, Path(description="The build's id.")]


@router.get(
    "/builds/{id}",
    operation_id="builds:get",
    summary="One build",
    response_description="The build",
    responses=problems(NotFound),
)
def get(id: BuildId, db: Db) -> BuildOut:  # noqa: A002 - the contract's name
    """The build with its steps, progress and instance, and the reason if it failed."""
    return BuildOut.of(listing.get(db, id))


@router.get(
    "/builds/{id}/log",
    operation_id="builds:log",
    summary="A build's log, as text",
    response_class=Response,
    responses={
        200: {
            "description": "A piece of the log",
            "content": {"text/plain": {"schema": {"type": "string"}, "example": examples.LOG}},
            "headers": {
                "X-Log-Next-Offset": {
                    "description": "the `offset` to ask for next",
                    "schema": {"type": "integer", "example": 86},
                },
                "X-Log-Size": {
                    "description": "the log's size so far, in bytes",
                    "schema": {"type": "integer", "example": 86},
                },
            },
        },
        **problems(NotFound),
    },
)
def log(
    id: BuildId,  # noqa: A002 - the contract's name
    db: Db,
    offset: Annotated[int, Query(ge=0, le=_MAX_OFFSET, description="The byte to start at.")] = 0,
) -> Response:
    """Up to 4 MiB of UTF-8 from `offset` on. It never ends in the middle of a character.

    `X-Log-Next-Offset` is the offset to ask for next. `X-Log-Size` is the log's size so far, in bytes.
    """
    listing.require(db, id)
    text, size = build_log.read(db, id, offset, _LOG_BYTES)
    headers = {"X-Log-Next-Offset": str(offset + len(text)), "X-Log-Size": str(size)}
    return Response(text, media_type="text/plain; charset=utf-8", headers=headers)
