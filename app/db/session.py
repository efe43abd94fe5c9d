"""The engine and its transactions, and which of their errors are temporary."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import psycopg
from procrastinate.exceptions import ConnectorException
from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session, sessionmaker

# A lost database host is noticed within half a minute. TCP alone would take much longer.
CONNECTION = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 4,
    "tcp_user_timeout": 30_000,
}

# The first characters of the SQLSTATE codes of errors that the statement did not cause: the connection, a
# standby that cannot write, a transaction that Postgres ended because it was idle, a deadlock or another
# conflict, missing resources, a lock that was not given in time, a shutdown, a failing disk.
_TEMPORARY = ("08", "25006", "25P03", "25P04", "40", "53", "55P03", "57", "58")

Result = TypeVar("Result")


def is_temporary(error: BaseException) -> bool:
    """Whether the database could not do the work at the moment, so that the same work may succeed later.

    It is false for errors that the content of a statement causes, and for errors that do not come from the
    database.
    """
    if isinstance(error, PoolTimeout):
        return True
    if isinstance(error, DBAPIError):
        return error.connection_invalidated or (error.orig is not None and is_temporary(error.orig))
    if isinstance(error, ConnectorException):
        return error.__cause__ is not None and is_temporary(error.__cause__)
    if not isinstance(error, psycopg.Error):
        return False
    if error.sqlstate is None:
        # Postgres did not answer, for example because the connection is lost.
        return isinstance(error, psycopg.OperationalError)
    return error.sqlstate.startswith(_TEMPORARY)


class Database:
    """One Postgres database, which gives sessions and connections."""

    def __init__(
        self,
        url: str,
        *,
        pool_size: int = 10,
        idle_limit: timedelta = timedelta(seconds=60),
        lock_limit: timedelta = timedelta(0),
    ) -> None:
        """`idle_limit` is how long a transaction may be idle: a process that is paused in the middle of a
        transaction loses its row locks after that. `lock_limit` is how long a statement waits for a lock that
        another process holds; zero means that there is no limit.
        """
        self._idle_limit = idle_limit
        self._lock_limit = lock_limit
        self.url = make_url(url).set(drivername="postgresql+psycopg")
        # pool_pre_ping replaces a connection that a restart of Postgres has cut, instead of handing it out.
        self.engine: Engine = self._engine(pool_size, pool_pre_ping=True)
        # Only `read` uses this engine. It connects when it is first used.
        self._reader = self._engine(max(1, pool_size // 2), isolation_level="AUTOCOMMIT")
        self._sessions = sessionmaker(self.engine, expire_on_commit=False)

    def _engine(self, pool_size: int, **more: Any) -> Engine:
        engine = create_engine(
            self.url,
            pool_size=pool_size,
            max_overflow=pool_size,
            connect_args={"application_name": "tariff-model-registry", **CONNECTION},
            **more,
        )
        event.listen(engine, "connect", self._prepare)
        return engine

    def _prepare(self, connection: "psycopg.Connection[tuple[object, ...]]", _record: object) -> None:
        # Postgres returns times in the session's time zone, and the API promises UTC.
        idle_ms, lock_ms = (
            limit // timedelta(milliseconds=1) for limit in (self._idle_limit, self._lock_limit)
        )
        settings = {
            "timezone": "UTC",
            "idle_in_transaction_session_timeout": str(idle_ms),
            "lock_timeout": str(lock_ms),
        }
        for name, value in settings.items():
            connection.execute("SELECT set_config(%s, %s, false)", (name, value))
        connection.commit()

    @property
    def conninfo(self) -> str:
        """The database's URL in the form that libpq takes, for psycopg and procrastinate."""
        return self.url.set(drivername="postgresql").render_as_string(hide_password=False)

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """One transaction. It is committed when the block ends, and rolled back when the block raises."""
        with self._sessions.begin() as session:
            yield session

    def read(self, query: Callable[[Connection], Result]) -> Result:
        """Run a query of a single statement in one round trip, where a transaction takes four.

        `query` is called again if the connection turns out to be dead, so it must only read.
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
