"""Order promotions by time and id, and record which of them are rollbacks.

A promotion that a gate refuses becomes an event of its build. The indexes by id stay, because the release
before this one still uses them while both run.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0015"
down_revision: str | None = "0014"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_EVENTS = "state", "step_started", "step_succeeded", "step_failed", "rewound", "launch_refused"


def upgrade() -> None:
    op.add_column(
        "promotions", sa.Column("rollback", sa.Boolean(), server_default=sa.text("false"), nullable=False)
    )
    newest = [sa.text("promoted_at DESC"), sa.text("id DESC")]
    op.create_index("ix_promotions_stage_newest", "promotions", ["stage", *newest])
    op.create_index("ix_promotions_stage_version_newest", "promotions", ["stage", "version", *newest])
    _events("promotion_refused", "note")


def downgrade() -> None:
    op.execute("UPDATE build_events SET type = 'note' WHERE type = 'promotion_refused'")
    _events("note")
    op.drop_index("ix_promotions_stage_version_newest", table_name="promotions")
    op.drop_index("ix_promotions_stage_newest", table_name="promotions")
    op.drop_column("promotions", "rollback")


def _events(*more: str) -> None:
    op.drop_constraint(op.f("ck_build_events_type"), "build_events", type_="check")
    types = ", ".join(f"'{each}'" for each in (*_EVENTS, *more))
    op.create_check_constraint(op.f("ck_build_events_type"), "build_events", f"type IN ({types})")
