"""Tokens: created by administrators, listed without their secrets, and revoked."""

from datetime import datetime, timedelta
from typing import Annotated, Self
from uuid import UUID

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, ConfigDict, Field

from app.api.common import examples
from app.api.common.deps import AdmissionDep, CanAdminister, DatabaseDep, Db, Limit, NextCursor, PageCursor
from app.api.common.errors import problems
from app.api.common.shown import ShownActor, ShownTokenState
from app.api.common.strict import StrictRoute
from app.api.common.text import Line
from app.db.tables import Token
from app.registry.access import tokens
from app.registry.access.tokens import TokenRequest
from app.registry.errors import NotFound, TokenNameTaken
from app.words import Scope, TokenState

router = APIRouter(tags=["tokens"], route_class=StrictRoute)

_MAX_DAYS = 365


class TokenCreate(BaseModel):
    """A new token: its name, what it may do, and for how long."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [examples.TOKEN_CREATE]})

    name: Line = Field(
        min_length=1,
        max_length=100,
        pattern=r"^[0-9A-Za-z][0-9A-Za-z._-]*$",
        description="Under this name, everything that is done with the token is recorded. No other active "
        "token may have it.",
    )
    scopes: list[Scope] = Field(
        min_length=1,
        max_length=len(Scope),
        description="What the token may do: only what its creator may do.",
    )
    expires_in_days: int = Field(
        default=90, ge=1, le=_MAX_DAYS, strict=True, description="For how many days the token is accepted."
    )


class TokenOut(BaseModel):
    """A token, without its secret."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.TOKEN]})

    id: UUID
    name: str = Field(examples=["deploy"])
    kind: ShownActor
    state: ShownTokenState
    starts_with: str = Field(
        description="The first characters of the secret, by which a token that somebody finds is recognised."
    )
    scopes: list[str]
    created_at: datetime
    created_by: str
    created_by_kind: ShownActor
    expires_at: datetime
    last_used_at: datetime | None = Field(
        description="When it was last used, to within ten minutes. Null if it never was."
    )
    revoked_at: datetime | None
    revoked_by: str | None
    revoked_by_kind: ShownActor | None

    @classmethod
    def of(cls, token: Token, at: datetime) -> Self:
        return cls(
            id=token.id,
            name=token.name,
            kind=token.kind,
            state=tokens.state_of(token, at),
            starts_with=token.starts_with,
            scopes=token.scopes,
            created_at=token.created_at,
            created_by=token.created_by,
            created_by_kind=token.created_by_kind,
            expires_at=token.expires_at,
            last_used_at=token.last_used_at,
            revoked_at=token.revoked_at,
            revoked_by=token.revoked_by,
            revoked_by_kind=token.revoked_by_kind,
        )


class TokenCreated(TokenOut):
    """A new token with its secret."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.TOKEN_CREATED]})

    token: str = Field(
        description="The secret: what a caller sends as `Authorization: Bearer <token>`. It is shown only in "
        "this answer, because the registry does not store it."
    )


class TokenPage(BaseModel):
    """Tokens, newest first."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"items": [examples.TOKEN], "next": None}]})

    items: list[TokenOut]
    next: NextCursor


@router.post(
    "/tokens",
    operation_id="tokens:create",
    summary="Create a token",
    status_code=201,
    response_description="The token with its secret, which is shown only here",
    responses=problems(TokenNameTaken),
)
def create(body: TokenCreate, who: CanAdminister, admission: AdmissionDep, db: Db) -> TokenCreated:
    """Create a token with these scopes. Needs the scope `admin`, and each scope that the token gets.

    If the answer is lost, so is the secret: revoke the token, and create another one.
    """
    wanted = TokenRequest(body.name, frozenset(body.scopes), timedelta(days=body.expires_in_days))
    token, secret = tokens.create(db, who, wanted, admission.policy.names)
    shown = TokenOut.of(token, tokens.now(db))
    return TokenCreated(**shown.model_dump(), token=secret)


@router.get(
    "/tokens",
    operation_id="tokens:list",
    summary="The tokens",
    response_description="A page of tokens",
    responses=problems(),
)
def list_tokens(
    _who: CanAdminister,
    db: Db,
    cursor: PageCursor,
    limit: Limit = 50,
    name: Annotated[Line | None, Query(description="Only tokens with exactly this name.")] = None,
    state: Annotated[TokenState | None, Query(description="Only tokens in this state.")] = None,
) -> TokenPage:
    """The tokens that were created, newest first, without their secrets. Needs the scope `admin`.

    Tokens that were revoked or have expired are listed too. Those of REGISTRY_API_TOKENS are not.
    """
    page = tokens.find(db, limit=limit, cursor=cursor, name=name, state=state)
    at = tokens.now(db)
    return TokenPage(items=[TokenOut.of(token, at) for token in page.items], next=page.next_cursor)


@router.delete(
    "/tokens/{id}",
    operation_id="tokens:revoke",
    summary="Revoke a token",
    response_description="The revoked token",
    responses=problems(NotFound),
)
def revoke(
    id: Annotated[UUID, Path(description="The token's id.")],  # noqa: A002 - the contract's name
    who: CanAdminister,
    database: DatabaseDep,
    admission: AdmissionDep,
) -> TokenOut:
    """From the answer on, this process refuses the token; every other one does so within 5 seconds.

    Needs the scope `admin`. The token stays in the list. Repeating the request changes nothing.
    """
    with database.transaction() as session:
        shown = TokenOut.of(tokens.revoke(session, who, id), tokens.now(session))
    admission.forget()
    return shown
