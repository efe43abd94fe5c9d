"""Hears from Postgres which builds change, on one connection for the whole process."""

import asyncio
import json
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from uuid import UUID

import psycopg

from app.db.session import CONNECTION, Database
from app.registry.builds import events

_log = logging.getLogger(__name__)

# While nothing can be heard, every build may have changed this often.
POLL_S = 1.0
# A connection that is dead without having been closed is noticed within twice this time.
_CHECK_S = 5.0


class Changes:
    """Calls `changed` with each build that changes, and with None whenever any build may have changed."""

    def __init__(self, database: Database, changed: Callable[[UUID | None], None]) -> None:
        self._database = database
        self._changed = changed
        self._hears = False
        self._warned = False
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to listen, unless that was done already."""
        if not self._tasks:
            self._tasks = [asyncio.create_task(self._listen()), asyncio.create_task(self._remind())]

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _remind(self) -> None:
        while True:
            if not self._hears:
                self._changed(None)
            await asyncio.sleep(POLL_S)

    async def _listen(self) -> None:
        while True:
            try:
                await self._listen_once()
            except (psycopg.Error, OSError) as exc:
                if not self._warned:
                    _log.warning("changes of builds are not heard, so they are asked for: %s", exc)
                self._warned = True
            self._hears = False
            await asyncio.sleep(POLL_S)

    async def _listen_once(self) -> None:
        async with await self._connect() as connection:
            await connection.execute(f"LISTEN {events.CHANNEL}".encode())
            if self._warned:
                _log.warning("changes of builds are heard again")
            self._hears, self._warned = True, False
            # What happened before this was not heard.
            self._changed(None)
            while True:
                async for heard in connection.notifies(timeout=_CHECK_S):
                    build_id = _build_of(heard.payload)
                    if build_id is not None:
                        self._changed(build_id)
                await asyncio.wait_for(connection.execute("SELECT 1"), _CHECK_S)

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


def _build_of(payload: str) -> UUID | None:
    try:
        return UUID(json.loads(payload)["build"])
    except (ValueError, KeyError, TypeError):
        return None
