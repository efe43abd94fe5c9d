"""The queue's own tables, as its installed library makes them.

The library is pinned exactly, and the release whose tables are in place is kept as a comment on the main
one. An upgrade of the pin comes with a further revision: where the comment names an older release (a new
database has the new one from here), it runs the SQL that the library ships for the step, and says so there.
"""

from collections.abc import Sequence
from importlib.metadata import version

from alembic import op
from procrastinate.schema import SchemaManager
from sqlalchemy import text

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

# Tables first, then what only they used; a table's row type goes with the table.
_DROPS = r"""
    SELECT format('DROP TABLE IF EXISTS %I CASCADE', tablename) FROM pg_tables
     WHERE schemaname = current_schema() AND tablename LIKE 'procrastinate\_%'
    UNION ALL
    SELECT format('DROP FUNCTION IF EXISTS %s CASCADE', oid::regprocedure) FROM pg_proc
     WHERE pronamespace = current_schema()::regnamespace AND proname LIKE 'procrastinate\_%'
    UNION ALL
    SELECT format('DROP TYPE IF EXISTS %I CASCADE', typname)
      FROM pg_type t LEFT JOIN pg_class c ON c.oid = t.typrelid
     WHERE typnamespace = current_schema()::regnamespace AND typname LIKE 'procrastinate\_%'
       AND (typtype = 'e' OR c.relkind = 'c')
"""


def upgrade() -> None:
    # On the driver's own cursor: the SQL is full of % and : that SQLAlchemy would read as parameters.
    connection = op.get_bind().connection.driver_connection
    assert connection is not None
    connection.execute(SchemaManager.get_schema())
    op.execute(f"COMMENT ON TABLE procrastinate_jobs IS 'procrastinate {version('procrastinate')}'")


def downgrade() -> None:
    connection = op.get_bind()
    for statement in connection.scalars(text(_DROPS)).all():
        op.execute(statement)
