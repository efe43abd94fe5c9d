"""Record more kinds of inputs, and what a Python environment consists of."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0030"
down_revision: str | None = "0029"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_BEFORE = (
    "code",
    "config",
    "raw_data",
    "additional_source",
    "benchmark_data",
    "machine_image",
    "transformer",
    "python_environment",
)
_MORE = ("reference_data", "thresholds", "hardware", "determinism")


def upgrade() -> None:
    _kinds(*_BEFORE, *_MORE)
    op.add_column("inputs", sa.Column("content", postgresql.JSONB(astext_type=sa.Text()), nullable=True))


def downgrade() -> None:
    op.drop_column("inputs", "content")
    op.execute(f"DELETE FROM build_inputs WHERE kind IN ({_listed(*_MORE)})")
    _kinds(*_BEFORE)


def _kinds(*kinds: str) -> None:
    op.drop_constraint(op.f("ck_build_inputs_kind"), "build_inputs", type_="check")
    op.create_check_constraint(op.f("ck_build_inputs_kind"), "build_inputs", f"kind IN ({_listed(*kinds)})")


def _listed(*words: str) -> str:
    return ", ".join(f"'{word}'" for word in words)
