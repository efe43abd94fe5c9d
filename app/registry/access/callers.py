"""Who may call: what a caller with a token may do, and what a caller without a token may do."""

import hashlib
import hmac
from dataclasses import dataclass

from app.registry.errors import Forbidden, Unauthorized
from app.settings import Token
from app.words import Access, Actor, Scope


@dataclass(frozen=True)
class Caller:
    """Who makes a request, and what they may do."""

    name: str
    scopes: frozenset[Scope]
    kind: Actor = Actor.TOKEN

    def need(self, *scopes: Scope) -> None:
        """Raises Forbidden, which names the first scope that the caller lacks."""
        for scope in scopes:
            if scope not in self.scopes:
                message = (
                    f"The token {self.name!r} lacks the scope {scope}. "
                    f"Use a token that has it, or add it to the token's entry in REGISTRY_API_TOKENS."
                )
                raise Forbidden(message, required_scope=scope)


def _caller(known: Token | None, scopes: frozenset[Scope]) -> Caller:
    if known is None:
        return Caller("anonymous", scopes, Actor.ANONYMOUS)
    return Caller(known.name, scopes)


@dataclass(frozen=True)
class AccessPolicy:
    """The setting REGISTRY_ACCESS, with the tokens that are configured."""

    access: Access
    tokens: tuple[Token, ...]

    def admit(self, token: str | None, *, writes: bool) -> Caller:
        """The caller that the token belongs to, or an anonymous one where the setting allows that.

        Raises Unauthorized, or Forbidden if no token could help or this token lacks the scope to read.
        """
        known = self._find(token) if token is not None else None
        if self.access is Access.OPEN:
            return _caller(known, frozenset(Scope))
        if self.access is Access.READS and not writes:
            # A token adds what it may read beyond that.
            return _caller(known, frozenset({Scope.READ}) | (known.scopes if known else frozenset()))
        if known is None:
            raise self._refusal()
        caller = Caller(known.name, known.scopes)
        if not writes:
            caller.need(Scope.READ)
        return caller

    def _refusal(self) -> Unauthorized | Forbidden:
        if not self.tokens:
            message = "This registry has no tokens, so nobody may do this. Set REGISTRY_API_TOKENS."
            return Forbidden(message)
        message = "Send `Authorization: Bearer <token>` with a token that is in REGISTRY_API_TOKENS."
        return Unauthorized(message)

    def _find(self, token: str) -> Token | None:
        digest = hashlib.sha256(token.encode()).hexdigest()
        return next((known for known in self.tokens if hmac.compare_digest(digest, known.digest)), None)

    @property
    def summary(self) -> str:
        """The setting, and a consequence of it that may surprise an operator."""
        match self.access, self.tokens:
            case Access.OPEN, _:
                return "open: everyone who can reach this service may change everything"
            case Access.READS, ():
                return "reads: reading is open, and nobody can write, because REGISTRY_API_TOKENS is empty"
            case Access.READS, _:
                return "reads: reading is open, and writing needs a token"
            case _, ():
                return "tokens: nobody can read or write, because REGISTRY_API_TOKENS is empty"
        return "tokens: reading and writing need a token"

    @property
    def is_surprising(self) -> bool:
        """Whether the summary is a warning."""
        return self.access is Access.OPEN or not self.tokens
