"""How long the first page of each list takes, for filters that people use and for filters that match nothing.

    python -m benchmarks.lists [--models 100000] [--builds 200000] [--explain TEXT]

Starts an embedded Postgres in a temporary folder, fills it, and asks for a page of 50 items as the API does,
without HTTP. The first answer of each is left out, because it reads files that Postgres has not read before.
`--explain` shows the plans of the cases whose name contains the text, instead of times.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sqlalchemy import event, text
from sqlalchemy.orm import Session

from app.db import migrate
from app.db.session import Database
from app.registry.access import audit
from app.registry.builds import listing
from app.registry.models import catalogue
from app.registry.pages import Page, Search
from app.registry.runs import lifecycle
from app.registry.stages import history
from app.words import AuditAction, BuildState, Origin, RunKind, RunState, Stage, Verdict
from benchmarks.latest import machine
from local.postgres import EmbeddedPostgres

_TIMES = 7

# Builds and models of two years, the newest first. Half of the models' builds had a failed one before them.
_FILL = (
    """
    INSERT INTO builds (prefix, version, sha, branch, search_config, requested_by, state, created_at,
                        finished_at, failure_step, failure_code, failure_message)
    SELECT v || '-' || left(sha, 7), v, sha,
           CASE WHEN n % 10 = 0 THEN 'main'
                ELSE format('feature/%s-%s', left(md5((n / 50)::text), 6), n / 50) END,
           repeat(md5(n::text) || E' = 1\\n', 30), 'ci', state, at, at,
           CASE state WHEN 'failed' THEN 'train' END, CASE state WHEN 'failed' THEN 'out_of_memory' END,
           CASE state WHEN 'failed' THEN 'Take a larger machine.' END
      FROM (SELECT n, format('1.%s.%s', n / 400, n / 4 % 100) AS v,
                   md5(n::text) || left(md5(n::text), 8) AS sha,
                   now() - interval '2 years' * n / (:models + 1) AS at
              FROM generate_series(1, :models) n) made
      CROSS JOIN unnest(CASE WHEN n % 50 = 0 THEN ARRAY['succeeded', 'cancelled']
                             ELSE ARRAY['succeeded', 'failed'] END) state
     LIMIT :builds
    """,
    """
    INSERT INTO models (prefix, version, sha, branch, origin, build_id, metrics, verdict, verdict_reason,
                        published_at)
    SELECT prefix, version, sha, CASE WHEN n <= :models * 0.9 THEN branch END,
           CASE WHEN n <= :models * 0.9 THEN 'built' ELSE 'imported' END,
           CASE WHEN n <= :models * 0.9 THEN id END,
           jsonb_build_object('everyday', jsonb_build_object('count', 200, 'top_1', 0.5, 'top_5', 0.8,
                              'no_result', 0.05), 'hard', jsonb_build_object('count', 200, 'top_1', 0.4)),
           CASE WHEN n % 100 = 7 THEN 'failed' WHEN n > :models * 0.9 THEN 'unknown' ELSE 'passed' END,
           'none of 2 common benchmarks fell by more than 2.0%', created_at
      FROM (SELECT *, row_number() OVER (ORDER BY created_at DESC) AS n FROM builds
             WHERE state = 'succeeded') numbered
    """,
    """
    INSERT INTO artifacts (model_id, name, key, sha256, size_bytes, content_type)
    SELECT id, name, prefix || '/' || name, repeat('a', 64), 50000000, 'application/octet-stream'
      FROM models, unnest(ARRAY['model.zip', 'search-config.toml', 'benchmark_results.zip']) name
    """,
    # A failed model only gets to development. One of fifty that passed gets to production.
    """
    INSERT INTO promotions (model_id, version, stage, promoted_by, promoted_at)
    SELECT id, version, stage, 'deploy', published_at
      FROM (SELECT *, row_number() OVER (ORDER BY published_at) AS n FROM models) numbered
      JOIN (VALUES ('development', 2), ('staging', 10), ('production', 50)) AS kinds (stage, every)
        ON n % every = 0 AND (verdict <> 'failed' OR stage = 'development')
    """,
    """
    INSERT INTO audit (at, who, kind, action, subject)
    SELECT created_at, CASE WHEN id::text < '1' THEN 'deploy' ELSE 'ci' END, 'token', 'build_requested',
           prefix
      FROM builds
    """,
    """
    INSERT INTO runs (kind, state, options, requested_by, requested_by_kind, created_at, finished_at)
    SELECT CASE WHEN n % 500 = 0 THEN 'import' ELSE 'reconciliation' END, 'succeeded', '{}', 'schedule',
           'system', now() - interval '1 day' * n, now() - interval '1 day' * n
      FROM generate_series(1, 2000) n
    """,
)
_SETTLE = ("VACUUM ANALYZE", "CHECKPOINT")

List = Callable[[Session], Page[Any]]


@dataclass(frozen=True)
class Case:
    name: str
    ask: List


def cases() -> Iterator[Case]:
    ago = datetime.now(UTC) - timedelta(days=365)
    week = Search(since=ago, until=ago + timedelta(days=7))
    no_time = Search(since=ago + timedelta(days=3650))
    for name, ask in (
        ("builds", partial(listing.find)),
        ("builds state=failed", partial(listing.find, state=BuildState.FAILED)),
        ("builds state=running (none)", partial(listing.find, state=BuildState.RUNNING)),
        ("builds branch=main", partial(listing.find, branch="main")),
        ("builds branch=nowhere", partial(listing.find, branch="nowhere")),
        ("builds version=1.100.7", partial(listing.find, version="1.100.7")),
        ("builds version=9.9.9 (none)", partial(listing.find, version="9.9.9")),
        ("builds version, state (none)", partial(listing.find, version="1.1.1", state=BuildState.RUNNING)),
        (
            "builds branch=main, state=cancelled",
            partial(listing.find, branch="main", state=BuildState.CANCELLED),
        ),
        ("builds branch=main, state=queued", partial(listing.find, branch="main", state=BuildState.QUEUED)),
        ("builds of a week a year ago", partial(listing.find, search=week)),
        ("builds since next year (none)", partial(listing.find, search=no_time)),
        ("builds q=feature", partial(listing.find, search=Search("feature"))),
        ("builds q=-1999 (old)", partial(listing.find, search=Search("-1999"))),
        ("builds q=zzz (none)", partial(listing.find, search=Search("zzz"))),
        (
            "builds q=zzz, state=failed (none)",
            partial(listing.find, state=BuildState.FAILED, search=Search("zzz")),
        ),
        (
            "builds q=zzz of a week (none)",
            partial(listing.find, search=Search("zzz", week.since, week.until)),
        ),
        ("models", partial(catalogue.find)),
        ("models version=1.100.7", partial(catalogue.find, version="1.100.7")),
        ("models version=9.9.9 (none)", partial(catalogue.find, version="9.9.9")),
        ("models branch=main", partial(catalogue.find, branch="main")),
        ("models verdict=failed", partial(catalogue.find, verdict=Verdict.FAILED)),
        ("models verdict=unknown (oldest)", partial(catalogue.find, verdict=Verdict.UNKNOWN)),
        ("models origin=imported (oldest)", partial(catalogue.find, origin=Origin.IMPORTED)),
        (
            "models origin=imported, verdict=passed (none)",
            partial(catalogue.find, origin=Origin.IMPORTED, verdict=Verdict.PASSED),
        ),
        ("models stage=development", partial(catalogue.find, stage=Stage.DEVELOPMENT)),
        ("models stage=production", partial(catalogue.find, stage=Stage.PRODUCTION)),
        (
            "models verdict=failed, stage=development",
            partial(catalogue.find, verdict=Verdict.FAILED, stage=Stage.DEVELOPMENT),
        ),
        (
            "models verdict=failed, stage=production (none)",
            partial(catalogue.find, verdict=Verdict.FAILED, stage=Stage.PRODUCTION),
        ),
        (
            "models branch=main, stage=production",
            partial(catalogue.find, branch="main", stage=Stage.PRODUCTION),
        ),
        (
            "models branch=main, verdict=unknown (none)",
            partial(catalogue.find, branch="main", verdict=Verdict.UNKNOWN),
        ),
        ("models of a week a year ago", partial(catalogue.find, search=week)),
        ("models q=feature", partial(catalogue.find, search=Search("feature"))),
        ("models q=zzz (none)", partial(catalogue.find, search=Search("zzz"))),
        (
            "models q=zzz, stage=production (none)",
            partial(catalogue.find, stage=Stage.PRODUCTION, search=Search("zzz")),
        ),
        ("history of production", partial(history.history, stage=Stage.PRODUCTION)),
        ("history of development a year ago", partial(history.history, stage=Stage.DEVELOPMENT, at=ago)),
        ("runs kind=import", partial(lifecycle.find, kind=RunKind.IMPORT)),
        ("runs state=failed (none)", partial(lifecycle.find, state=RunState.FAILED)),
        ("audit", partial(audit.find)),
        ("audit who=nobody (none)", partial(audit.find, who="nobody")),
        ("audit action=rolled_back (none)", partial(audit.find, action=AuditAction.ROLLED_BACK)),
        ("audit who=ci, action=promoted (none)", partial(audit.find, who="ci", action=AuditAction.PROMOTED)),
    ):
        yield Case(name, partial(ask, limit=50))


def fill(database: Database, counts: dict[str, int]) -> None:
    with database.engine.begin() as connection:
        for statement in _FILL:
            values = {name: count for name, count in counts.items() if f":{name}" in statement}
            connection.execute(text(statement), values)
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for statement in _SETTLE:
            connection.execute(text(statement))


def measure(database: Database, case: Case) -> None:
    took, found = [], 0
    for _ in range(_TIMES + 1):
        began = time.perf_counter()
        with database.transaction() as session:
            found = len(case.ask(session).items)
        took.append(1000 * (time.perf_counter() - began))
    print(f"{case.name:<48} {found:>5} {statistics.median(took[1:]):>9.1f} {max(took[1:]):>9.1f}")


@contextmanager
def explained(database: Database) -> Iterator[None]:
    def explain(connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.lstrip().startswith("SELECT") and "LIMIT" in statement:
            cursor = connection.connection.cursor()
            for (line,) in cursor.execute(f"EXPLAIN (ANALYZE, BUFFERS) {statement}", parameters).fetchall():
                print(f"    {line}")

    event.listen(database.engine, "before_cursor_execute", explain)
    yield
    event.remove(database.engine, "before_cursor_execute", explain)


def run(models: int, builds: int, explain: str | None) -> None:
    print(f"machine   {machine()}")
    with tempfile.TemporaryDirectory() as folder, EmbeddedPostgres(Path(folder) / "postgres") as postgres:
        database = Database(postgres.start())
        migrate.upgrade(database)
        fill(database, {"models": models, "builds": builds})
        with database.engine.connect() as connection:
            server = connection.execute(text("SHOW server_version")).scalar_one()
        print(
            f"versions  SQLAlchemy {version('sqlalchemy')}, psycopg {version('psycopg')}, PostgreSQL {server}"
        )
        print(f"data      {models:,} models with 3 artifacts each, {builds:,} builds\n")
        print(f"{'the first page of':<48} {'items':>5} {'median ms':>9} {'worst ms':>9}")
        for case in cases():
            if explain is None:
                measure(database, case)
            elif explain in case.name:
                print(case.name)
                with explained(database), database.transaction() as session:
                    case.ask(session)
        database.close()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", type=int, default=100_000)
    parser.add_argument("--builds", type=int, default=200_000)
    parser.add_argument("--explain", metavar="TEXT")
    options = parser.parse_args()
    run(options.models, options.builds, options.explain)


if __name__ == "__main__":
    main()
