"""Alembic's entry: migrates the database of DATABASE_URL, or the one that the caller hands over."""

from alembic import context
from sqlalchemy import text

from app.db.session import Database
from app.db.tables import Base
from app.settings import Settings

# The queue's tables are its library's own, made by revisions that hold that library's SQL.
_FOREIGN = "procrastinate_"
# Any number of our own: two migrators at once would otherwise both find the work undone.
_LOCK = 0x7A51F


def _ours(name: str | None, kind: str, _parents: object) -> bool:
    return not (kind == "table" and name is not None and name.startswith(_FOREIGN))


def run() -> None:
    database: Database = context.config.attributes.get("database") or Database(
        Settings().database_url.get_secret_value()
    )
    with database.engine.connect() as connection:
        connection.execute(text("SELECT pg_advisory_lock(:lock)"), {"lock": _LOCK})
        # A migration that cannot get its lock soon must give up, not queue every request up behind it.
        connection.execute(text("SET lock_timeout = '10s'"))
        connection.commit()
        try:
            context.configure(
                connection=connection,
                target_metadata=Base.metadata,
                include_name=_ours,
                compare_server_default=True,
                transaction_per_migration=True,
            )
            with context.begin_transaction():
                context.run_migrations()
        finally:
            connection.rollback()
            connection.execute(text("SELECT pg_advisory_unlock(:lock)"), {"lock": _LOCK})
            connection.commit()


run()
