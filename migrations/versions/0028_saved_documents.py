"""Add a table for the documents of collected models, which stay readable after their objects are deleted."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0028"
down_revision: str | None = "0027"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "saved_documents",
        sa.Column("model_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["model_id"],
            ["models.id"],
            name=op.f("fk_saved_documents_model_id"),
            ondelete="RESTRICT",
        ),
        sa.PrimaryKeyConstraint("model_id", "name", name=op.f("pk_saved_documents")),
    )


def downgrade() -> None:
    op.drop_table("saved_documents")
