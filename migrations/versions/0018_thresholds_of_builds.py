"""Keep with each build the thresholds that decide about its model.

A worker of the release before does not read them: what it validates is judged by the registry's own rules.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0018"
down_revision: str | None = "0017"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("builds", sa.Column("thresholds", sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("builds", "thresholds")
