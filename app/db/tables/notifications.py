"""What the worker must still tell other systems, and what it has told them lately."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, Identity, Index, func, text
from sqlalchemy.orm import Mapped, mapped_column

from app.db.storable import MESSAGE_LIMIT, StorableText
from app.db.tables.base import Base, one_of
from app.words import NotificationState


class Notification(Base):
    """One message to one target. It is written in the transaction of the change that it tells about."""

    __tablename__ = "notifications"

    # Increases with each message about a subject, because whoever writes one holds the subject's lock.
    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    # The same for every target and at every attempt, so that a receiver can tell a repeated message.
    message: Mapped[UUID]
    # Both without a constraint, so that a newer release can add words while an older one runs beside it.
    target: Mapped[str]
    kind: Mapped[str]
    # A prefix, a stage or a run. The messages about one subject are sent in their order.
    subject: Mapped[str]
    data: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    state: Mapped[str] = mapped_column(server_default=NotificationState.PENDING.value)
    # Increases each time a worker takes the message to send it. What a worker reports counts only if no
    # other one has taken the message since.
    attempts: Mapped[int] = mapped_column(server_default=text("0"))
    next_attempt_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    last_error: Mapped[str | None] = mapped_column(StorableText(MESSAGE_LIMIT))
    finished_at: Mapped[datetime | None]

    __table_args__ = (
        CheckConstraint(one_of("state", NotificationState), name="state"),
        CheckConstraint("(state = 'pending') = (finished_at IS NULL)", name="finished"),
        Index("uq_notifications_message_target", "message", "target", unique=True),
        Index(
            "ix_notifications_due",
            "target",
            "next_attempt_at",
            "id",
            postgresql_where=text("state = 'pending'"),
        ),
        Index(
            "ix_notifications_subject",
            "target",
            "subject",
            "id",
            postgresql_where=text("state = 'pending'"),
        ),
        Index("ix_notifications_created", text("created_at DESC"), text("id DESC")),
        Index("ix_notifications_state_created", "state", text("created_at DESC"), text("id DESC")),
        Index("ix_notifications_finished", "state", "finished_at"),
    )
