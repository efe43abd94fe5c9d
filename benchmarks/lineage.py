"""How long the lineage of a model takes, and the first page of the models that an input went into.

    python -m benchmarks.lineage [--models 100000]

Starts an embedded Postgres in a temporary folder and fills it. Of 100,000 models, the oldest 30,000 with a
build were made from one raw data, and the others from about 30 others, one after the other. Each is a zip of
200 files, of which one differs. Asks as the API does, without HTTP. The first answer of each is left out,
because it reads files that Postgres has not read before.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import text
from sqlalchemy.orm import Session

from app.db import migrate
from app.db.session import Database
from app.registry.lineage import graph, uses
from app.registry.lineage.uses import Wanted
from benchmarks.latest import machine
from benchmarks.lists import fill
from local.postgres import EmbeddedPostgres

_TIMES = 15

# `n` is 1 for the oldest build. The oldest 30 % have one raw data, and later ones have others in turn.
_INPUTS = (
    """
    CREATE TEMPORARY TABLE numbered AS
    SELECT build_id, n, CASE WHEN n <= :models * 0.3 THEN 0 ELSE 1 + (n * 50 / :models)::int END AS raw
      FROM (SELECT build_id, row_number() OVER (ORDER BY published_at) AS n FROM models
             WHERE build_id IS NOT NULL) built
    """,
    """
    INSERT INTO inputs (sha256, size_bytes, stored_at, parts_recorded_at)
    SELECT DISTINCT encode(sha256(('raw' || raw)::bytea), 'hex'), 50000000, now(), now() FROM numbered
     UNION ALL
    SELECT encode(sha256(name::bytea), 'hex'), 1000, now(), NULL
      FROM unnest(ARRAY['config', 'benchmark', 'transformer', 'python']) name
    """,
    """
    INSERT INTO input_parts (container, path, sha256, size_bytes, lines)
    SELECT encode(sha256(('raw' || raw)::bytea), 'hex'), format('tradesets/%s.csv', file),
           encode(sha256((CASE file WHEN 0 THEN 'file' || raw ELSE 'file of all ' || file END)::bytea),
                  'hex'), 250000, 5000
      FROM (SELECT DISTINCT raw FROM numbered) contents, generate_series(0, 199) file
    """,
    """
    INSERT INTO build_inputs (build_id, kind, name, sha256, origin)
    SELECT build_id, 'raw_data', 'raw_source_data.zip', encode(sha256(('raw' || raw)::bytea), 'hex'), 's3://b/r'
      FROM numbered
    """,
    """
    INSERT INTO build_inputs (build_id, kind, name, sha256, origin)
    SELECT build_id, kind, name, encode(sha256(name::bytea), 'hex'), 's3://b/x'
      FROM numbered,
           (VALUES ('config', 'config'), ('benchmark_data', 'benchmark'), ('transformer', 'transformer'),
                   ('python_environment', 'python')) used (kind, name)
    """,
    """
    INSERT INTO build_inputs (build_id, kind, name, origin)
    SELECT build_id, 'code', 'training repository', 'git+file:///x@' || build_id FROM numbered
    """,
)


def _digest(database: Database, of: str) -> str:
    with database.engine.connect() as connection:
        found = connection.execute(
            text("SELECT encode(sha256(CAST(:of AS bytea)), 'hex')"), {"of": of.encode()}
        )
        return str(found.scalar_one())


def _measure(database: Database, name: str, ask: Callable[[Session], int]) -> None:
    took, found = [], 0
    for _ in range(_TIMES + 1):
        began = time.perf_counter()
        with database.transaction() as session:
            found = ask(session)
        took.append(1000 * (time.perf_counter() - began))
    print(f"{name:<56} {found:>5} {statistics.median(took[1:]):>9.1f} {max(took[1:]):>9.1f}")


def run(models: int) -> None:
    print(f"machine   {machine()}")
    with tempfile.TemporaryDirectory() as folder, EmbeddedPostgres(Path(folder) / "postgres") as postgres:
        database = Database(postgres.start())
        migrate.upgrade(database)
        fill(database, {"models": models, "builds": models * 2})
        with database.engine.begin() as connection:
            for statement in _INPUTS:
                connection.execute(text(statement), {"models": models} if ":models" in statement else {})
        with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("VACUUM ANALYZE"))
        with database.engine.connect() as connection:
            prefix = str(
                connection.execute(
                    text("SELECT prefix FROM models WHERE origin = 'built' ORDER BY published_at LIMIT 1")
                ).scalar_one()
            )
        print(f"data      {models:,} models, of which the oldest 10 % are imported\n")
        print(f"{'':<56} {'found':>5} {'median ms':>9} {'worst ms':>9}")

        def users(wanted: Wanted) -> Callable[[Session], int]:
            return lambda session: len(uses.find(session, wanted, limit=50).page.items)

        for name, wanted in (
            ("raw data of the oldest models", Wanted(sha256=_digest(database, "raw0"))),
            ("raw data of some models", Wanted(sha256=_digest(database, "raw30"))),
            ("configuration of all models", Wanted(sha256=_digest(database, "config"))),
            ("a file in one raw data, of the oldest models", Wanted(sha256=_digest(database, "file0"))),
            ("a file in every raw data", Wanted(sha256=_digest(database, "file of all 7"))),
            ("name=raw_source_data.zip", Wanted(name="raw_source_data.zip")),
            ("name=tradesets/0.csv", Wanted(name="tradesets/0.csv")),
        ):
            _measure(database, name, users(wanted))
        _measure(database, "lineage of a model", lambda session: len(graph.of_model(session, prefix).nodes))
        database.close()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", type=int, default=100_000)
    run(parser.parse_args().models)


if __name__ == "__main__":
    main()
