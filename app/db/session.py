"""The engine and its transactions."""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from sqlalchemy import Engine, create_engine, event, make_url
from sqlalchemy.orm import Session, sessionmaker

# Times are read back in the session's zone, and the API promises UTC. A process that is stopped in the middle
# of a transaction must not keep its row locks for as long as it is stopped.
_SESSION = "SET timezone = 'UTC'; SET idle_in_transaction_session_timeout = '60s'"


def _prepare(connection: "psycopg.Connection[tuple[object, ...]]", _record: object) -> None:
    connection.execute(_SESSION)
    connection.commit()


class Database:
    """One Postgres: the place where sessions and connections come from."""

    def __init__(self, url: str, *, pool_size: int = 10) -> None:
        self.url = make_url(url).set(drivername="postgresql+psycopg")
        self.engine: Engine = create_engine(
            self.url,
            pool_size=pool_size,
            max_overflow=pool_size,
            # A connection that a Postgres restart cut is replaced, not handed out.
            pool_pre_ping=True,
            connect_args={
                "connect_timeout": 10,
                "application_name": "tariff-model-registry",
                # A database host that is gone is noticed within half a minute, not when TCP gives up.
                "keepalives_idle": 10,
                "keepalives_interval": 5,
                "keepalives_count": 4,
                "tcp_user_timeout": 30_000,
            },
        )
        event.listen(self.engine, "connect", _prepare)
        self._sessions = sessionmaker(self.engine, expire_on_commit=False)

    @property
    def conninfo(self) -> str:
        """The same database in libpq's words, for psycopg and procrastinate."""
        return self.url.set(drivername="postgresql").render_as_string(hide_password=False)

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """One transaction: committed when the block ends, rolled back whole when it raises."""
        with self._sessions.begin() as session:
            yield session

    def close(self) -> None:
        self.engine.dispose()
