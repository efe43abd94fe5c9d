"""The database's clock, which is the only one that leases, deadlines and records use."""

from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session


def now(session: Session) -> datetime:
    """The time at this moment, not at the transaction's start. In UTC."""
    at: datetime = session.execute(select(func.clock_timestamp())).scalar_one()
    return at
