"""Keep a list of the machine images, and let runs delete those that nothing needs."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0035"
down_revision: str | None = "0034"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_BEFORE = "'import', 'reconciliation', 'collection', 'signing'"


def upgrade() -> None:
    op.create_table(
        "image_listings",
        sa.Column("region", sa.Text(), nullable=False),
        sa.Column("listed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("problem", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("region", name=op.f("pk_image_listings")),
    )
    op.create_table(
        "machine_images",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("region", sa.Text(), nullable=False),
        sa.Column("image_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("architecture", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("snapshots", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("tags", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_machine_images")),
        sa.UniqueConstraint("region", "image_id", name=op.f("uq_machine_images_region_image_id")),
    )
    op.create_index(
        "ix_machine_images_newest", "machine_images", [sa.text("created_at DESC"), sa.text("id DESC")]
    )
    _allow(f"{_BEFORE}, 'image_cleaning'")


def downgrade() -> None:
    op.execute("DELETE FROM runs WHERE kind = 'image_cleaning'")
    _allow(_BEFORE)
    op.drop_table("machine_images")
    op.drop_table("image_listings")


def _allow(kinds: str) -> None:
    op.drop_constraint(op.f("ck_runs_kind"), "runs", type_="check")
    op.create_check_constraint(op.f("ck_runs_kind"), "runs", f"kind IN ({kinds})")
