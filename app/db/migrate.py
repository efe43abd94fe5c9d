"""Migrates the schema, one migrator at a time, and compares the schema with the code."""

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
# Alembic keeps its state in globals, so only one thread may use it. Other processes wait for a database lock.
_alembic = threading.Lock()


def alembic_config(database: Database) -> Config:
    config = Config(ROOT / "alembic.ini")
    config.set_main_option("script_location", str(ROOT / "migrations"))
    config.attributes["database"] = database
    return config


def upgrade(database: Database, revision: str = "head") -> None:
    """Upgrade the schema to a revision. Concurrent upgrades wait for each other."""
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
    """The newest revision, and all revisions. They do not change while the process runs."""
    scripts = ScriptDirectory(str(ROOT / "migrations"))
    return scripts.get_current_head(), frozenset(script.revision for script in scripts.walk_revisions())


def compare(at: str | None) -> Literal["same", "behind", "ahead"]:
    """Compare a schema's revision with the newest one that this code knows.

    `ahead` means that this code does not know the revision, because a newer release has migrated the database
    while this one still runs. It may go on, because migrations expand before they enforce.
    """
    newest, known = _revisions()
    if at == newest:
        return "same"
    return "behind" if at is None or at in known else "ahead"


def current(connection: Connection) -> str | None:
    """The schema's revision; None for an empty database."""
    return MigrationContext.configure(connection).get_current_revision()
