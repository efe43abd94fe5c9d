"""The base of all tables, and the conditions that their partial indexes share."""

from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    DateTime,
    MetaData,
    text,
)
from sqlalchemy.orm import DeclarativeBase

from app.db.storable import StorableJson, StorableText
from app.words import (
    BuildState,
    ModelState,
    NotificationState,
    RunState,
)


def one_of(column: str, words: Iterable[StrEnum]) -> str:
    return f"{column} IN ({', '.join(repr(word.value) for word in words)})"


# The conditions of partial indexes. They are constants of the SQL and not parameters: once Postgres plans a
# prepared statement for all parameters, it cannot tell that a condition with parameters is that of an index.
# A query would read the whole table then, and an upsert would fail.
HOLDS_PREFIX = text("builds.kind = 'train' AND builds.state IN ('queued', 'running', 'succeeded')")
ACTIVE_BUILD = text(one_of("builds.state", (state for state in BuildState if state.active)))
UNSUCCESSFUL_BUILD = text(one_of("builds.state", (BuildState.FAILED, BuildState.CANCELLED)))
ACTIVE_REPRODUCTION = text("builds.kind = 'reproduce' AND builds.state IN ('queued', 'running')")
ACTIVE_RUN = text(one_of("runs.state", (state for state in RunState if state.active)))
# The models that garbage collection is at work on. Those that it has collected stay for ever and are many.
BEING_COLLECTED = text(
    one_of("models.state", (state for state in ModelState if state.next and state is not ModelState.KEPT))
)
PENDING_NOTIFICATION = text(f"notifications.state = '{NotificationState.PENDING}'")


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy's own protocol
        datetime: DateTime(timezone=True),
        dict[str, Any]: StorableJson,
        str: StorableText,
    }
