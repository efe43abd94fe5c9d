"""Remember of which inputs the bucket was found to hold the content, and of which it was not."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0031"
down_revision: str | None = "0030"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("inputs", sa.Column("verified_etag", sa.Text(), nullable=True))
    op.add_column("inputs", sa.Column("missing_since", sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    op.drop_column("inputs", "missing_since")
    op.drop_column("inputs", "verified_etag")
