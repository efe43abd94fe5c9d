"""What it takes to delete the objects of many collected models.

    python -m benchmarks.sweep [--prefixes 5000] [--sample 50]

Starts an embedded Postgres and a simulated AWS in temporary folders, the AWS as a process of its own, and
makes marked models with eight objects each. A collection sweeps them, carried in this process as a worker
carries it. Beside it, a straightforward script lists one prefix after the other and deletes one object with
each request, on a sample of other prefixes, from which the time for all is reckoned up. The simulated S3
shares this machine's cores, and goes through every key of the bucket for each listing, so the ratio says more
than the seconds.
"""

import argparse
import os
import resource
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import event, text

from app.db import migrate
from app.db.session import Database
from app.settings import Settings
from app.storage.bucket import Bucket
from app.words import RunKind
from benchmarks.importing import simulated_aws, timed
from benchmarks.latest import machine
from local.postgres import EmbeddedPostgres
from worker.clouds import Clouds
from worker.runner import Runner
from worker.runs.carrying import RunCarrier

_NAMES = (
    "model.zip",
    "search-config.toml",
    "benchmark_results.xml",
    "benchmark_results.zip",
    "check_result.json",
    "build.log.gz",
    "sbom.cdx.json",
    "failed",
)
_MODELS = """
    INSERT INTO models (prefix, version, sha, origin, metrics, verdict, verdict_reason, published_at,
                        state, marked_at, mark_reason)
    SELECT '1.0.' || n || '-' || lpad(to_hex(n), 7, '0'), '1.0.' || n, lpad(to_hex(n), 40, '0'), 'imported',
           '{}', 'failed', 'for the benchmark', now() - interval '99 days', 'marked',
           now() - interval '9 days', '{"code": "commit_on_no_branch", "text": "for the benchmark"}'
      FROM generate_series(1, :count) n
"""
_FILES = """
    INSERT INTO artifacts (model_id, name, key, sha256, size_bytes, content_type)
    SELECT id, name, prefix || '/' || name, NULL, 7, 'application/octet-stream'
      FROM models CROSS JOIN unnest(CAST(:names AS text[])) name
"""
_COMMITS = "INSERT INTO model_commits (model_id, sha) SELECT id, sha FROM models"
_REPOSITORY = """
    INSERT INTO git_repository (remote, main_branch, main_names, fetched_at, fingerprint, attempted_at)
    VALUES ('https://git.example.org/x', 'main', '{main}', now(), 'x', now())
"""
_BRANCH = "INSERT INTO git_branches VALUES ('main', repeat('a', 40), true)"


def fill(database: Database, bucket: Bucket, client: Any, prefixes: int) -> list[str]:
    """Marked models with their objects. Returns all keys."""
    with database.engine.begin() as connection:
        connection.execute(text(_MODELS), {"count": prefixes})
        connection.execute(text(_FILES), {"names": list(_NAMES[:-1])})
        for statement in (_COMMITS, _REPOSITORY, _BRANCH):
            connection.execute(text(statement))
        found = connection.execute(text("SELECT prefix FROM models ORDER BY prefix")).scalars().all()
    keys = [f"{prefix}/{name}" for prefix in found for name in _NAMES]

    def put(key: str) -> None:
        content = b"" if key.endswith("/failed") else b"content"
        client.put_object(Bucket=bucket.name, Key=key, Body=content)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(put, keys))
    return keys


def one_by_one(bucket: Bucket, client: Any, sample: int) -> float:
    """How many seconds it takes to delete so many prefixes with one request for each object."""
    folders = [f"sample-{number}/" for number in range(sample)]
    for folder in folders:
        for name in _NAMES:
            client.put_object(Bucket=bucket.name, Key=folder + name, Body=b"content")
    began = time.monotonic()
    for folder in folders:
        for key, _ in list(bucket.list(folder)):
            bucket.delete(key)
    return time.monotonic() - began


def main() -> int:
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--prefixes", type=int, default=5_000)
    options.add_argument("--sample", type=int, default=50)
    asked = options.parse_args()
    os.environ |= {"AWS_ACCESS_KEY_ID": "simulated", "AWS_SECRET_ACCESS_KEY": "simulated"}
    with (
        tempfile.TemporaryDirectory() as folder,
        EmbeddedPostgres(Path(folder) / "postgres") as postgres,
        simulated_aws(Path(folder) / "aws") as address,
    ):
        database = Database(postgres.start())
        migrate.upgrade(database)
        given = {"database_url": database.conninfo, "aws_endpoint_url": address, "gc_most_at_once": 1.0}
        # A slow S3 of the simulation must not look like a worker that has died.
        settings = Settings.model_validate(
            {**given, "lease": timedelta(minutes=5), "gc_keep_newest_passed": 0}
        )
        clouds = Clouds(settings)
        client = clouds.bucket._client  # noqa: SLF001 - there is no other way to put and count objects
        keys = fill(database, clouds.bucket, client, asked.prefixes)
        alone = one_by_one(clouds.bucket, client, asked.sample) * asked.prefixes / asked.sample
        calls: Counter[str] = Counter()
        client.meta.events.register(
            "before-call.s3", lambda model, **_: calls.update([model.name]), unique_id="benchmark"
        )
        for name in ("before_cursor_execute", "commit"):
            event.listen(database.engine, name, lambda *_, name=name: calls.update([name]))
        carrier = RunCarrier(Runner(settings, database, clouds, "benchmark", threading.Event()))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        working = time.process_time()
        took, result = timed(carrier, RunKind.COLLECTION, {"dry_run": False})
        worked = time.process_time() - working
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        statements, commits = calls.pop("before_cursor_execute"), calls.pop("commit")
        requests = dict(calls)
        left = sum(1 for _ in clouds.bucket.list())
        print(machine())
        print(f"{asked.prefixes:,} prefixes with {len(keys):,} objects, of which {left:,} are left:")
        print(f"  a collection: {took:.1f} s, of which this process worked {worked:.1f} s")
        print(f"  S3: {sum(requests.values()):,} requests, {requests}")
        print(f"  Postgres: {statements:,} statements, {commits:,} commits; memory: {grown:.0f} MiB more")
        print(f"  freed: {result['freed']:,} prefixes, {result['freed_objects']:,} objects")
        by_script = len(keys) + asked.prefixes
        print(f"  one request for each object: {alone:.1f} s, {by_script:,} requests")
        print(
            f"  ratio: {alone / took:.1f} times as fast, with {by_script / sum(requests.values()):.1f} times "
            "fewer requests"
        )
        database.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
