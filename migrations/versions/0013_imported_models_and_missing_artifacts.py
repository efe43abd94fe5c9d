"""Allow imported models, and remember artifacts that are missing from the bucket.

An imported model may have no build, no branch and no digests. An older release that runs beside this one goes
on writing models that were built here, for which all of these are known.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0013"
down_revision: str | None = "0012"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("models", sa.Column("origin", sa.Text(), server_default="built", nullable=False))
    op.add_column("models", sa.Column("search_config", sa.Text(), nullable=True))
    op.alter_column("models", "build_id", nullable=True)
    op.alter_column("models", "branch", nullable=True)
    op.create_check_constraint(op.f("ck_models_origin"), "models", "origin IN ('built', 'imported')")
    op.create_check_constraint(
        op.f("ck_models_made"),
        "models",
        "origin = 'imported' OR (build_id IS NOT NULL AND branch IS NOT NULL)",
    )
    op.drop_constraint(op.f("ck_models_verdict"), "models", type_="check")
    op.create_check_constraint(
        op.f("ck_models_verdict"), "models", "verdict IN ('passed', 'failed', 'unknown')"
    )
    op.alter_column("artifacts", "sha256", nullable=True)
    op.add_column("artifacts", sa.Column("verified_etag", sa.Text(), nullable=True))
    op.add_column("artifacts", sa.Column("missing_since", sa.DateTime(timezone=True), nullable=True))
    op.create_index(
        "ix_artifacts_missing",
        "artifacts",
        ["model_id"],
        postgresql_where=sa.text("missing_since IS NOT NULL"),
    )


def downgrade() -> None:
    """Postgres refuses this while there are imported models, which the release before cannot read."""
    op.drop_index("ix_artifacts_missing", table_name="artifacts")
    op.drop_column("artifacts", "missing_since")
    op.drop_column("artifacts", "verified_etag")
    op.alter_column("artifacts", "sha256", nullable=False)
    op.drop_constraint(op.f("ck_models_verdict"), "models", type_="check")
    op.create_check_constraint(op.f("ck_models_verdict"), "models", "verdict IN ('passed', 'failed')")
    op.drop_constraint(op.f("ck_models_made"), "models", type_="check")
    op.drop_constraint(op.f("ck_models_origin"), "models", type_="check")
    op.alter_column("models", "branch", nullable=False)
    op.alter_column("models", "build_id", nullable=False)
    op.drop_column("models", "search_config")
    op.drop_column("models", "origin")
