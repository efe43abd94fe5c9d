"""Give builds a kind and events, and steps a checkpoint and a row from their start.

Steps that have not started or were skipped have no row any more: readers derive them from the flow. What a
running step had done so far was stored as its output. It moves to its checkpoint.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0006"
down_revision: str | None = "0005"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

# The flow that the steps' positions came from, for the way back.
_POSITIONS = (
    "needs_model",
    "find_image",
    "find_network",
    "launch_instance",
    "await_address",
    "await_ready",
    "fetch_key",
    "validate_connection",
    "bring_code",
    "load_inputs",
    "train",
    "benchmark",
    "collect",
    "terminate_instance",
    "validate",
    "publish",
)


def upgrade() -> None:
    op.add_column("builds", sa.Column("kind", sa.Text(), server_default="train", nullable=False))
    op.create_check_constraint(op.f("ck_builds_kind"), "builds", "kind IN ('train', 'reproduce')")
    op.drop_index("uq_builds_prefix_live", table_name="builds")
    op.create_index(
        "uq_builds_prefix_live",
        "builds",
        ["prefix"],
        unique=True,
        postgresql_where=sa.text("kind = 'train' AND state IN ('queued', 'running', 'succeeded')"),
    )

    op.create_table(
        "build_events",
        sa.Column("build_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column(
            "at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("data", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.CheckConstraint(
            "type IN ('state', 'step_started', 'step_succeeded', 'step_failed', 'rewound', 'launch_refused',"
            " 'note')",
            name=op.f("ck_build_events_type"),
        ),
        sa.ForeignKeyConstraint(
            ["build_id"], ["builds.id"], name=op.f("fk_build_events_build_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("build_id", "id", name=op.f("pk_build_events")),
    )

    op.add_column("build_steps", sa.Column("checkpoint", postgresql.JSONB(astext_type=sa.Text())))
    op.execute("DELETE FROM build_steps WHERE started_at IS NULL OR state IN ('pending', 'skipped')")
    op.execute("UPDATE build_steps SET checkpoint = output, output = NULL WHERE state = 'running'")
    op.drop_constraint(op.f("uq_build_steps_build_id_position"), "build_steps", type_="unique")
    op.drop_column("build_steps", "position")
    op.alter_column("build_steps", "state", server_default=None)
    op.alter_column("build_steps", "attempts", server_default=None)
    op.alter_column("build_steps", "started_at", nullable=False)
    op.drop_constraint(op.f("ck_build_steps_state"), "build_steps", type_="check")
    op.create_check_constraint(
        op.f("ck_build_steps_state"), "build_steps", "state IN ('running', 'succeeded', 'failed')"
    )


def downgrade() -> None:
    op.drop_constraint(op.f("ck_build_steps_state"), "build_steps", type_="check")
    op.create_check_constraint(
        op.f("ck_build_steps_state"),
        "build_steps",
        "state IN ('pending', 'running', 'succeeded', 'failed', 'skipped')",
    )
    op.alter_column("build_steps", "started_at", nullable=True)
    op.alter_column("build_steps", "attempts", server_default="0")
    op.alter_column("build_steps", "state", server_default="pending")
    op.add_column("build_steps", sa.Column("position", sa.Integer()))
    positions = ", ".join(f"('{name}', {at})" for at, name in enumerate(_POSITIONS, start=1))
    op.execute(
        f"""
        INSERT INTO build_steps (build_id, name, state)
        SELECT b.id, f.name, CASE WHEN b.finished_at IS NULL THEN 'pending' ELSE 'skipped' END
          FROM builds b CROSS JOIN (VALUES {positions}) AS f (name, position)
         WHERE NOT EXISTS (SELECT FROM build_steps s WHERE s.build_id = b.id AND s.name = f.name)
        """
    )
    op.execute(
        f"""
        UPDATE build_steps s SET position = f.position
          FROM (VALUES {positions}) AS f (name, position) WHERE f.name = s.name
        """
    )
    op.execute("DELETE FROM build_steps WHERE position IS NULL")
    op.execute("UPDATE build_steps SET output = checkpoint WHERE state = 'running'")
    op.alter_column("build_steps", "position", nullable=False)
    op.create_unique_constraint(
        op.f("uq_build_steps_build_id_position"), "build_steps", ["build_id", "position"]
    )
    op.drop_column("build_steps", "checkpoint")
    op.drop_table("build_events")
    op.drop_index("uq_builds_prefix_live", table_name="builds")
    # Builds that the older schema does not know cannot be kept.
    op.execute("DELETE FROM builds WHERE kind <> 'train'")
    op.create_index(
        "uq_builds_prefix_live",
        "builds",
        ["prefix"],
        unique=True,
        postgresql_where=sa.text("state IN ('queued', 'running', 'succeeded')"),
    )
    op.drop_constraint(op.f("ck_builds_kind"), "builds", type_="check")
    op.drop_column("builds", "kind")
