"""Record with each model which key it was signed with, and when."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0024"
down_revision: str | None = "0023"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "signing_keys",
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("public_key", sa.Text(), nullable=False),
        sa.Column(
            "first_used_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.CheckConstraint("fingerprint ~ '^[0-9a-f]{64}$'", name=op.f("ck_signing_keys_fingerprint")),
        sa.PrimaryKeyConstraint("fingerprint", name=op.f("pk_signing_keys")),
    )
    op.add_column("models", sa.Column("signed_with", sa.Text(), nullable=True))
    op.add_column("models", sa.Column("signed_at", sa.DateTime(timezone=True), nullable=True))
    op.create_foreign_key(
        op.f("fk_models_signed_with_signing_keys"),
        "models",
        "signing_keys",
        ["signed_with"],
        ["fingerprint"],
        ondelete="RESTRICT",
    )
    op.create_check_constraint(
        op.f("ck_models_signed_whole"), "models", "num_nonnulls(signed_with, signed_at) IN (0, 2)"
    )


def downgrade() -> None:
    op.drop_constraint(op.f("ck_models_signed_whole"), "models", type_="check")
    op.drop_constraint(op.f("fk_models_signed_with_signing_keys"), "models", type_="foreignkey")
    op.drop_column("models", "signed_at")
    op.drop_column("models", "signed_with")
    op.drop_table("signing_keys")
