"""Give inputs a table of their own, and record which build used which input in which role.

An input that the registry keeps in the bucket is recorded before it is put there, and marked as stored
afterwards.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0009"
down_revision: str | None = "0008"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "inputs",
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=True),
        sa.Column(
            "recorded_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("stored_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("sha256 ~ '^[0-9a-f]{64}$'", name=op.f("ck_inputs_sha256")),
        sa.CheckConstraint("size_bytes >= 0", name=op.f("ck_inputs_size_bytes")),
        sa.PrimaryKeyConstraint("sha256", name=op.f("pk_inputs")),
    )
    # Data and snapshots are in the bucket under their digest. Of other inputs, only the digest is known.
    op.execute(
        """
        INSERT INTO inputs (sha256, size_bytes, recorded_at, stored_at)
        SELECT i.sha256, max(i.size_bytes), min(b.created_at),
               CASE WHEN bool_or(i.kind IN ('raw_data', 'benchmark_data', 'additional_source')
                                 AND b.state = 'succeeded')
                    THEN min(b.created_at) END
          FROM build_inputs i JOIN builds b ON b.id = i.build_id
         WHERE i.sha256 IS NOT NULL
         GROUP BY i.sha256
        """
    )
    op.drop_constraint(op.f("ck_build_inputs_sha256"), "build_inputs", type_="check")
    op.create_foreign_key(
        op.f("fk_build_inputs_sha256"), "build_inputs", "inputs", ["sha256"], ["sha256"], ondelete="RESTRICT"
    )
    op.drop_column("build_inputs", "size_bytes")


def downgrade() -> None:
    op.add_column("build_inputs", sa.Column("size_bytes", sa.BigInteger(), nullable=True))
    op.execute("UPDATE build_inputs b SET size_bytes = i.size_bytes FROM inputs i WHERE i.sha256 = b.sha256")
    op.drop_constraint(op.f("fk_build_inputs_sha256"), "build_inputs", type_="foreignkey")
    op.create_check_constraint(
        op.f("ck_build_inputs_sha256"), "build_inputs", "sha256 IS NULL OR sha256 ~ '^[0-9a-f]{64}$'"
    )
    op.drop_table("inputs")
