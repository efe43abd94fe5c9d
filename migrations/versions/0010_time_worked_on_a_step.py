"""Count the time that workers have worked on a step.

Only this time counts for the step's deadline. A step that is running during the upgrade starts with zero.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0010"
down_revision: str | None = "0009"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("build_steps", sa.Column("worked_s", sa.Double(), server_default="0", nullable=False))
    op.add_column("build_steps", sa.Column("resumed_at", sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    op.drop_column("build_steps", "resumed_at")
    op.drop_column("build_steps", "worked_s")
