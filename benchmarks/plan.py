"""How long the plan of garbage collection takes, with its first page, over many models.

    python -m benchmarks.plan [--models 100000] [--sample 500]

Starts an embedded Postgres in a temporary folder and fills it: each model has eight files, one of fifty got
to production, and every fifth feature branch still exists. Asks as the API does, without HTTP. Beside it, a
straightforward way asks for one model after the other, as a script that goes through the prefixes would; it
is measured on a sample, from which the time for all models is reckoned up. The first answer is left out,
because it reads files that Postgres has not read before.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from sqlalchemy import select, text

from app.api.collection.plan import answer
from app.db import migrate
from app.db.session import Database
from app.db.tables import Model
from app.registry.collection import plan
from app.settings import Settings
from app.words import PlanVerdict
from benchmarks.latest import machine
from benchmarks.lists import fill
from local.postgres import EmbeddedPostgres

_TIMES = 7

_MORE = (
    """
    INSERT INTO artifacts (model_id, name, key, sha256, size_bytes, content_type)
    SELECT id, name, prefix || '/' || name, repeat('b', 64), 5000, 'application/octet-stream'
      FROM models, unnest(ARRAY['benchmark_results.xml', 'check_result.json', 'provenance.json',
                                'build.log.gz', 'sbom.cdx.json']) name
    """,
    """
    INSERT INTO git_branches (name, sha, counts)
    SELECT DISTINCT branch, repeat('a', 40), true FROM models
     WHERE branch = 'main' OR right(branch, 1) IN ('1', '6')
    """,
    """
    INSERT INTO model_commits (model_id, sha, holders)
    SELECT id, sha, CASE WHEN right(branch, 1) = '1' THEN ARRAY[branch] END FROM models
    """,
    """
    INSERT INTO git_repository (remote, main_branch, main_names, fetched_at, fingerprint, attempted_at)
    VALUES ('https://git.example.org/classifier.git', 'main', '{main}', now(), 'x', now())
    """,
)


def _median(ask: Callable[[], object]) -> tuple[float, float, float]:
    """The median and the longest time that it took, and the median of this process's processor time."""
    took, worked = [], []
    for _ in range(_TIMES + 1):
        began, working = time.perf_counter(), time.process_time()
        ask()
        took.append(time.perf_counter() - began)
        worked.append(time.process_time() - working)
    return statistics.median(took[1:]), max(took[1:]), statistics.median(worked[1:])


def _second_page(found: plan.Plan, database: Database) -> float:
    """How many seconds another page of a plan takes that is kept."""
    cursor = found.page(limit=50).next
    began = time.perf_counter()
    with database.transaction() as session:
        answer(session, found, limit=50, cursor=cursor).model_dump_json()
    return time.perf_counter() - began


def _one_by_one(database: Database, settings: Settings, prefixes: list[str]) -> None:
    for prefix in prefixes:
        with database.transaction() as session:
            plan.recheck(session, settings, [prefix])


def run(models: int, sample: int) -> None:
    print(f"machine   {machine()}")
    with tempfile.TemporaryDirectory() as folder, EmbeddedPostgres(Path(folder) / "postgres") as postgres:
        url = postgres.start()
        database = Database(url)
        settings = Settings.model_validate({"database_url": url, "gc_branches_max_age": "P1D"})
        migrate.upgrade(database)
        fill(database, {"models": models, "builds": models * 2})
        with database.engine.begin() as connection:
            for statement in _MORE:
                connection.execute(text(statement))
        with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("VACUUM ANALYZE"))

        def ask() -> plan.Plan:
            with database.transaction() as session:
                found = plan.compute(session, settings)
                answer(session, found, verdict=None, limit=50, cursor=None).model_dump_json()
                return found

        found = ask()
        print(f"data      {models:,} models with 8 files each, {models * 2:,} builds")
        for verdict in PlanVerdict:
            print(f"{verdict:<9} {json.dumps(asdict(found.totals[verdict]))}")
        print(f"reasons   {json.dumps(found.counts)}\n")
        whole, worst, worked = _median(ask)
        print(f"the plan, its totals, its digest and its first page   {whole:8.3f} s", end="")
        print(f"  (worst {worst:.3f} s; {worked:.3f} s of processor time, without Postgres)")
        print(f"its second page                                       {_second_page(found, database):8.3f} s")
        with database.transaction() as session:
            some = list(session.scalars(select(Model.prefix).order_by(Model.sha).limit(sample)))
        began = time.perf_counter()
        _one_by_one(database, settings, some)
        each = (time.perf_counter() - began) / len(some)
        print(f"one model after the other, reckoned up from {len(some)}      {each * models:8.1f} s", end="")
        print(f"  ({each * 1000:.1f} ms for each model; {each * models / whole:,.0f} times as long)")
        database.close()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", type=int, default=100_000)
    parser.add_argument("--sample", type=int, default=500)
    options = parser.parse_args()
    run(options.models, options.sample)


if __name__ == "__main__":
    main()
