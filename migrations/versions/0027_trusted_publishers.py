"""Create the rules by which CI workflows sign in, and the ids of the identity tokens that were used."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0027"
down_revision: str | None = "0026"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_KINDS = "IN ('token', 'ci_workflow', 'system', 'anonymous')"


def upgrade() -> None:
    op.create_table(
        "trusted_publishers",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("repository_id", sa.BigInteger(), nullable=False),
        sa.Column("repository_owner_id", sa.BigInteger(), nullable=False),
        sa.Column("workflow", sa.Text(), nullable=False),
        sa.Column("ref", sa.Text(), nullable=True),
        sa.Column("environment", sa.Text(), nullable=True),
        sa.Column("scopes", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("created_by_kind", sa.Text(), nullable=False),
        sa.CheckConstraint(
            "ref IS NOT NULL OR environment IS NOT NULL", name=op.f("ck_trusted_publishers_limited")
        ),
        sa.CheckConstraint(
            "cardinality(scopes) > 0 AND NOT 'admin' = ANY (scopes)",
            name=op.f("ck_trusted_publishers_scopes"),
        ),
        sa.CheckConstraint(f"created_by_kind {_KINDS}", name=op.f("ck_trusted_publishers_created_by_kind")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_trusted_publishers")),
    )
    op.create_index(
        "ix_trusted_publishers_repository", "trusted_publishers", ["repository_id", "repository_owner_id"]
    )
    op.create_index(
        "ix_trusted_publishers_created",
        "trusted_publishers",
        [sa.text("created_at DESC"), sa.text("id DESC")],
    )
    op.create_table(
        "used_identity_tokens",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_used_identity_tokens")),
    )
    op.create_index("ix_used_identity_tokens_expires", "used_identity_tokens", ["expires_at"])


def downgrade() -> None:
    op.drop_table("used_identity_tokens")
    op.drop_table("trusted_publishers")
