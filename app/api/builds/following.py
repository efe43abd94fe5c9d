"""Lets any number of readers follow builds: one connection listens, and readers share what is read.

A reader is a coroutine with a position. It asks for what follows that position, and waits when there is
nothing. Readers at the same position share one read of the database and the bytes that are sent.
"""

import asyncio
import json
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import psycopg
from anyio import CapacityLimiter, to_thread
from fastapi.sse import format_sse_event

from app.api.common.shown import shown_message, step_output
from app.db.session import CONNECTION, Database
from app.registry.builds import events, following
from app.registry.builds.following import News, Position

_log = logging.getLogger(__name__)

HEARTBEAT_S = 15.0
# After this long a stream ends, so that its reader comes back and must still be allowed to read.
LONGEST_S = 1800.0
# While nothing can be heard, the database is asked this often.
_POLL_S = 1.0
_READS_AT_ONCE = 4
_KEPT_BYTES = 16 << 20

_HELLO = format_sse_event(retry=2000)
_BEAT = format_sse_event(comment="still there")


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


class Following:
    """Every build that readers of this process follow."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._feeds: dict[UUID, _Feed] = {}
        self._kept: OrderedDict[tuple[UUID, Position], Part] = OrderedDict()
        self._kept_bytes = 0
        self._reads: set[asyncio.Task[Part]] = set()
        self._limiter = CapacityLimiter(_READS_AT_ONCE)
        self._listener: asyncio.Task[None] | None = None
        self._closed = asyncio.Event()

    async def first(self, build_id: UUID, since: Position) -> Part:
        """What follows the position now. Raises NotFound, Invalid."""
        return await self._read(build_id, since)

    async def follow(self, build_id: UUID, since: Position) -> AsyncIterator[bytes]:
        """What is sent to one reader, until the build has ended and everything was sent."""
        if self._listener is None:
            self._listener = asyncio.create_task(self._listen())
        feed = self._feeds.setdefault(build_id, _Feed())
        feed.readers += 1
        try:
            async for body in self._parts(build_id, feed, since):
                yield body
        finally:
            feed.readers -= 1
            if not feed.readers:
                self._feeds.pop(build_id, None)

    async def close(self) -> None:
        """End every stream. Readers come back and go on from where they were."""
        self._closed.set()
        for feed in self._feeds.values():
            feed.change()
        if self._listener is not None:
            self._listener.cancel()
            with suppress(asyncio.CancelledError):
                await self._listener
        # Their connections must be back before the database is closed.
        await asyncio.gather(*self._reads, return_exceptions=True)

    async def _parts(self, build_id: UUID, feed: _Feed, at: Position) -> AsyncIterator[bytes]:
        ends = asyncio.get_running_loop().time() + LONGEST_S
        yield _HELLO
        progress = b""
        while not self._closed.is_set() and asyncio.get_running_loop().time() < ends:
            # Before the read, so that a change during it is not missed.
            changed = feed.changed
            part = await self._next(build_id, feed, at)
            if part.body:
                at = part.after
                yield part.body
            if part.more:
                continue
            if part.progress != progress:
                progress = part.progress
                yield progress
            if part.ended:
                return
            if not await self._wait(changed):
                yield _BEAT

    async def _wait(self, changed: asyncio.Event) -> bool:
        """Whether the build has changed before the reader needs a sign of life."""
        try:
            await asyncio.wait_for(changed.wait(), HEARTBEAT_S)
        except TimeoutError:
            return False
        return True

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
            read.add_done_callback(self._reads.discard)
        # A reader that goes away must not end the read for the others.
        part = await asyncio.shield(read)
        if part.more:
            self._keep((build_id, at), part)
        return part

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

        return await to_thread.run_sync(read, limiter=self._limiter)

    async def _listen(self) -> None:
        """Wake the readers of a build when it changes. While that is not possible, wake all of them often."""
        while True:
            try:
                await self._listen_once()
            except (psycopg.Error, OSError) as exc:
                _log.warning("changes of builds are not heard, so they are asked for: %s", exc)
            self._change_all()
            await asyncio.sleep(_POLL_S)

    async def _listen_once(self) -> None:
        async with await self._connect() as connection:
            await connection.execute(f"LISTEN {events.CHANNEL}".encode())
            # What happened before this was not heard.
            self._change_all()
            async for heard in connection.notifies():
                build_id = _build_of(heard.payload)
                if build_id is not None and (feed := self._feeds.get(build_id)) is not None:
                    feed.change()

    async def _connect(self) -> psycopg.AsyncConnection[tuple[Any, ...]]:
        connecting = asyncio.create_task(
            psycopg.AsyncConnection.connect(
                self._database.conninfo,
                autocommit=True,
                application_name="tariff-model-registry events",
                **CONNECTION,  # type: ignore[arg-type]
            )
        )
        try:
            return await asyncio.shield(connecting)
        except asyncio.CancelledError:
            # A connection that is just being made must be closed, too.
            with suppress(psycopg.Error, OSError):
                await (await connecting).close()
            raise

    def _change_all(self) -> None:
        for feed in self._feeds.values():
            feed.change()


def _build_of(payload: str) -> UUID | None:
    try:
        return UUID(json.loads(payload)["build"])
    except (ValueError, KeyError, TypeError):
        return None


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
        shown["output"] = step_output(str(shown.get("step")), shown["output"])
    if type_ != following.LOG and isinstance(shown.get("message"), str):
        shown["message"] = shown_message(shown["message"])
    return shown
