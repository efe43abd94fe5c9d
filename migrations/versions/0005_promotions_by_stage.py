"""Begin the primary key of promotions with the stage.

With a key that is only the id, Postgres may look for a stage's newest promotion by reading the table
backwards, which takes 10,000 rows if another stage had the last 10,000 promotions. Now every index that has
promotions in their order begins with the stage. The identity column keeps the ids unique.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0005"
down_revision: str | None = "0004"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.drop_constraint(op.f("pk_promotions"), "promotions", type_="primary")
    op.create_primary_key(op.f("pk_promotions"), "promotions", ["stage", "id"])
    op.drop_index("ix_promotions_stage_latest", table_name="promotions")


def downgrade() -> None:
    op.create_index("ix_promotions_stage_latest", "promotions", ["stage", sa.literal_column("id DESC")])
    op.drop_constraint(op.f("pk_promotions"), "promotions", type_="primary")
    op.create_primary_key(op.f("pk_promotions"), "promotions", ["id"])
