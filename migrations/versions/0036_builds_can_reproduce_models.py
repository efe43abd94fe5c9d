"""Record which model a build reproduces, and what was asked for.

A worker of the release before leaves builds of the kind `reproduce` to newer ones, so nothing else changes
for it.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0036"
down_revision: str | None = "0035"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_CREATED: list[str | sa.ColumnElement[str]] = [
    sa.literal_column("created_at DESC"),
    sa.literal_column("id DESC"),
]


def upgrade() -> None:
    op.add_column("builds", sa.Column("reproduces", sa.Uuid(), nullable=True))
    op.add_column(
        "builds", sa.Column("reproduction_wanted", postgresql.JSONB(astext_type=sa.Text()), nullable=True)
    )
    op.create_foreign_key(
        op.f("fk_builds_reproduces"), "builds", "models", ["reproduces"], ["id"], ondelete="RESTRICT"
    )
    op.create_check_constraint(
        op.f("ck_builds_reproduces"), "builds", "(kind = 'reproduce') = (reproduces IS NOT NULL)"
    )
    op.create_index(
        "uq_builds_reproduces_active",
        "builds",
        ["reproduces"],
        unique=True,
        postgresql_where=sa.text("kind = 'reproduce' AND state IN ('queued', 'running')"),
    )
    op.create_index(
        "ix_builds_reproduces",
        "builds",
        ["reproduces", *_CREATED],
        postgresql_where=sa.text("reproduces IS NOT NULL"),
    )
    op.create_index("ix_builds_kind_created", "builds", ["kind", *_CREATED])


def downgrade() -> None:
    op.execute("DELETE FROM builds WHERE kind = 'reproduce'")
    op.drop_index("ix_builds_kind_created", table_name="builds")
    op.drop_index("ix_builds_reproduces", table_name="builds")
    op.drop_index("uq_builds_reproduces_active", table_name="builds")
    op.drop_constraint(op.f("ck_builds_reproduces"), "builds", type_="check")
    op.drop_constraint(op.f("fk_builds_reproduces"), "builds", type_="foreignkey")
    op.drop_column("builds", "reproduction_wanted")
    op.drop_column("builds", "reproduces")
