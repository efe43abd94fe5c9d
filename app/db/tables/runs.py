"""Long pieces of work that a person or the schedule asked for."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Index,
    func,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from app.db.storable import MESSAGE_LIMIT, StorableText
from app.db.tables.base import Base, one_of
from app.words import (
    Actor,
    RunKind,
    RunState,
)


class Run(Base):
    """A long piece of work that a person or the schedule asked for. At most one of each kind is active."""

    __tablename__ = "runs"

    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=func.gen_random_uuid())
    kind: Mapped[str]
    state: Mapped[str] = mapped_column(server_default=RunState.QUEUED.value)
    # What was asked for: the fields of the request.
    options: Mapped[dict[str, Any]]
    requested_by: Mapped[str]
    requested_by_kind: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    stopped_by: Mapped[str | None]

    # `checkpoint` is where the next worker goes on; `progress` and `result` are for readers.
    checkpoint: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))
    progress: Mapped[dict[str, Any] | None]
    result: Mapped[dict[str, Any] | None]
    failure: Mapped[str | None] = mapped_column(StorableText(MESSAGE_LIMIT))

    # The same fence as a build's: every write of a worker checks the epoch that it took the run with.
    lease_epoch: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    lease_expires_at: Mapped[datetime | None]
    takings: Mapped[int] = mapped_column(server_default=text("0"))
    last_error: Mapped[str | None] = mapped_column(StorableText(MESSAGE_LIMIT))

    __table_args__ = (
        CheckConstraint(one_of("kind", RunKind), name="kind"),
        CheckConstraint(one_of("state", RunState), name="state"),
        CheckConstraint(one_of("requested_by_kind", Actor), name="requested_by_kind"),
        CheckConstraint("(state IN ('queued', 'running')) = (finished_at IS NULL)", name="finished"),
        CheckConstraint("(state = 'failed') = (failure IS NOT NULL)", name="failure"),
        Index(
            "uq_runs_kind_active",
            "kind",
            unique=True,
            postgresql_where=text("state IN ('queued', 'running')"),
        ),
        Index("ix_runs_created", text("created_at DESC"), text("id DESC")),
    )
