"""Who may call: what a caller with a token may do, and what a caller without a token may do."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from app.registry.errors import Forbidden, Unauthorized
from app.settings import Token
from app.words import Access, Actor, Scope

_SEND_A_TOKEN = (
    "Send `Authorization: Bearer <token>` with a token that this registry knows: one that an administrator "  # noqa: S105
    "has created with POST /tokens, or one of REGISTRY_API_TOKENS."
)
_NOBODY = "nobody can write, because no token may: neither one of REGISTRY_API_TOKENS nor a created one"
_UNKNOWN = "writing needs a token; whether there is one that may write is not known at the moment"


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
                raise Forbidden(self._lacks(scope), required_scope=scope)

    def _lacks(self, scope: Scope) -> str:
        if self.kind is Actor.ANONYMOUS:
            return f"This needs the scope {scope}, and came without a token. {_SEND_A_TOKEN}"
        return (
            f"The token {self.name!r} lacks the scope {scope}. Use a token that has it. An administrator "
            "creates one with POST /tokens, or adds the scope to the token's entry in REGISTRY_API_TOKENS."
        )


def digest_of(secret: str) -> str:
    """The sha256 of a token.

    Tokens are looked up by this digest. So the time that a comparison takes tells nothing about a token:
    nobody can choose the beginning of a digest.
    """
    return hashlib.sha256(secret.encode()).hexdigest()


class AccessPolicy:
    """The setting REGISTRY_ACCESS, with the tokens of the environment."""

    def __init__(self, access: Access, tokens: Iterable[Token]) -> None:
        self.access = access
        self._of_environment = {token.digest: Caller(token.name, token.scopes) for token in tokens}

    @property
    def names(self) -> frozenset[str]:
        """The names of the environment's tokens."""
        return frozenset(caller.name for caller in self._of_environment.values())

    def of_environment(self, digest: str) -> Caller | None:
        """The caller whose token in the environment has this digest."""
        return self._of_environment.get(digest)

    def admit(self, known: Caller | None, *, writes: bool, refusal: str | None = None) -> Caller:
        """The caller with what they may do in this request. None stands for a caller without a known token.

        Raises Unauthorized, with `refusal` if it says why the token does not count, or Forbidden if the token
        lacks the scope to read.
        """
        if self.access is Access.OPEN:
            return _with(known, frozenset(Scope))
        if self.access is Access.READS and not writes:
            # A token adds what it may read beyond that.
            return _with(known, frozenset({Scope.READ}) | (known.scopes if known else frozenset()))
        if known is None:
            raise Unauthorized(refusal or _SEND_A_TOKEN)
        if not writes:
            known.need(Scope.READ)
        return known

    @property
    def can_write(self) -> bool:
        """Whether somebody can write, whichever tokens were created."""
        callers = self._of_environment.values()
        return self.access is Access.OPEN or any(caller.scopes - {Scope.READ} for caller in callers)

    def summary(self, *, created: bool | None) -> str:
        """The setting, and a consequence of it that may surprise an operator.

        `created` says whether a token that may write was created, or is None if the database does not answer.
        """
        if self.access is Access.OPEN:
            return "open: everyone who can reach this service may change everything"
        reading = "reading is open" if self.access is Access.READS else "reading needs a token"
        if self.can_write or created:
            writing = "writing needs a token"
        else:
            writing = _UNKNOWN if created is None else _NOBODY
        return f"{self.access}: {reading}, and {writing}"

    def is_surprising(self, *, created: bool | None) -> bool:
        """Whether the summary is a warning."""
        return self.access is Access.OPEN or not (self.can_write or created)


def _with(known: Caller | None, scopes: frozenset[Scope]) -> Caller:
    return (
        Caller("anonymous", scopes, Actor.ANONYMOUS)
        if known is None
        else Caller(known.name, scopes, known.kind)
    )
