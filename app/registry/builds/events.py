"""Records the events of a build in order, and notifies readers of them."""

import json
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Text, cast, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app.db.storable import MESSAGE_LIMIT, text_of
from app.db.tables import BuildEvent
from app.words import EventType

# When the transaction commits, Postgres sends the notification to everyone who listens on this channel.
CHANNEL = "build_events"


def add(session: Session, build_id: UUID, kind: EventType, data: Mapping[str, object]) -> int:
    """Record an event and notify readers of it. Returns the event's id.

    The caller must hold the lock on the build's row, or have just inserted the row. The ids of a build's
    events are then in the order in which their transactions commit, so a reader who has seen one event has
    seen all earlier ones.
    """
    cut = {
        name: text_of(value, MESSAGE_LIMIT) if isinstance(value, str) else value
        for name, value in data.items()
    }
    event_id = session.execute(
        insert(BuildEvent).values(build_id=build_id, type=kind, data=cut).returning(BuildEvent.id)
    ).scalar_one()
    notify(session, build_id, event_id)
    return event_id


def notification(build_id: ColumnElement[UUID], event_id: ColumnElement[int]) -> ColumnElement[Any]:
    """An SQL expression that tells readers about an event that the same statement has recorded."""
    return func.pg_notify(CHANNEL, cast(func.json_build_object("build", build_id, "event", event_id), Text))


def notify(session: Session, build_id: UUID, event_id: int | None = None) -> None:
    """Tell readers about a new event of the build or, without an event's id, about new progress or log lines.

    The notification has no content, because a payload of 8,000 bytes would abort the transaction.
    """
    payload = json.dumps({"build": str(build_id), "event": event_id})
    session.execute(select(func.pg_notify(CHANNEL, payload)))
