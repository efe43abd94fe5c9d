"""The tokens of the database: created, listed and revoked by administrators, and looked up for callers."""

import secrets
import string
import zlib
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, and_, exists, func, not_, or_, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app.db.tables import Token, TrustedPublisher
from app.registry.access import audit
from app.registry.access.callers import Caller, digest_of
from app.registry.errors import Forbidden, NotFound, TokenNameTaken
from app.registry.pages import Cursor, Page, paginate
from app.words import Actor, AuditAction, Scope, TokenState, known

# By this, programs that look for secrets in code and logs recognise a token.
_BEGINNING = "tmr_"
_CHARACTERS = string.ascii_letters + string.digits
# 62**43 is more than 2**256.
_RANDOM = 43
_CHECKSUM = 8
_SHOWN = len(_BEGINNING) + 6

# The time of the last use is only this exact, so that it is seldom written.
USE_IS_EXACT_TO = timedelta(minutes=10)

_NOW = func.clock_timestamp()


def new_secret() -> str:
    """A token: its beginning, 256 random bits, and a checksum."""
    random = "".join(secrets.choice(_CHARACTERS) for _ in range(_RANDOM))
    return f"{_BEGINNING}{random}{_checksum(random)}"


def is_well_formed(secret: str) -> bool:
    """Whether this can be a token of the database. Otherwise the database need not be asked."""
    random = secret[len(_BEGINNING) : -_CHECKSUM]
    return len(random) == _RANDOM and secret == f"{_BEGINNING}{random}{_checksum(random)}"


def _checksum(random: str) -> str:
    return f"{zlib.crc32(random.encode()):0{_CHECKSUM}x}"


@dataclass(frozen=True)
class TokenRequest:
    """What a new token shall be."""

    name: str
    scopes: frozenset[Scope]
    lifetime: timedelta


def create(
    session: Session, who: Caller, wanted: TokenRequest, of_environment: Collection[str]
) -> tuple[Token, str]:
    """A new token, and its secret, which is not stored.

    `of_environment` has the names of the environment's tokens. Raises Forbidden for a scope that the creator
    lacks, and TokenNameTaken.
    """
    scopes = [scope for scope in Scope if scope in wanted.scopes]
    for scope in scopes:
        if scope not in who.scopes:
            message = (
                f"The token {who.name!r} lacks the scope {scope}, so it cannot give it to another token. "
                "Create the token with one that has all of its scopes."
            )
            raise Forbidden(message, required_scope=scope)
    if wanted.name in of_environment:
        message = f"A token of REGISTRY_API_TOKENS has the name {wanted.name!r}. Choose another name."
        raise TokenNameTaken(message, name=wanted.name)
    session.execute(
        update(Token)
        .where(Token.name == wanted.name, Token.holds_name, Token.expires_at <= _NOW)
        .values(holds_name=False)
    )
    secret = new_secret()
    token = session.scalar(
        insert(Token)
        .values(
            name=wanted.name,
            digest=digest_of(secret),
            starts_with=secret[:_SHOWN],
            scopes=scopes,
            created_by=who.name,
            created_by_kind=who.kind,
            expires_at=_NOW + wanted.lifetime,
        )
        .on_conflict_do_nothing(index_elements=[Token.name], index_where=text("holds_name"))
        .returning(Token)
    )
    if token is None:
        message = (
            f"There is an active token with the name {wanted.name!r}. "
            "Choose another name, or revoke that token first."
        )
        raise TokenNameTaken(message, name=wanted.name)
    facts = {"name": token.name, "scopes": scopes, "expires_at": token.expires_at.isoformat()}
    audit.record(session, who.name, who.kind, AuditAction.TOKEN_CREATED, str(token.id), after=facts)
    return token, secret


def issue(
    session: Session, *, name: str, scopes: Collection[Scope], lifetime: timedelta, rules: Collection[str]
) -> tuple[Token, str]:
    """A short-lived token for a CI workflow that these rules trust, and its secret, which is not stored.

    Its name is not reserved: each job of a workflow gets tokens of the same name.
    """
    secret = new_secret()
    token = Token(
        name=name,
        kind=Actor.CI_WORKFLOW,
        digest=digest_of(secret),
        starts_with=secret[:_SHOWN],
        scopes=[scope for scope in Scope if scope in scopes],
        created_by=f"trusted publisher {', '.join(sorted(rules))}",
        created_by_kind=Actor.SYSTEM,
        expires_at=now(session) + lifetime,
        holds_name=False,
    )
    session.add(token)
    session.flush()
    return token, secret


def revoke(session: Session, who: Caller, token_id: UUID) -> Token:
    """Revoke the token. A token that was revoked before stays as it is. Raises NotFound."""
    token = session.scalar(select(Token).where(Token.id == token_id).with_for_update())
    if token is None:
        message = f"There is no token {token_id}. GET /tokens lists the tokens."
        raise NotFound(message)
    if token.revoked_at is None:
        token.revoked_at = now(session)
        token.revoked_by, token.revoked_by_kind = who.name, who.kind
        token.holds_name = False
        session.flush()
        before = {"name": token.name, "scopes": token.scopes}
        audit.record(session, who.name, who.kind, AuditAction.TOKEN_REVOKED, str(token.id), before=before)
    return token


def find(
    session: Session,
    *,
    limit: int,
    cursor: Cursor | None = None,
    name: str | None = None,
    state: TokenState | None = None,
) -> Page[Token]:
    """Tokens, newest first. If there are several filters, a token must match all of them."""
    query = select(Token)
    if name is not None:
        query = query.where(Token.name == name)
    match state:
        case TokenState.ACTIVE:
            query = query.where(_active())
        case TokenState.EXPIRED:
            query = query.where(Token.revoked_at.is_(None), Token.expires_at <= _NOW)
        case TokenState.REVOKED:
            query = query.where(Token.revoked_at.is_not(None))
    return paginate(session, query, Token.created_at, Token.id, limit=limit, cursor=cursor)


def now(session: Session) -> datetime:
    """The time by the database's clock, which decides when a token expires."""
    at: datetime = session.execute(select(_NOW)).scalar_one()
    return at


def state_of(token: Token, at: datetime) -> TokenState:
    if token.revoked_at is not None:
        return TokenState.REVOKED
    return TokenState.ACTIVE if at < token.expires_at else TokenState.EXPIRED


def _active() -> ColumnElement[bool]:
    return and_(Token.revoked_at.is_(None), Token.expires_at > _NOW)


@dataclass(frozen=True)
class KnownToken:
    """A token of the database, as it was when the database was asked for it."""

    id: UUID
    caller: Caller
    # Null unless it was revoked.
    revoked_at: datetime | None
    expires_at: datetime
    # How many seconds after the question it expires, by the database's clock.
    expires_in_s: float
    # Whether the time of its last use should be written.
    use_is_news: bool


def look_up(connection: Connection, digests: Collection[str]) -> dict[str, KnownToken]:
    """The tokens with these digests, also those that were revoked or have expired."""
    query = select(
        Token.digest,
        Token.id,
        Token.name,
        Token.kind,
        Token.scopes,
        Token.revoked_at,
        Token.expires_at,
        func.extract("epoch", Token.expires_at - _NOW).label("expires_in_s"),
        and_(_active(), or_(Token.last_used_at.is_(None), Token.last_used_at < _NOW - USE_IS_EXACT_TO)).label(
            "use_is_news"
        ),
    ).where(Token.digest.in_(digests))
    return {
        row.digest: KnownToken(
            id=row.id,
            # A word that only a newer release knows allows nothing here.
            caller=Caller(
                row.name,
                frozenset(scope for word in row.scopes if (scope := known(Scope, word)) is not None),
                known(Actor, row.kind) or Actor.TOKEN,
            ),
            revoked_at=row.revoked_at,
            expires_at=row.expires_at,
            expires_in_s=float(row.expires_in_s),
            use_is_news=row.use_is_news,
        )
        for row in connection.execute(query)
    }


def note_use(session: Session, ids: Collection[UUID]) -> None:
    """Record that these tokens are in use. One that somebody else is changing is left out."""
    free = select(Token.id).where(Token.id.in_(ids)).with_for_update(skip_locked=True)
    session.execute(update(Token).where(Token.id.in_(free)).values(last_used_at=_NOW))


def may_somebody_write(connection: Connection) -> bool:
    """Whether there is an active token that may do more than read, or a workflow that can get one."""
    tokens = exists().where(_active(), not_(Token.scopes.contained_by([Scope.READ])))
    workflows = exists().where(not_(TrustedPublisher.scopes.contained_by([Scope.READ])))
    found: bool = connection.execute(select(or_(tokens, workflows))).scalar_one()
    return found
