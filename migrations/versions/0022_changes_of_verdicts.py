"""Record with each model who changed its verdict last, and when."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0022"
down_revision: str | None = "0021"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("models", sa.Column("verdict_changed_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("models", sa.Column("verdict_changed_by", sa.Text(), nullable=True))
    op.add_column("models", sa.Column("verdict_changed_by_kind", sa.Text(), nullable=True))
    op.create_check_constraint(
        op.f("ck_models_verdict_change_whole"),
        "models",
        "num_nonnulls(verdict_changed_at, verdict_changed_by, verdict_changed_by_kind) IN (0, 3)",
    )


def downgrade() -> None:
    op.drop_constraint(op.f("ck_models_verdict_change_whole"), "models", type_="check")
    op.drop_column("models", "verdict_changed_by_kind")
    op.drop_column("models", "verdict_changed_by")
    op.drop_column("models", "verdict_changed_at")
