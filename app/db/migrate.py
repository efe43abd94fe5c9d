"""Migrates the schema, one migrator at a time, and compares the schema with the code."""

import re
import threading
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from sqlalchemy import Connection, text

from app.db.session import Database

# Alembic is imported where it is used, because it would take a tenth of the time that the API needs to start.
if TYPE_CHECKING:
    from alembic.config import Config

ROOT = Path(__file__).resolve().parents[2]
# Alembic keeps its state in globals, so only one thread may use it. Other processes wait for a database lock.
_alembic = threading.Lock()

# How a migration says which one it is, and which one it follows.
_REVISION = re.compile(r"""^(revision|down_revision)\b[^=\n]*= (?:"(\w+)"|None)$""", re.MULTILINE)


def alembic_config(database: Database) -> "Config":
    from alembic.config import Config  # noqa: PLC0415

    config = Config(ROOT / "alembic.ini")
    config.set_main_option("script_location", str(ROOT / "migrations"))
    config.attributes["database"] = database
    return config


def upgrade(database: Database, revision: str = "head") -> None:
    """Upgrade the schema to a revision. Concurrent upgrades wait for each other."""
    from alembic import command  # noqa: PLC0415

    with _alembic:
        command.upgrade(alembic_config(database), revision)


def downgrade(database: Database, revision: str) -> None:
    from alembic import command  # noqa: PLC0415

    with _alembic:
        command.downgrade(alembic_config(database), revision)


def head() -> str | None:
    """The revision that this code was written for."""
    return _revisions()[0]


@lru_cache(maxsize=1)
def _revisions() -> tuple[str | None, frozenset[str]]:
    """The newest revision, and all revisions. They do not change while the process runs.

    They are read from the files, because every process asks for them, and Alembic and the migrations take
    10 MiB of memory.
    """
    follows = {}
    for file in (ROOT / "migrations" / "versions").glob("*.py"):
        found = dict(_REVISION.findall(file.read_text(encoding="utf-8")))
        follows[found["revision"]] = found["down_revision"]
    newest = follows.keys() - set(follows.values())
    return max(newest, default=None), frozenset(follows)


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
    if connection.scalar(text("SELECT to_regclass('alembic_version')")) is None:
        return None
    revision: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return revision
