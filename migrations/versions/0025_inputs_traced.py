"""Record more about the inputs: what is known of each use, and the files inside the archives.

A use also has the time at which its build was posted, so that the newest builds that used an input are
found with one index, however many builds used it. A trigger sets it, because the release before, which knows
nothing of it, writes uses too while both run.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0025"
down_revision: str | None = "0024"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_NEWEST: list[str | sa.ColumnElement[str]] = [
    sa.literal_column("build_created_at DESC"),
    sa.literal_column("build_id DESC"),
]


def upgrade() -> None:
    op.create_table(
        "input_parts",
        sa.Column("container", sa.Text(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("lines", sa.BigInteger(), nullable=True),
        sa.CheckConstraint("sha256 ~ '^[0-9a-f]{64}$'", name=op.f("ck_input_parts_sha256")),
        sa.CheckConstraint("size_bytes >= 0", name=op.f("ck_input_parts_size_bytes")),
        sa.ForeignKeyConstraint(
            ["container"],
            ["inputs.sha256"],
            name=op.f("fk_input_parts_container"),
            ondelete="RESTRICT",
        ),
        sa.PrimaryKeyConstraint("container", "path", name=op.f("pk_input_parts")),
    )
    op.create_index("ix_input_parts_sha256", "input_parts", ["sha256"])
    op.create_index("ix_input_parts_path", "input_parts", ["path"])
    op.add_column("inputs", sa.Column("parts_recorded_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("inputs", sa.Column("parts_problem", sa.Text(), nullable=True))
    op.add_column(
        "build_inputs", sa.Column("details", postgresql.JSONB(astext_type=sa.Text()), nullable=True)
    )
    op.add_column("build_inputs", sa.Column("build_created_at", sa.DateTime(timezone=True), nullable=True))
    op.execute(
        """
        CREATE FUNCTION set_build_created_at() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            NEW.build_created_at := (SELECT created_at FROM builds WHERE id = NEW.build_id);
            RETURN NEW;
        END $$
        """
    )
    op.execute(
        """
        CREATE TRIGGER build_inputs_build_created_at BEFORE INSERT ON build_inputs
        FOR EACH ROW EXECUTE FUNCTION set_build_created_at()
        """
    )
    op.execute(
        "UPDATE build_inputs i SET build_created_at = b.created_at FROM builds b WHERE b.id = i.build_id"
    )
    op.alter_column("build_inputs", "build_created_at", nullable=False)
    op.create_index("ix_build_inputs_sha256_newest", "build_inputs", ["sha256", *_NEWEST])
    op.create_index("ix_build_inputs_name_newest", "build_inputs", ["name", *_NEWEST])
    # The index by content and time serves what this one did.
    op.drop_index("ix_build_inputs_sha256", table_name="build_inputs")


def downgrade() -> None:
    op.create_index("ix_build_inputs_sha256", "build_inputs", ["sha256"])
    op.drop_index("ix_build_inputs_name_newest", table_name="build_inputs")
    op.drop_index("ix_build_inputs_sha256_newest", table_name="build_inputs")
    op.execute("DROP TRIGGER build_inputs_build_created_at ON build_inputs")
    op.execute("DROP FUNCTION set_build_created_at()")
    op.drop_column("build_inputs", "build_created_at")
    op.drop_column("build_inputs", "details")
    op.drop_column("inputs", "parts_problem")
    op.drop_column("inputs", "parts_recorded_at")
    op.drop_table("input_parts")
