"""Record what kind of actor asked for a build or made a promotion.

Existing rows are marked as coming from a token, or from an anonymous caller where no name was recorded.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0011"
down_revision: str | None = "0010"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_KINDS = "IN ('token', 'ci_workflow', 'system', 'anonymous')"


def upgrade() -> None:
    for table, column in (("builds", "requested_by"), ("promotions", "promoted_by")):
        op.add_column(table, sa.Column(f"{column}_kind", sa.Text(), server_default="token", nullable=False))
        # Promotions are append-only. This migration is the only exception.
        if table == "promotions":
            op.execute("ALTER TABLE promotions DISABLE TRIGGER promotions_append_only")
        op.execute(f"UPDATE {table} SET {column}_kind = 'anonymous' WHERE {column} = 'anonymous'")
        if table == "promotions":
            op.execute("ALTER TABLE promotions ENABLE TRIGGER promotions_append_only")
        op.create_check_constraint(op.f(f"ck_{table}_{column}_kind"), table, f"{column}_kind {_KINDS}")


def downgrade() -> None:
    for table, column in (("promotions", "promoted_by"), ("builds", "requested_by")):
        op.drop_constraint(op.f(f"ck_{table}_{column}_kind"), table, type_="check")
        op.drop_column(table, f"{column}_kind")
