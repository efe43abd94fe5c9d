"""Create the tables of the queue, as the installed queue library defines them.

The library's version is pinned exactly. A comment on its main table says which version made the tables. When
the pin is raised, add a revision that runs the SQL of the library for that step, but only where the comment
names an older version: a new database gets the newest tables from this revision.
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
    # The SQL has many % and :, which SQLAlchemy would take for parameters. So the driver runs it.
    connection = op.get_bind().connection.driver_connection
    assert connection is not None
    connection.execute(SchemaManager.get_schema())
    op.execute(f"COMMENT ON TABLE procrastinate_jobs IS 'procrastinate {version('procrastinate')}'")


def downgrade() -> None:
    connection = op.get_bind()
    for statement in connection.scalars(text(_DROPS)).all():
        op.execute(statement)
