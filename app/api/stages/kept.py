"""Keeps the finished answers of `latest` in memory, each only while it is known to be true."""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Annotated

import psycopg
from fastapi import Depends, Request
from fastapi.concurrency import run_in_threadpool
from psycopg.conninfo import make_conninfo
from sqlalchemy.dialects.postgresql.psycopg import dialect

from app.db.session import CONNECTION, Database
from app.registry.stages import latest
from app.registry.stages.latest import Asked, Latest

_log = logging.getLogger(__name__)

_QUERIES = {
    of_version: str(query.compile(dialect=dialect())).encode()  # type: ignore[no-untyped-call]
    for of_version, query in ((False, latest.OF_STAGES), (True, latest.OF_VERSIONS))
}
# Besides the stages, the answers for this many versions are kept: those that were asked for most recently.
_MAX_VERSIONS = 16
# An answer that nobody has asked for in this time is no longer kept true.
_IDLE_S = 10.0
_PATIENCE_S = 5.0
_AGAIN_AFTER_S = 1.0


@dataclass(frozen=True)
class Answer:
    """What the database said, as bytes to send. `period` is the one in which the URLs were signed.

    Without a body, there is nothing to hand out: files are missing, or the model is marked or collected.
    """

    found: Latest
    body: bytes | None
    period: int


@dataclass
class _Kept:
    answer: Answer
    # On this process's monotonic clock: when the question was asked that the database last answered in this
    # way, and when somebody last wanted the answer.
    true_at: float
    wanted_at: float


@dataclass(frozen=True)
class _Loading:
    """A question that the database has not answered yet."""

    task: "asyncio.Task[Answer]"
    began: float


class KeptAnswers:
    """Answers that are at most `max_age` old.

    While answers are asked for, one task asks the database twice in each `max_age` whether they are still
    true. It does not depend on notifications, which do not come when a connection is dead. An answer is used
    only if the database was asked for it less than `max_age` ago; otherwise the caller asks the database.
    Everything but `forget` runs in the event loop.
    """

    def __init__(self, database: Database, max_age: timedelta) -> None:
        self._conninfo = make_conninfo(
            database.conninfo,
            application_name="tariff-model-registry",
            options="-c timezone=UTC",
            **CONNECTION,
        )
        self._max_age_s = max_age.total_seconds()
        self._kept: dict[Asked, _Kept] = {}
        self._loading: dict[Asked, _Loading] = {}
        self._forgotten_at = float("-inf")
        self._task: asyncio.Task[None] | None = None

    def get(self, asked: Asked, period: int) -> Answer | None:
        """The kept answer, if it is young enough and its URLs were signed in this period."""
        kept = self._kept.get(asked)
        if kept is None:
            return None
        kept.wanted_at = time.monotonic()
        return kept.answer if self._is_young(kept.true_at) and kept.answer.period == period else None

    async def load(self, asked: Asked, ask: Callable[[], Answer]) -> Answer:
        """What `ask` returns, which asks the database in a thread. Raises what it raises.

        Whoever comes while the same question is under way, and is young enough, waits for its answer. Without
        this, an answer that is not young enough any more would cost as many threads as there are readers, and
        they would hold up the task that keeps the answers true.
        """
        loading = self._loading.get(asked)
        if loading is None or not self._is_young(loading.began):
            began = time.monotonic()
            loading = _Loading(asyncio.create_task(run_in_threadpool(ask)), began)
            self._loading[asked] = loading
            loading.task.add_done_callback(partial(self._loaded, asked, loading))
        # A reader that goes away must not take the answer from the others.
        return await asyncio.shield(loading.task)

    def _loaded(self, asked: Asked, loading: _Loading, task: "asyncio.Task[Answer]") -> None:
        if self._loading.get(asked) is loading:
            del self._loading[asked]
        if not task.cancelled() and task.exception() is None:
            self._keep(asked, task.result(), loading.began)

    def _is_young(self, true_at: float) -> bool:
        return time.monotonic() - true_at < self._max_age_s and true_at > self._forgotten_at

    def _keep(self, asked: Asked, answer: Answer, true_at: float) -> None:
        """Keep an answer that the database has given to a question of that moment."""
        if not self._max_age_s:
            return
        there = self._kept.get(asked)
        if there is None or there.true_at < true_at or there.answer.period != answer.period:
            self._kept[asked] = _Kept(answer, true_at, time.monotonic())
        self._drop_versions()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._follow(), name="latest-answers")

    def forget(self) -> None:
        """Use no answer from before this moment: this process has just changed what a stage runs."""
        self._forgotten_at = time.monotonic()

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def _drop_versions(self) -> None:
        of_versions = [asked for asked in self._kept if asked.version is not None]
        if len(of_versions) > _MAX_VERSIONS:
            del self._kept[min(of_versions, key=lambda asked: self._kept[asked].wanted_at)]

    async def _follow(self) -> None:
        """Keep the answers true for as long as somebody asks for them."""
        while self._drop_unwanted():
            try:
                async with asyncio.timeout(_PATIENCE_S):
                    connection = await psycopg.AsyncConnection.connect(self._conninfo, autocommit=True)
                async with connection:
                    while self._drop_unwanted():
                        await self._ask(connection)
            except (psycopg.Error, OSError, TimeoutError) as exc:
                # Nothing is lost: each request asks the database itself until this works again.
                _log.warning("the answers of latest are not kept: %s", str(exc) or type(exc).__name__)
                await asyncio.sleep(_AGAIN_AFTER_S)

    async def _ask(self, connection: "psycopg.AsyncConnection[tuple[object, ...]]") -> None:
        """Ask once, and wait until it is time for the next question."""
        began = time.monotonic()
        async with asyncio.timeout(_PATIENCE_S):
            found = await self._load(connection)
        for asked, kept in list(self._kept.items()):
            # An answer that is younger than the question is left for the next one.
            if kept.true_at >= began:
                continue
            if kept.answer.found == found.get(asked):
                kept.true_at = began
            else:
                del self._kept[asked]
        await asyncio.sleep(max(0.0, began + self._max_age_s / 2 - time.monotonic()))

    async def _load(self, connection: "psycopg.AsyncConnection[tuple[object, ...]]") -> dict[Asked, Latest]:
        found = {}
        for of_version, query in _QUERIES.items():
            wanted = [asked for asked in self._kept if (asked.version is not None) == of_version]
            if wanted:
                cursor = await connection.execute(query, latest.parameters(wanted))
                for row in await cursor.fetchall():
                    index, answer = latest.of_row(row)
                    found[wanted[index]] = answer
        return found

    def _drop_unwanted(self) -> bool:
        """Returns whether any answer is still wanted."""
        now = time.monotonic()
        for asked, kept in list(self._kept.items()):
            if now - kept.wanted_at > _IDLE_S:
                del self._kept[asked]
        return bool(self._kept)


async def get_kept(request: Request) -> KeptAnswers:
    kept: KeptAnswers = request.app.state.kept
    return kept


KeptDep = Annotated[KeptAnswers, Depends(get_kept)]
