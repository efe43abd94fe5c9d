"""Create the rules that release models, and record which of them gave a model's release."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0038"
down_revision: str | None = "0037"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_KINDS = "IN ('token', 'ci_workflow', 'system', 'anonymous')"


def upgrade() -> None:
    op.create_table(
        "release_rules",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("versions", sa.Text(), nullable=True),
        sa.Column("branches", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("created_by_kind", sa.Text(), nullable=False),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_by", sa.Text(), nullable=True),
        sa.Column("revoked_by_kind", sa.Text(), nullable=True),
        sa.CheckConstraint("num_nonnulls(versions, branches) > 0", name=op.f("ck_release_rules_limited")),
        sa.CheckConstraint(f"created_by_kind {_KINDS}", name=op.f("ck_release_rules_created_by_kind")),
        sa.CheckConstraint(
            "num_nonnulls(revoked_at, revoked_by, revoked_by_kind) IN (0, 3)",
            name=op.f("ck_release_rules_revoked_whole"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_release_rules")),
    )
    op.create_index(
        "uq_release_rules_active",
        "release_rules",
        ["versions", "branches"],
        unique=True,
        postgresql_where=sa.text("revoked_at IS NULL"),
        postgresql_nulls_not_distinct=True,
    )
    op.create_index(
        "ix_release_rules_created", "release_rules", [sa.text("created_at DESC"), sa.text("id DESC")]
    )
    # Without a constraint that binds it to the release: the release before this one, which may run beside it
    # during an upgrade, withdraws a release and does not know the column.
    op.add_column("models", sa.Column("released_by_rule", sa.Uuid(), nullable=True))
    op.create_foreign_key(
        op.f("fk_models_released_by_rule"),
        "models",
        "release_rules",
        ["released_by_rule"],
        ["id"],
        ondelete="RESTRICT",
    )


def downgrade() -> None:
    op.drop_constraint(op.f("fk_models_released_by_rule"), "models", type_="foreignkey")
    op.drop_column("models", "released_by_rule")
    op.drop_table("release_rules")
