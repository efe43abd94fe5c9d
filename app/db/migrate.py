"""Migrations from code: one migrator at a time, and whether the schema is the code's."""

import threading
from functools import lru_cache
from pathlib import Path
from typing import Literal

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from app.db.session import Database

ROOT = Path(__file__).resolve().parents[2]
# Alembic keeps what it works on in globals; the lock in the database is for other processes.
_alembic = threading.Lock()


def alembic_config(database: Database) -> Config:
    config = Config(ROOT / "alembic.ini")
    config.set_main_option("script_location", str(ROOT / "migrations"))
    config.attributes["database"] = database
    return config


def upgrade(database: Database, revision: str = "head") -> None:
    """Bring the schema to a revision. Several at once wait for each other."""
    with _alembic:
        command.upgrade(alembic_config(database), revision)


def downgrade(database: Database, revision: str) -> None:
    with _alembic:
        command.downgrade(alembic_config(database), revision)


def head() -> str | None:
    """The revision that this code was written for."""
    return _revisions()[0]


@lru_cache(maxsize=1)
def _revisions() -> tuple[str | None, frozenset[str]]:
    """The newest revision, and all of them: the files of a running process do not change."""
    scripts = ScriptDirectory(str(ROOT / "migrations"))
    return scripts.get_current_head(), frozenset(script.revision for script in scripts.walk_revisions())


def compare(at: str | None) -> Literal["same", "behind", "ahead"]:
    """A schema's revision against the code's.

    `ahead` is a revision that this code does not know: a newer release has migrated while this one still
    serves. Migrations expand before they enforce, so it may go on.
    """
    newest, known = _revisions()
    if at == newest:
        return "same"
    return "behind" if at is None or at in known else "ahead"


def current(connection: Connection) -> str | None:
    """The schema's revision; None for an empty database."""
    return MigrationContext.configure(connection).get_current_revision()
