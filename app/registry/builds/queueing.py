"""Stores a new build with its first event and its job, in one statement.

CI posts builds from many branches at once, and each statement costs the API's process more time than it costs
Postgres. NOTIFY makes commits wait for each other, which halves what Postgres can store over 16 connections,
but that is still three times what one API process can ask for.
"""

from dataclasses import asdict, dataclass
from uuid import UUID

from sqlalchemy import Select, String, bindparam, exists, insert, literal, select, true
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from app.db.tables import HOLDS_PREFIX, Base, Build, Model
from app.queue import build_job
from app.registry.builds import events
from app.words import Actor, BuildState, EventType, Stage

_BUILDS = Base.metadata.tables["builds"]
_EVENTS = Base.metadata.tables["build_events"]
_LONG = ("search_config", "base_search_config", "thresholds", "validation_report")
_SHOWN = [column for column in _BUILDS.c if column.name not in _LONG]


@dataclass(frozen=True)
class NewBuild:
    """What is stored of a build from the start."""

    prefix: str
    version: str
    sha: str
    branch: str
    search_config: str
    base_search_config: str | None
    thresholds: str | None
    promote_to: Stage | None
    forced: bool
    requested_by: str
    requested_by_kind: Actor
    retry_of: UUID | None = None


def queue(session: Session, new: NewBuild) -> Build | None:
    """Store and enqueue the build. None if there is a model of the prefix, or a build that holds it.

    The build is not part of the session. If another transaction is queueing the same prefix, Postgres waits
    until it commits or rolls back.
    """
    stored = session.execute(_QUEUE, asdict(new)).mappings().one_or_none()
    if stored is None:
        return None
    return Build(**{column.name: stored[column.name] for column in _SHOWN}, steps=[], launches=[])


def _statement() -> Select[tuple[object, ...]]:
    given = {name: bindparam(name, type_=_BUILDS.c[name].type) for name in NewBuild.__dataclass_fields__}
    has_model = exists().where(Model.prefix == given["prefix"])
    made = (
        upsert(_BUILDS)
        .from_select(list(given), select(*given.values()).where(~has_model))
        .on_conflict_do_nothing(index_elements=[_BUILDS.c.prefix], index_where=HOLDS_PREFIX)
        .returning(*_SHOWN)
        .cte("made")
    )
    event = {
        _EVENTS.c.build_id: made.c.id,
        _EVENTS.c.type: literal(EventType.STATE.value, String),
        _EVENTS.c.data: literal({"state": BuildState.QUEUED.value}, _EVENTS.c.data.type),
    }
    noted = (
        insert(_EVENTS).from_select(list(event), select(*event.values())).returning(_EVENTS.c.id).cte("noted")
    )
    return (
        select(*made.c)
        .add_columns(build_job(made.c.id), events.notification(made.c.id, noted.c.id))
        .select_from(made.join(noted, true()))
    )


_QUEUE = _statement()
