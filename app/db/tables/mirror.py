"""What the worker must still do so that the bucket mirrors the database."""

from datetime import datetime

from sqlalchemy import (
    BigInteger,
    Identity,
    Index,
    func,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from app.db.tables.base import Base


class Outbox(Base):
    """A key of the bucket that a worker must check. The row is deleted once the bucket is right."""

    __tablename__ = "outbox"

    key: Mapped[str] = mapped_column(primary_key=True)
    # Increases each time the key is asked for again, even if its row was deleted in the meantime.
    generation: Mapped[int] = mapped_column(BigInteger, Identity(always=True))
    asked_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    attempts: Mapped[int] = mapped_column(server_default=text("0"))
    next_attempt_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    last_error: Mapped[str | None]

    __table_args__ = (
        Index("ix_outbox_due", "next_attempt_at", "generation"),
        Index("ix_outbox_prefix", text("split_part(key, '/', 1)")),
    )
