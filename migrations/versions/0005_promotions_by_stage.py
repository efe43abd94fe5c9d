"""a promotion's key begins with its stage

With a key of the id alone, Postgres may read the table from its newest row on until one of the stage comes:
a stage that has not changed for 10,000 promotions of another one then costs 10,000 rows. Now no index is
left that gives promotions in their order without their stage. The identity column keeps ids unique.
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
