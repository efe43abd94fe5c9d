"""Let runs sign models."""

from collections.abc import Sequence

from alembic import op

revision: str = "0029"
down_revision: str | None = "0028"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_BEFORE = "'import', 'reconciliation', 'collection'"


def upgrade() -> None:
    _allow(f"{_BEFORE}, 'signing'")


def downgrade() -> None:
    op.execute("DELETE FROM runs WHERE kind = 'signing'")
    _allow(_BEFORE)


def _allow(kinds: str) -> None:
    op.drop_constraint(op.f("ck_runs_kind"), "runs", type_="check")
    op.create_check_constraint(op.f("ck_runs_kind"), "runs", f"kind IN ({kinds})")
