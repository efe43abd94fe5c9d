"""The dependencies of endpoints: a transaction, the bucket, and the caller."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Annotated

from fastapi import Depends, Path, Query, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import Field, JsonValue
from sqlalchemy.orm import Session

from app.api.common.admission import Admission
from app.api.common.text import Line, Moment
from app.db.session import Database
from app.registry.access.callers import Caller
from app.registry.pages import Cursor, Search
from app.registry.prefixes import Prefix
from app.settings import Settings
from app.storage.bucket import Bucket
from app.words import Scope


# Dependencies that do not block are async, because FastAPI runs all others in threads.
async def get_settings(request: Request) -> Settings:
    settings: Settings = request.app.state.settings
    return settings


async def get_database(request: Request) -> Database:
    database: Database = request.app.state.database
    return database


async def get_bucket(request: Request) -> Bucket:
    bucket: Bucket = request.app.state.bucket
    return bucket


async def get_admission(request: Request) -> Admission:
    admission: Admission = request.app.state.admission
    return admission


async def get_turn(request: Request) -> AsyncIterator[None]:
    """A request that holds a transaction needs a thread again and again, at last to write its answer.

    So there must never be so many of them that the other requests, which wait for a connection in their
    threads, hold every thread: then all would wait for each other.
    """
    turns: asyncio.Semaphore = request.app.state.turns
    async with turns:
        yield


def get_session(
    database: Annotated[Database, Depends(get_database)],
    _turn: Annotated[None, Depends(get_turn, scope="function")],
) -> Iterator[Session]:
    with database.transaction() as session:
        yield session


async def get_default_thresholds(request: Request) -> str | None:
    thresholds: str | None = request.app.state.default_thresholds
    return thresholds


SettingsDep = Annotated[Settings, Depends(get_settings)]
DatabaseDep = Annotated[Database, Depends(get_database)]
AdmissionDep = Annotated[Admission, Depends(get_admission)]
BucketDep = Annotated[Bucket, Depends(get_bucket)]
# The text of the file that REGISTRY_THRESHOLDS_FILE names.
DefaultThresholds = Annotated[str | None, Depends(get_default_thresholds)]
# The transaction is committed before the answer is sent, so that the answer is true.
Db = Annotated[Session, Depends(get_session, scope="function")]

_bearer = HTTPBearer(
    auto_error=False,
    description="A token: one that was created with `POST /tokens`, or one of REGISTRY_API_TOKENS. Writing "
    "needs one. Reading needs one if REGISTRY_ACCESS is `tokens`. Each call that writes needs a scope, such "
    "as `build` or `promote:staging`.",
)


# The route has identified the caller before it read the body. `_bearer` only serves the OpenAPI document.
async def get_caller(
    request: Request, _given: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> Caller:
    caller: Caller = request.state.caller
    return caller


async def get_builder(caller: Annotated[Caller, Depends(get_caller)]) -> Caller:
    caller.need(Scope.BUILD)
    return caller


async def get_overrider(caller: Annotated[Caller, Depends(get_caller)]) -> Caller:
    caller.need(Scope.OVERRIDE)
    return caller


async def get_collector(caller: Annotated[Caller, Depends(get_caller)]) -> Caller:
    caller.need(Scope.COLLECT)
    return caller


async def get_administrator(caller: Annotated[Caller, Depends(get_caller)]) -> Caller:
    caller.need(Scope.ADMIN)
    return caller


# The endpoint itself checks the scopes of this caller, because they depend on the content of the request.
AnyCaller = Annotated[Caller, Depends(get_caller)]
CanBuild = Annotated[Caller, Depends(get_builder)]
CanOverride = Annotated[Caller, Depends(get_overrider)]
CanCollect = Annotated[Caller, Depends(get_collector)]
CanAdminister = Annotated[Caller, Depends(get_administrator)]


async def _between(
    since: Annotated[
        Moment | None,
        Query(description="Only items of this time or later (RFC 3339). Escape a `+` in it as `%2B`."),
    ] = None,
    until: Annotated[Moment | None, Query(description="Only items from before this time.")] = None,
) -> Search:
    return Search(since=since, until=until)


BetweenDep = Annotated[Search, Depends(_between)]


async def _search(
    between: BetweenDep,
    q: Annotated[
        Line | None,
        Query(
            min_length=1,
            max_length=200,
            description="Only items that have this text in their prefix or branch. The case of the letters A "
            "to Z does not matter.",
        ),
    ] = None,
) -> Search:
    return replace(between, text=q)


SearchDep = Annotated[Search, Depends(_search)]


async def _cursor(
    cursor: Annotated[Line | None, Query(description="The `next` of the previous page.")] = None,
) -> Cursor | None:
    return None if cursor is None else Cursor.parse(cursor)


PageCursor = Annotated[Cursor | None, Depends(_cursor)]
# In the answer, what the next request sends as its cursor.
NextCursor = Annotated[str | None, Field(description="The `cursor` of the next page. Null on the last page.")]
Limit = Annotated[int, Query(ge=1, le=200, description="At most this many items on a page.")]


# Only for readers: what does not match gets an answer of the registry's own, which says why.
_PREFIX_PATTERN: dict[str, JsonValue] = {"pattern": r"^[0-9A-Za-z.-]+-[0-9a-f]{7}$"}


async def _prefix(
    prefix: Annotated[
        str,
        Path(
            description="The model's prefix: its version and the first 7 digits of its commit.",
            examples=["0.0.2-aff1242"],
            json_schema_extra=_PREFIX_PATTERN,
        ),
    ],
) -> str:
    return str(Prefix.parse(prefix))


PrefixPath = Annotated[str, Depends(_prefix)]


async def _other_prefix(
    other: Annotated[
        str,
        Path(
            description="The prefix of the model to compare with.",
            examples=["0.0.1-11ce0f5"],
            json_schema_extra=_PREFIX_PATTERN,
        ),
    ],
) -> str:
    return str(Prefix.parse(other))


OtherPrefixPath = Annotated[str, Depends(_other_prefix)]
