"""What endpoints are given: a transaction, the bucket, who asks."""

import hashlib
import hmac
from collections.abc import Iterator
from typing import Annotated

from fastapi import Depends, Path, Query, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy.orm import Session

from app.api.text import Line
from app.db.session import Database
from app.registry.errors import Unauthorized
from app.registry.pages import Cursor
from app.registry.prefixes import Prefix
from app.settings import Settings
from app.storage.bucket import Bucket


# What does not block is async: FastAPI runs every other dependency in a thread of its own.
async def get_settings(request: Request) -> Settings:
    settings: Settings = request.app.state.settings
    return settings


async def get_database(request: Request) -> Database:
    database: Database = request.app.state.database
    return database


async def get_bucket(request: Request) -> Bucket:
    bucket: Bucket = request.app.state.bucket
    return bucket


def get_session(database: Annotated[Database, Depends(get_database)]) -> Iterator[Session]:
    with database.transaction() as session:
        yield session


SettingsDep = Annotated[Settings, Depends(get_settings)]
DatabaseDep = Annotated[Database, Depends(get_database)]
BucketDep = Annotated[Bucket, Depends(get_bucket)]
# Closed, and so committed, before the answer goes out: what a caller is told is true.
Db = Annotated[Session, Depends(get_session, scope="function")]

_bearer = HTTPBearer(
    auto_error=False, description="A token of REGISTRY_API_TOKENS. Needed to change anything."
)


async def writer(
    settings: SettingsDep, given: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> str:
    """Who changes something: the name that belongs to the token. Without configured tokens: `anonymous`."""
    if not settings.api_tokens:
        return "anonymous"
    if given is not None:
        digest = hashlib.sha256(given.credentials.encode()).hexdigest()
        for entry in settings.api_tokens:
            name, _, expected = entry.partition("=")
            if hmac.compare_digest(digest, expected.lower()):
                return name
    msg = "Send `Authorization: Bearer <token>` with a token that this registry knows (REGISTRY_API_TOKENS)."
    raise Unauthorized(msg)


Writer = Annotated[str, Depends(writer)]


async def _cursor(
    cursor: Annotated[Line | None, Query(description="`next` of the page before")] = None,
) -> Cursor | None:
    return None if cursor is None else Cursor.parse(cursor)


PageCursor = Annotated[Cursor | None, Depends(_cursor)]
Limit = Annotated[int, Query(ge=1, le=200, description="at most this many items on a page")]


async def _prefix(
    prefix: Annotated[str, Path(description="`{version}-{sha7}`", examples=["0.0.2-aff1242"])],
) -> str:
    return str(Prefix.parse(prefix))


PrefixPath = Annotated[str, Depends(_prefix)]
