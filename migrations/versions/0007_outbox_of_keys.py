"""Turn the outbox into a list of keys to look at, with a generation for each key.

Before, a row said which marker to write, and remained after that. Now a row says which key to look at again,
and is deleted when the bucket holds what it should. Rows that were not done yet become one row for each key.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0007"
down_revision: str | None = "0006"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def _now(name: str) -> sa.Column[object]:
    return sa.Column(
        name, sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
    )


def upgrade() -> None:
    op.rename_table("outbox", "outbox_before")
    op.drop_index("ix_outbox_due", table_name="outbox_before")
    op.drop_constraint(op.f("pk_outbox"), "outbox_before", type_="primary")
    op.create_table(
        "outbox",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("generation", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        _now("asked_at"),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        _now("next_attempt_at"),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_outbox")),
    )
    op.create_index("ix_outbox_due", "outbox", ["next_attempt_at", "generation"])
    op.execute(
        """
        INSERT INTO outbox (key, asked_at)
        SELECT key, min(created_at) FROM outbox_before WHERE done_at IS NULL GROUP BY key ORDER BY min(id)
        """
    )
    op.drop_table("outbox_before")


def downgrade() -> None:
    op.rename_table("outbox", "outbox_after")
    op.drop_index("ix_outbox_due", table_name="outbox_after")
    op.drop_constraint(op.f("pk_outbox"), "outbox_after", type_="primary")
    op.create_table(
        "outbox",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        _now("created_at"),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        _now("next_attempt_at"),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.Column("done_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outbox")),
    )
    op.create_index(
        "ix_outbox_due", "outbox", ["next_attempt_at", "id"], postgresql_where=sa.text("done_at IS NULL")
    )
    op.execute(
        "INSERT INTO outbox (key, created_at) SELECT key, asked_at FROM outbox_after ORDER BY generation"
    )
    op.drop_table("outbox_after")
