"""Record which inputs garbage collection has deleted, and when a build last put an input into the bucket.

A worker of the release before neither records the beginning of an upload nor waits for a deletion that is
under way. So let no collection run while both releases do.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0032"
down_revision: str | None = "0031"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_COLUMNS = ("upload_begun_at", "sweeping_at", "collected_at")


def upgrade() -> None:
    for name in _COLUMNS:
        op.add_column("inputs", sa.Column(name, sa.DateTime(timezone=True), nullable=True))
    op.create_check_constraint(
        op.f("ck_inputs_collected"), "inputs", "collected_at IS NULL OR sweeping_at IS NOT NULL"
    )
    op.create_index(
        "ix_inputs_sweeping",
        "inputs",
        ["sha256"],
        postgresql_where=sa.text("sweeping_at IS NOT NULL AND collected_at IS NULL"),
    )


def downgrade() -> None:
    op.drop_index("ix_inputs_sweeping", table_name="inputs")
    op.drop_constraint(op.f("ck_inputs_collected"), "inputs", type_="check")
    for name in reversed(_COLUMNS):
        op.drop_column("inputs", name)
