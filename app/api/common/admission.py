"""Finds out who makes a request, by the token that it came with.

The tokens of the environment are in memory. Those of the database are kept for a few seconds after each
look-up, so that a caller who asks often costs the database next to nothing.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar
from uuid import UUID

import anyio.to_thread
from anyio import CapacityLimiter
from sqlalchemy.exc import SQLAlchemyError

from app.db.session import Database
from app.registry.access import tokens
from app.registry.access.callers import AccessPolicy, Caller, digest_of
from app.registry.access.tokens import KnownToken
from app.registry.errors import TokensUnavailable

_log = logging.getLogger(__name__)

Result = TypeVar("Result")

# How long what the database said of a token is used: no process accepts a revoked token for longer.
MAX_AGE_S = 5.0
# How many tokens are kept, and how many digests that belong to no token.
_MAX_KEPT = 2_000
# How many tokens one question to the database is about.
_BATCH = 500
_MAX_WAITING = 5_000
_PATIENCE_S = 5.0


@dataclass(frozen=True)
class _Kept:
    """What the database said to a question of that moment, on this process's monotonic clock."""

    token: KnownToken | None
    asked_at: float


class Admission:
    """Admits callers as the policy says.

    Tokens that are not kept are looked up in the database by a thread, at most one question at a time. All
    tokens that come in meanwhile are one question together. So a flood of invented tokens costs the database
    no more than one connection, and delays others by one or two questions. Everything but `forget` runs in
    the event loop.
    """

    def __init__(self, policy: AccessPolicy, database: Database, *, max_age_s: float = MAX_AGE_S) -> None:
        self.policy = policy
        self._database = database
        self._max_age_s = max_age_s
        # Oldest first. Apart, so that invented tokens do not displace real ones.
        self._known: dict[str, _Kept] = {}
        self._unknown: dict[str, _Kept] = {}
        self._forgotten_at = float("-inf")
        # Those who wait, by the digest that they ask for: for the next question, and for the present one.
        self._waiting: dict[str, asyncio.Future[_Kept]] = {}
        self._asked: dict[str, asyncio.Future[_Kept]] = {}
        self._asked_at = float("-inf")
        self._asking: asyncio.Task[None] | None = None
        self._noting: asyncio.Task[None] | None = None
        # Not the threads of the endpoints, which may all be waiting for the database.
        self._threads = CapacityLimiter(2)

    async def admit(self, secret: str | None, *, writes: bool) -> Caller:
        """The caller with what they may do.

        Raises what the policy raises, and TokensUnavailable if the database does not answer.
        """
        known, refusal = (None, None) if secret is None else await self._find(secret)
        return self.policy.admit(known, writes=writes, refusal=refusal)

    def forget(self) -> None:
        """Use nothing from before this moment: this process has just revoked a token."""
        self._forgotten_at = time.monotonic()

    async def close(self) -> None:
        """Let the threads end, so that they give their connections back, unless the database hangs."""
        running = [task for task in (self._asking, self._noting) if task is not None]
        if running:
            _, hanging = await asyncio.wait(running, timeout=_PATIENCE_S)
            for task in hanging:
                task.cancel()

    async def _find(self, secret: str) -> tuple[Caller | None, str | None]:
        """The caller that the token belongs to; or None, and why a token that exists does not count."""
        digest = digest_of(secret)
        caller = self.policy.of_environment(digest)
        if caller is not None or not tokens.is_well_formed(secret):
            return caller, None
        kept = self._known.get(digest) or self._unknown.get(digest)
        if kept is None or not self._is_young(kept.asked_at):
            kept = await self._look_up(digest)
        token = kept.token
        if token is None:
            return None, None
        if token.revoked_at is not None:
            return None, f"The token {token.caller.name!r} was revoked at {token.revoked_at.isoformat()}."
        if time.monotonic() - kept.asked_at >= token.expires_in_s:
            return None, f"The token {token.caller.name!r} expired at {token.expires_at.isoformat()}."
        return token.caller, None

    def _is_young(self, asked_at: float) -> bool:
        return time.monotonic() - asked_at < self._max_age_s and asked_at > self._forgotten_at

    async def _look_up(self, digest: str) -> _Kept:
        """What the database says of the digest. Whoever asks for the same one meanwhile gets this answer."""
        answer = self._asked.get(digest) if self._is_young(self._asked_at) else None
        answer = answer or self._waiting.get(digest)
        if answer is None:
            if len(self._waiting) >= _MAX_WAITING:
                raise TokensUnavailable
            answer = self._waiting[digest] = asyncio.get_running_loop().create_future()
            # Those who wait may all have gone away when it fails.
            answer.add_done_callback(lambda done: done.cancelled() or done.exception())
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask(), name="tokens")
        try:
            async with asyncio.timeout(_PATIENCE_S):
                return await asyncio.shield(answer)
        except TimeoutError:
            raise TokensUnavailable from None

    async def _ask(self) -> None:
        """Ask for the tokens that are waited for, until there are none."""
        while self._waiting:
            digests = list(self._waiting)[:_BATCH]
            self._asked = {digest: self._waiting.pop(digest) for digest in digests}
            self._asked_at = time.monotonic()
            try:
                found = await self._in_thread(
                    partial(self._database.read, partial(tokens.look_up, digests=digests))
                )
            except SQLAlchemyError as exc:
                _log.warning("%d tokens could not be looked up: %s", len(digests), type(exc).__name__)
                for answer in self._asked.values():
                    answer.set_exception(TokensUnavailable())
            else:
                for digest, answer in self._asked.items():
                    answer.set_result(self._keep(digest, _Kept(found.get(digest), self._asked_at)))
                self._note_use([token.id for token in found.values() if token.use_is_news])
            self._asked = {}

    def _keep(self, digest: str, kept: _Kept) -> _Kept:
        self._known.pop(digest, None)
        self._unknown.pop(digest, None)
        of_its_kind = self._unknown if kept.token is None else self._known
        of_its_kind[digest] = kept
        if len(of_its_kind) > _MAX_KEPT:
            del of_its_kind[next(iter(of_its_kind))]
        return kept

    def _note_use(self, ids: list[UUID]) -> None:
        if ids and (self._noting is None or self._noting.done()):
            self._noting = asyncio.create_task(self._write_use(ids), name="use-of-tokens")

    async def _write_use(self, ids: list[UUID]) -> None:
        def write() -> None:
            with self._database.transaction() as session:
                tokens.note_use(session, ids)

        try:
            await self._in_thread(write)
        except SQLAlchemyError as exc:
            # The next look-up tries again.
            _log.warning("the use of %d tokens was not noted: %s", len(ids), type(exc).__name__)

    async def _in_thread(self, work: Callable[[], Result]) -> Result:
        return await anyio.to_thread.run_sync(work, abandon_on_cancel=True, limiter=self._threads)
