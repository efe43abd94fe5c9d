"""Stores a new build with its first event and its job, in one statement.

CI posts builds from many branches at once, and each statement costs the API's process more time than it costs
Postgres. NOTIFY makes commits wait for each other, which halves what Postgres can store over 16 connections,
but that is still three times what one API process can ask for.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Select, String, bindparam, exists, insert, literal, select, true
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from app.db.tables import ACTIVE_REPRODUCTION, HOLDS_PREFIX, Base, Build, Model
from app.queue import build_job
from app.registry.builds import events
from app.words import Actor, BuildKind, BuildState, EventType, Stage

_BUILDS = Base.metadata.tables["builds"]
_EVENTS = Base.metadata.tables["build_events"]
_LONG = ("search_config", "base_search_config", "thresholds", "validation_report")
_SHOWN = [column for column in _BUILDS.c if column.name not in _LONG]


@dataclass(frozen=True)
class NewBuild:
    """What is stored of a build from the start. One that reproduces a model names it, and what is wanted."""

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
    kind: BuildKind = BuildKind.TRAIN
    reproduces: UUID | None = None
    reproduction_wanted: Mapping[str, Any] | None = None


def queue(session: Session, new: NewBuild) -> Build | None:
    """Store and enqueue the build. None if another one is in its way.

    For a build that trains, that is a model of the prefix, or a build that holds it; for one that reproduces
    a model, another active one of the same model. The build is not part of the session. If another
    transaction is queueing the same, Postgres waits until it commits or rolls back.
    """
    statement = _QUEUE if new.kind is BuildKind.TRAIN else _QUEUE_REPRODUCTION
    stored = session.execute(statement, asdict(new)).mappings().one_or_none()
    if stored is None:
        return None
    return Build(**{column.name: stored[column.name] for column in _SHOWN}, steps=[], launches=[])


def _statement(kind: BuildKind) -> Select[tuple[object, ...]]:
    given = {name: bindparam(name, type_=_BUILDS.c[name].type) for name in NewBuild.__dataclass_fields__}
    values = select(*given.values())
    if kind is BuildKind.TRAIN:
        values = values.where(~exists().where(Model.prefix == given["prefix"]))
        column, condition = _BUILDS.c.prefix, HOLDS_PREFIX
    else:
        column, condition = _BUILDS.c.reproduces, ACTIVE_REPRODUCTION
    made = (
        upsert(_BUILDS)
        .from_select(list(given), values)
        .on_conflict_do_nothing(index_elements=[column], index_where=condition)
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


_QUEUE = _statement(BuildKind.TRAIN)
_QUEUE_REPRODUCTION = _statement(BuildKind.REPRODUCE)
