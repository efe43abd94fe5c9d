"""Lets any number of readers follow builds: one connection listens, and readers share what is read.

A reader is a coroutine with a position. It asks for what follows that position, and waits when there is
nothing. Readers at the same position share one read of the database and the bytes that are sent.
"""

import asyncio
import json
import logging
from collections import OrderedDict
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from uuid import UUID

from anyio import CapacityLimiter, to_thread
from fastapi.sse import format_sse_event
from sqlalchemy.exc import SQLAlchemyError

from app.api.builds.changes import POLL_S, Changes
from app.api.common.shown import shown_message, step_output
from app.db.session import Database, is_temporary
from app.registry.builds import following
from app.registry.builds.following import News, Position

_log = logging.getLogger(__name__)

HEARTBEAT_S = 15.0
# After this long a stream ends, so that its reader comes back and must still be allowed to read.
LONGEST_S = 1800.0
_READS_AT_ONCE = 4
_KEPT_BYTES = 16 << 20
# Readers of one build are at a few different positions at most, unless somebody makes positions up.
_KEPT_ENDS = 32
# How long a read may take to finish when the process stops.
_STOP_WITHIN_S = 1.0

_HELLO = format_sse_event(retry=2000)
_BEAT = format_sse_event(comment="still there")


class _Stopping(Exception):
    """The process stops, so a read was given up."""


@dataclass(frozen=True)
class Part:
    """What follows a position, as it is sent."""

    body: bytes
    after: Position
    more: bool
    ended: bool
    progress: bytes


@dataclass(eq=False)
class _Feed:
    """A build that somebody follows."""

    readers: int = 0
    # Increases with each change of the build.
    changes: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    # Reads of the database that began after a change, by position.
    reads: dict[tuple[Position, int], "asyncio.Task[Part]"] = field(default_factory=dict)

    def change(self) -> None:
        self.changes += 1
        self.reads = {key: read for key, read in self.reads.items() if not read.done()}
        self.changed.set()
        self.changed = asyncio.Event()

    def limit(self) -> None:
        """A read that is forgotten is only not shared any more."""
        while len(self.reads) > _KEPT_ENDS:
            del self.reads[next(iter(self.reads))]


class Following:
    """Every build that readers of this process follow."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._feeds: dict[UUID, _Feed] = {}
        self._kept: OrderedDict[tuple[UUID, Position], Part] = OrderedDict()
        self._kept_bytes = 0
        self._reads: set[asyncio.Task[Part]] = set()
        self._limiter = CapacityLimiter(_READS_AT_ONCE)
        self._changes = Changes(database, self._changed)
        self._closed = asyncio.Event()
        self._database_is_away = False

    @property
    def readers(self) -> int:
        return sum(feed.readers for feed in self._feeds.values())

    async def first(self, build_id: UUID, since: Position) -> Part:
        """What follows the position now. Raises NotFound, Invalid."""
        with self._feed(build_id) as feed:
            return await self._next(build_id, feed, since)

    async def follow(self, build_id: UUID, since: Position) -> AsyncGenerator[bytes]:
        """What is sent to one reader, until the build has ended and everything was sent."""
        with self._feed(build_id) as feed:
            async with aclosing(self._parts(build_id, feed, since)) as parts:
                async for body in parts:
                    yield body

    @contextmanager
    def _feed(self, build_id: UUID) -> Iterator[_Feed]:
        """The build, as long as somebody reads it."""
        if not self._closed.is_set():
            self._changes.start()
        feed = self._feeds.setdefault(build_id, _Feed())
        feed.readers += 1
        try:
            yield feed
        finally:
            feed.readers -= 1
            if not feed.readers:
                self._feeds.pop(build_id, None)

    async def close(self) -> None:
        """End every stream. Readers come back and go on from where they were."""
        self._closed.set()
        self._changed(None)
        await self._changes.close()
        # Their connections must be back before the database is closed. A database that does not answer must
        # not keep the process.
        if self._reads:
            _, hanging = await asyncio.wait(self._reads, timeout=_STOP_WITHIN_S)
            for read in hanging:
                read.cancel()

    async def _parts(self, build_id: UUID, feed: _Feed, at: Position) -> AsyncGenerator[bytes]:
        loop = asyncio.get_running_loop()
        ends = loop.time() + LONGEST_S
        yield _HELLO
        spoke = loop.time()
        progress = b""
        while not self._closed.is_set() and loop.time() < ends:
            # Before the read, so that a change during it is not missed.
            changed = feed.changed
            part = await self._try_next(build_id, feed, at)
            if part is None:
                await _wait(self._closed, POLL_S)
            else:
                if part.body:
                    at = part.after
                    yield part.body
                    spoke = loop.time()
                if part.more:
                    continue
                if part.progress and part.progress != progress:
                    yield part.progress
                    spoke = loop.time()
                progress = part.progress
                if part.ended:
                    return
                await _wait(changed, HEARTBEAT_S)
            if loop.time() - spoke >= HEARTBEAT_S:
                yield _BEAT
                spoke = loop.time()

    async def _try_next(self, build_id: UUID, feed: _Feed, at: Position) -> Part | None:
        """None while the database does not answer. The stream stays open and goes on when it is back."""
        try:
            part = await self._next(build_id, feed, at)
        except SQLAlchemyError as exc:
            if not is_temporary(exc):
                raise
            if not self._database_is_away:
                _log.warning("readers of builds wait for the database: %s", exc)
            self._database_is_away = True
            return None
        except _Stopping:
            return None
        self._database_is_away = False
        return part

    async def _next(self, build_id: UUID, feed: _Feed, at: Position) -> Part:
        kept = self._kept.get((build_id, at))
        if kept is not None:
            self._kept.move_to_end((build_id, at))
            return kept
        key = (at, feed.changes)
        read = feed.reads.get(key)
        if read is None:
            read = feed.reads[key] = asyncio.create_task(self._read(build_id, at))
            self._reads.add(read)
            read.add_done_callback(partial(self._has_read, build_id, feed, key))
            feed.limit()
        try:
            # A reader that goes away must not end the read for the others.
            return await asyncio.shield(read)
        except asyncio.CancelledError:
            if read.cancelled():
                raise _Stopping from None
            raise

    def _has_read(
        self, build_id: UUID, feed: _Feed, key: tuple[Position, int], read: "asyncio.Task[Part]"
    ) -> None:
        self._reads.discard(read)
        failed = read.cancelled() or read.exception() is not None
        if not failed and read.result().more:
            self._keep((build_id, key[0]), read.result())
        elif not failed and key[1] == feed.changes:
            # Nothing follows yet, which stays true until the build changes.
            return
        if feed.reads.get(key) is read:
            del feed.reads[key]

    def _keep(self, key: tuple[UUID, Position], part: Part) -> None:
        """Only what is in the middle of the stream is kept: what follows it never changes."""
        if key in self._kept:
            return
        self._kept[key] = part
        self._kept_bytes += len(part.body)
        while self._kept_bytes > _KEPT_BYTES:
            _, oldest = self._kept.popitem(last=False)
            self._kept_bytes -= len(oldest.body)

    async def _read(self, build_id: UUID, at: Position) -> Part:
        def read() -> Part:
            with self._database.transaction() as session:
                found = following.news(session, build_id, at)
            return _part(found)

        return await to_thread.run_sync(read, limiter=self._limiter, abandon_on_cancel=True)

    def _changed(self, build_id: UUID | None) -> None:
        if build_id is None:
            for feed in self._feeds.values():
                feed.change()
        elif (feed_of := self._feeds.get(build_id)) is not None:
            feed_of.change()


async def _wait(happens: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(happens.wait(), seconds)


def _part(found: News) -> Part:
    sent = b"".join(
        format_sse_event(
            data_str=json.dumps({"at": item.at.isoformat(), **_shown(item.type, item.data)}),
            event=item.type,
            id=str(item.after),
        )
        for item in found.items
    )
    progress = b""
    if found.progress is not None:
        # It has no id, because it is not repeated to a reader who comes back.
        progress = format_sse_event(data_str=json.dumps(found.progress), event=following.PROGRESS)
    return Part(sent, found.after, found.more, found.ended, progress)


def _shown(type_: str, data: Mapping[str, Any]) -> dict[str, Any]:
    """What anybody may see of an event."""
    shown = dict(data)
    if "output" in shown:
        shown["output"] = step_output(str(shown.get("step")), shown["output"], whole=False)
    if type_ != following.LOG and isinstance(shown.get("message"), str):
        shown["message"] = shown_message(shown["message"])
    return shown
