"""Index builds by branch and by state, and record a failure only as a whole.

Without these indexes, a page of the builds of one branch or state read the whole table of 100,000 builds.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0004"
down_revision: str | None = "0003"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_NEWEST: list[sa.ColumnElement[object]] = [sa.literal_column("created_at DESC"), sa.literal_column("id DESC")]


def upgrade() -> None:
    op.create_index("ix_builds_branch_created", "builds", ["branch", *_NEWEST])
    op.create_index("ix_builds_state_created", "builds", ["state", *_NEWEST])
    op.create_check_constraint(
        op.f("ck_builds_failure_whole"),
        "builds",
        "num_nonnulls(failure_step, failure_code, failure_message) IN (0, 3)",
    )


def downgrade() -> None:
    op.drop_constraint(op.f("ck_builds_failure_whole"), "builds", type_="check")
    op.drop_index("ix_builds_state_created", table_name="builds")
    op.drop_index("ix_builds_branch_created", table_name="builds")
