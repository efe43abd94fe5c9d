"""Record each request for an instance before it is sent to EC2.

For an instance that a build already has, a launch is recorded from the output of the step that launched it.
A build that is launching its instance during the upgrade finds it by its tag afterwards.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0008"
down_revision: str | None = "0007"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "launches",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("build_id", sa.Uuid(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("region", sa.Text(), nullable=False),
        sa.Column("zone", sa.Text(), nullable=False),
        sa.Column("subnet_id", sa.Text(), nullable=False),
        sa.Column("instance_type", sa.Text(), nullable=False),
        sa.Column("market", sa.Text(), nullable=False),
        sa.Column("client_token", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("instance_id", sa.Text(), nullable=True),
        sa.Column("refusal_code", sa.Text(), nullable=True),
        sa.Column("refusal_message", sa.Text(), nullable=True),
        sa.Column(
            "requested_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("launched_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("market IN ('on_demand', 'spot')", name=op.f("ck_launches_market")),
        sa.CheckConstraint(
            "state IN ('requested', 'launched', 'refused', 'terminated')", name=op.f("ck_launches_state")
        ),
        sa.CheckConstraint(
            "(state IN ('refused', 'terminated')) = (ended_at IS NOT NULL)", name=op.f("ck_launches_ended")
        ),
        sa.CheckConstraint(
            "(state = 'refused') = (refusal_code IS NOT NULL)", name=op.f("ck_launches_refusal")
        ),
        sa.CheckConstraint(
            "state <> 'launched' OR instance_id IS NOT NULL", name=op.f("ck_launches_launched")
        ),
        sa.ForeignKeyConstraint(
            ["build_id"], ["builds.id"], name=op.f("fk_launches_build_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_launches")),
        sa.UniqueConstraint("build_id", "attempt", name=op.f("uq_launches_build_id_attempt")),
        sa.UniqueConstraint("client_token", name=op.f("uq_launches_client_token")),
    )
    op.create_index("ix_launches_alive", "launches", ["region"], postgresql_where=sa.text("ended_at IS NULL"))
    # The instance of a running build. Its token has the older form, and is never sent again.
    op.execute(
        """
        INSERT INTO launches (build_id, attempt, region, zone, subnet_id, instance_type, market, client_token,
                              state, instance_id, requested_at, launched_at, ended_at)
        SELECT s.build_id, 1, s.output->>'region', s.output->>'zone', COALESCE(n.output->>'subnet_id', ''),
               s.output->>'instance_type', 'on_demand', 'before launches were recorded: ' || s.build_id,
               CASE WHEN b.finished_at IS NULL THEN 'launched' ELSE 'terminated' END,
               s.output->>'instance_id', s.started_at, s.finished_at, b.finished_at
          FROM build_steps s
          JOIN builds b ON b.id = s.build_id
          LEFT JOIN build_steps n ON n.build_id = s.build_id AND n.name = 'find_network'
         WHERE s.name = 'launch_instance' AND s.state = 'succeeded'
           AND s.output ?& ARRAY['region', 'zone', 'instance_type', 'instance_id']
        """
    )


def downgrade() -> None:
    op.drop_table("launches")
