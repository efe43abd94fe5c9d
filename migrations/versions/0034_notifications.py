"""Create the table of notifications: what the worker must still tell other systems, and what it has told."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0034"
down_revision: str | None = "0033"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_PENDING = sa.text("state = 'pending'")
_NEWEST: list[str | sa.TextClause] = [sa.text("created_at DESC"), sa.text("id DESC")]
_NOW = sa.text("clock_timestamp()")


def upgrade() -> None:
    op.create_table(
        "notifications",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("message", sa.Uuid(), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("data", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=_NOW, nullable=False),
        sa.Column("state", sa.Text(), server_default="pending", nullable=False),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("next_attempt_at", sa.DateTime(timezone=True), server_default=_NOW, nullable=False),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("state IN ('pending', 'sent', 'failed')", name=op.f("ck_notifications_state")),
        sa.CheckConstraint(
            "(state = 'pending') = (finished_at IS NULL)", name=op.f("ck_notifications_finished")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_notifications")),
    )
    op.create_index("uq_notifications_message_target", "notifications", ["message", "target"], unique=True)
    op.create_index(
        "ix_notifications_due",
        "notifications",
        ["target", "next_attempt_at", "id"],
        postgresql_where=_PENDING,
    )
    op.create_index(
        "ix_notifications_subject", "notifications", ["target", "subject", "id"], postgresql_where=_PENDING
    )
    op.create_index("ix_notifications_created", "notifications", _NEWEST)
    op.create_index("ix_notifications_state_created", "notifications", ["state", *_NEWEST])
    op.create_index("ix_notifications_finished", "notifications", ["state", "finished_at"])


def downgrade() -> None:
    op.drop_table("notifications")
