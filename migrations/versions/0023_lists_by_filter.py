"""Add the indexes that lists need for their filters.

The index by time now also holds what a search for a text looks at, so that the search reads this index alone
and not the whole table, which is more than ten times as large.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0023"
down_revision: str | None = "0022"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_CREATED: list[str | sa.ColumnElement[str]] = [
    sa.literal_column("created_at DESC"),
    sa.literal_column("id DESC"),
]
_PUBLISHED: list[str | sa.ColumnElement[str]] = [
    sa.literal_column("published_at DESC"),
    sa.literal_column("id DESC"),
]


def upgrade() -> None:
    op.create_index("ix_builds_version_created", "builds", ["version", *_CREATED])
    op.create_index("ix_builds_listed", "builds", _CREATED, postgresql_include=["prefix", "branch", "state"])
    op.drop_index("ix_builds_created", table_name="builds")
    op.create_index("ix_models_verdict_published", "models", ["verdict", *_PUBLISHED])
    op.create_index("ix_models_origin_published", "models", ["origin", *_PUBLISHED])
    op.create_index(
        "ix_models_listed",
        "models",
        _PUBLISHED,
        postgresql_include=["prefix", "branch", "verdict"],
    )
    op.drop_index("ix_models_published", table_name="models")
    op.create_index(
        "ix_audit_action", "audit", ["action", sa.literal_column("at DESC"), sa.literal_column("id DESC")]
    )


def downgrade() -> None:
    op.drop_index("ix_audit_action", table_name="audit")
    op.create_index("ix_models_published", "models", _PUBLISHED)
    op.drop_index("ix_models_listed", table_name="models")
    op.drop_index("ix_models_origin_published", table_name="models")
    op.drop_index("ix_models_verdict_published", table_name="models")
    op.create_index("ix_builds_created", "builds", _CREATED)
    op.drop_index("ix_builds_listed", table_name="builds")
    op.drop_index("ix_builds_version_created", table_name="builds")
