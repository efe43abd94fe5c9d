"""The outbox: changes of the bucket that committed changes of the database ask for."""

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.db.tables import Outbox


@dataclass(frozen=True)
class Due:
    """A marker to be written."""

    id: int
    key: str


def due(session: Session, limit: int = 100) -> list[Due]:
    """What is to be carried out by now, oldest first."""
    rows = session.scalars(
        select(Outbox)
        .where(Outbox.done_at.is_(None), Outbox.next_attempt_at <= func.clock_timestamp())
        .order_by(Outbox.next_attempt_at, Outbox.id)
        .limit(limit)
    )
    return [Due(row.id, row.key) for row in rows]


def done(session: Session, id_: int) -> None:
    row = session.get_one(Outbox, id_, with_for_update=True)
    row.done_at = row.done_at or session.scalar(select(func.clock_timestamp()))


def failed(session: Session, id_: int, error: str) -> timedelta:
    """Put the change off, ever longer up to five minutes; returns for how long."""
    row = session.get_one(Outbox, id_, with_for_update=True)
    wait = timedelta(seconds=min(300, 2 ** min(row.attempts, 9)))
    row.attempts += 1
    row.last_error = error
    row.next_attempt_at = session.execute(select(func.clock_timestamp())).scalar_one() + wait
    return wait
