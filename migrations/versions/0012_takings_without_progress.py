"""Count how often workers have taken a build without getting it any further.

An error that stops every worker must end the build, with its instance, after a limited number of tries.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0012"
down_revision: str | None = "0011"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("builds", sa.Column("takings", sa.Integer(), server_default="0", nullable=False))
    op.add_column("builds", sa.Column("last_error", sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("builds", "last_error")
    op.drop_column("builds", "takings")
