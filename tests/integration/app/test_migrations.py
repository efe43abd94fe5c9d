"""The migrations: they make the schema of the code, can be undone, and can run several at once."""

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from alembic import command
from alembic.script import ScriptDirectory
from procrastinate import __version__ as procrastinate_version
from sqlalchemy import text

from app.db import migrate
from app.db.session import Database

_OBJECTS = """
    SELECT format('%s %s', relkind, relname) FROM pg_class WHERE relnamespace = 'public'::regnamespace
    UNION ALL SELECT format('function %s', proname) FROM pg_proc WHERE pronamespace = 'public'::regnamespace
    UNION ALL SELECT format('type %s', typname) FROM pg_type WHERE typnamespace = 'public'::regnamespace
    UNION ALL SELECT format('trigger %s', tgname) FROM pg_trigger WHERE NOT tgisinternal
    UNION ALL SELECT format('constraint %s %s', conname, pg_get_constraintdef(oid)) FROM pg_constraint
     WHERE connamespace = 'public'::regnamespace
    UNION ALL SELECT indexdef FROM pg_indexes WHERE schemaname = 'public'
    UNION ALL SELECT format('column %s.%s %s %s %s', table_name, column_name, data_type,
                            column_default, is_nullable)
      FROM information_schema.columns WHERE table_schema = 'public'
"""


def objects(database: Database) -> list[str]:
    with psycopg.connect(database.conninfo) as connection:
        return sorted(row[0] for row in connection.execute(_OBJECTS))


@pytest.fixture
def empty(new_database: Callable[[str], str]) -> Database:
    return Database(new_database("template0"))


def test_the_schema_is_the_one_of_the_tables_in_the_code(database: Database) -> None:
    command.check(migrate.alembic_config(database))


def test_down_leaves_nothing_and_up_makes_the_same_again(empty: Database, database: Database) -> None:
    migrate.upgrade(empty)
    assert objects(empty) == objects(database)
    migrate.downgrade(empty, "base")
    left = [name for name in objects(empty) if "alembic_version" not in name]
    assert left == []
    migrate.upgrade(empty)
    assert objects(empty) == objects(database)
    empty.close()


def test_every_revision_can_be_undone_on_its_own(empty: Database) -> None:
    """Down to each revision, the schema is what it was on the way up, and the code says that it is behind."""
    revisions = [
        script.revision for script in ScriptDirectory(str(migrate.ROOT / "migrations")).walk_revisions()
    ]
    on_the_way_up = {}
    for revision in reversed(revisions):
        migrate.upgrade(empty, revision)
        on_the_way_up[revision] = objects(empty)
    for revision in revisions[1:]:
        migrate.downgrade(empty, revision)
        assert objects(empty) == on_the_way_up[revision], revision
        assert migrate.compare(revision) == "behind"
    empty.close()


def test_the_newest_revision_is_that_of_alembic() -> None:
    scripts = ScriptDirectory(str(migrate.ROOT / "migrations"))
    assert migrate.head() == scripts.get_current_head()
    assert {script.revision for script in scripts.walk_revisions()} == migrate._revisions()[1]


def test_keys_of_the_outbox_are_carried_over_in_both_directions(empty: Database) -> None:
    def execute(sql: str) -> None:
        with empty.engine.begin() as connection:
            connection.execute(text(sql))

    def keys() -> list[str]:
        with empty.engine.connect() as connection:
            return list(connection.execute(text("SELECT key FROM outbox ORDER BY key")).scalars())

    migrate.upgrade(empty, "0006")
    execute(
        "INSERT INTO outbox (key, done_at) VALUES"
        " ('a/staging', NULL), ('b/passed', now()), ('a/staging', NULL), ('c/failed', NULL)"
    )
    migrate.upgrade(empty, "0007")
    assert keys() == ["a/staging", "c/failed"]
    migrate.downgrade(empty, "0006")
    assert keys() == ["a/staging", "c/failed"]
    empty.close()


def test_migrators_at_the_same_moment_wait_for_each_other(empty: Database, database: Database) -> None:
    script = "import sys; from app.db import migrate, session; migrate.upgrade(session.Database(sys.argv[1]))"
    migrators = [
        subprocess.Popen(
            [sys.executable, "-c", script, empty.conninfo],
            cwd=migrate.ROOT,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    said = [migrator.communicate(timeout=60)[1] for migrator in migrators]
    assert [migrator.returncode for migrator in migrators] == [0, 0, 0], said
    assert objects(empty) == objects(database)
    empty.close()


def test_threads_of_one_process_can_migrate_side_by_side(empty: Database, database: Database) -> None:
    """Alembic itself is not made for it."""
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(lambda _: migrate.upgrade(empty), range(2)))
    assert objects(empty) == objects(database)
    empty.close()


def test_the_release_that_made_the_queues_tables_is_recorded(database: Database) -> None:
    """When this fails, the pin was changed: add a revision that runs its library's SQL for the step."""
    with database.engine.connect() as connection:
        comment = connection.scalar(text("SELECT obj_description('procrastinate_jobs'::regclass)"))
    assert comment == f"procrastinate {procrastinate_version}" == "procrastinate 3.10.0"
