"""Record who asked for the cancellation of a build, and when.

The request is also an event of the build. A worker of the release before does not know of cancellations. If
it takes a cancelled build during the upgrade, it goes on with it until a worker of this release takes it.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0016"
down_revision: str | None = "0015"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_TYPES = (
    "'state', 'step_started', 'step_succeeded', 'step_failed', 'rewound', 'launch_refused',"
    " 'promotion_refused', 'note'"
)


def upgrade() -> None:
    op.add_column("builds", sa.Column("cancel_requested_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("builds", sa.Column("cancel_requested_by", sa.Text(), nullable=True))
    op.add_column("builds", sa.Column("cancel_requested_by_kind", sa.Text(), nullable=True))
    op.create_check_constraint(
        op.f("ck_builds_cancel_whole"),
        "builds",
        "num_nonnulls(cancel_requested_at, cancel_requested_by, cancel_requested_by_kind) IN (0, 3)",
    )
    op.drop_constraint(op.f("ck_build_events_type"), "build_events", type_="check")
    op.create_check_constraint(
        op.f("ck_build_events_type"), "build_events", f"type IN ({_TYPES}, 'cancel_requested')"
    )


def downgrade() -> None:
    op.execute("DELETE FROM build_events WHERE type = 'cancel_requested'")
    op.drop_constraint(op.f("ck_build_events_type"), "build_events", type_="check")
    op.create_check_constraint(op.f("ck_build_events_type"), "build_events", f"type IN ({_TYPES})")
    op.drop_constraint(op.f("ck_builds_cancel_whole"), "builds", type_="check")
    op.drop_column("builds", "cancel_requested_by_kind")
    op.drop_column("builds", "cancel_requested_by")
    op.drop_column("builds", "cancel_requested_at")
