"""Create the tokens that administrators give out."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0019"
down_revision: str | None = "0018"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_KINDS = "IN ('token', 'ci_workflow', 'system', 'anonymous')"


def upgrade() -> None:
    newest = [sa.text("created_at DESC"), sa.text("id DESC")]
    op.create_table(
        "tokens",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), server_default="token", nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("starts_with", sa.Text(), nullable=False),
        sa.Column("scopes", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("created_by_kind", sa.Text(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_by", sa.Text(), nullable=True),
        sa.Column("revoked_by_kind", sa.Text(), nullable=True),
        sa.Column("holds_name", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.CheckConstraint(f"kind {_KINDS}", name=op.f("ck_tokens_kind")),
        sa.CheckConstraint(f"created_by_kind {_KINDS}", name=op.f("ck_tokens_created_by_kind")),
        sa.CheckConstraint("digest ~ '^[0-9a-f]{64}$'", name=op.f("ck_tokens_digest")),
        sa.CheckConstraint("cardinality(scopes) > 0", name=op.f("ck_tokens_scopes")),
        sa.CheckConstraint("expires_at > created_at", name=op.f("ck_tokens_expires")),
        sa.CheckConstraint(
            "num_nonnulls(revoked_at, revoked_by, revoked_by_kind) IN (0, 3)",
            name=op.f("ck_tokens_revoked_whole"),
        ),
        sa.CheckConstraint("revoked_at IS NULL OR NOT holds_name", name=op.f("ck_tokens_revoked_name")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tokens")),
        sa.UniqueConstraint("digest", name=op.f("uq_tokens_digest")),
    )
    op.create_index(
        "uq_tokens_name_held", "tokens", ["name"], unique=True, postgresql_where=sa.text("holds_name")
    )
    op.create_index("ix_tokens_created", "tokens", newest)
    op.create_index("ix_tokens_name_created", "tokens", ["name", *newest])


def downgrade() -> None:
    op.drop_table("tokens")
