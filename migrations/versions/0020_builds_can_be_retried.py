"""Record which build another one retries, and which steps were taken over from it.

The request is also an event of the new build. A worker of the release before does not know of retries. As
long as one runs during the upgrade, it deletes the collected files of builds that end, and if it takes a
retry, it trains with the inputs that the bucket's root holds at that time.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0020"
down_revision: str | None = "0019"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_TYPES = (
    "'state', 'step_started', 'step_succeeded', 'step_failed', 'rewound', 'launch_refused',"
    " 'promotion_refused', 'note', 'cancel_requested'"
)


def upgrade() -> None:
    op.add_column("builds", sa.Column("retry_of", sa.Uuid(), nullable=True))
    op.create_foreign_key(
        op.f("fk_builds_retry_of"), "builds", "builds", ["retry_of"], ["id"], ondelete="RESTRICT"
    )
    op.create_index(
        "ix_builds_retry_of", "builds", ["retry_of"], postgresql_where=sa.text("retry_of IS NOT NULL")
    )
    op.add_column("build_steps", sa.Column("taken_over_from", sa.Uuid(), nullable=True))
    op.create_foreign_key(
        op.f("fk_build_steps_taken_over_from"),
        "build_steps",
        "builds",
        ["taken_over_from"],
        ["id"],
        ondelete="RESTRICT",
    )
    op.drop_constraint(op.f("ck_build_events_type"), "build_events", type_="check")
    op.create_check_constraint(
        op.f("ck_build_events_type"), "build_events", f"type IN ({_TYPES}, 'retry_requested')"
    )


def downgrade() -> None:
    op.execute("DELETE FROM build_events WHERE type = 'retry_requested'")
    op.drop_constraint(op.f("ck_build_events_type"), "build_events", type_="check")
    op.create_check_constraint(op.f("ck_build_events_type"), "build_events", f"type IN ({_TYPES})")
    op.drop_constraint(op.f("fk_build_steps_taken_over_from"), "build_steps", type_="foreignkey")
    op.drop_column("build_steps", "taken_over_from")
    op.drop_index("ix_builds_retry_of", table_name="builds")
    op.drop_constraint(op.f("fk_builds_retry_of"), "builds", type_="foreignkey")
    op.drop_column("builds", "retry_of")
