"""The engine and its transactions."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import psycopg
from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, sessionmaker

# Times are read back in the session's zone, and the API promises UTC. A process that is stopped in the middle
# of a transaction must not keep its row locks for as long as it is stopped.
_SESSION = "SET timezone = 'UTC'; SET idle_in_transaction_session_timeout = '60s'"


def _prepare(connection: "psycopg.Connection[tuple[object, ...]]", _record: object) -> None:
    connection.execute(_SESSION)
    connection.commit()


Result = TypeVar("Result")


class Database:
    """One Postgres: the place where sessions and connections come from."""

    def __init__(self, url: str, *, pool_size: int = 10) -> None:
        self.url = make_url(url).set(drivername="postgresql+psycopg")
        # A connection that a Postgres restart cut is replaced, not handed out.
        self.engine: Engine = self._engine(pool_size, pool_pre_ping=True)
        # For `read` alone; makes its first connection when it is first used.
        self._reader = self._engine(max(1, pool_size // 2), isolation_level="AUTOCOMMIT")
        self._sessions = sessionmaker(self.engine, expire_on_commit=False)

    def _engine(self, pool_size: int, **more: Any) -> Engine:
        engine = create_engine(
            self.url,
            pool_size=pool_size,
            max_overflow=pool_size,
            connect_args={
                "connect_timeout": 10,
                "application_name": "tariff-model-registry",
                # A database host that is gone is noticed within half a minute, not when TCP gives up.
                "keepalives_idle": 10,
                "keepalives_interval": 5,
                "keepalives_count": 4,
                "tcp_user_timeout": 30_000,
            },
            **more,
        )
        event.listen(engine, "connect", _prepare)
        return engine

    @property
    def conninfo(self) -> str:
        """The same database in libpq's words, for psycopg and procrastinate."""
        return self.url.set(drivername="postgresql").render_as_string(hide_password=False)

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """One transaction: committed when the block ends, rolled back whole when it raises."""
        with self._sessions.begin() as session:
            yield session

    def read(self, query: Callable[[Connection], Result]) -> Result:
        """The answer of a query that is one statement: one round trip, where a transaction takes four.

        `query` is called again when the connection turns out to be dead, so it must only read.
        """
        for again in (True, False):
            try:
                with self._reader.connect() as connection:
                    return query(connection)
            except DBAPIError as exc:
                if not (again and exc.connection_invalidated):
                    raise
        raise AssertionError

    def close(self) -> None:
        self.engine.dispose()
        self._reader.dispose()
