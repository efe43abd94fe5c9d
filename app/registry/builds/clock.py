"""The database's clock, which is the only one that leases, deadlines and records use."""

from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session


def now(session: Session) -> datetime:
    """The current time in UTC, not the time at which the transaction began."""
    at: datetime = session.execute(select(func.clock_timestamp())).scalar_one()
    return at
