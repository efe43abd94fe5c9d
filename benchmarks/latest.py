"""How fast `GET /models/{stage}/latest` answers, beside an endpoint of the same server that does nothing.

    python -m benchmarks.latest [--seconds 5] [--prefixes 1000 100000] [--connections 1 16 64] [--created]

For each number of prefixes, starts an embedded Postgres in a temporary folder with a model and ten promotions
for each of them, and the API as `tariff-registry api` runs it: a uvicorn process of its own, with the same
protocol, that answers nobody without a token (REGISTRY_ACCESS=tokens). With REGISTRY_LATEST_MAX_AGE=0 in the
environment, each answer comes from the database instead of the process's memory. With --created, `latest` is
also asked with a token of the database, beside the one of the environment. Each endpoint is asked in
turn over keep-alive connections. The yardstick, an endpoint that returns one constant, tells what server,
framework and client cost on this machine: read the ratio, not the rates.
"""

import argparse
import asyncio
import hashlib
import os
import platform
import secrets
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path

import uvicorn
from sqlalchemy import text

from app.db import migrate
from app.db.session import Database
from app.main import create_app
from app.registry.access import tokens
from app.registry.access.callers import Caller
from app.registry.access.tokens import TokenRequest
from app.server import LimitedProtocol
from app.settings import Settings
from app.words import Scope
from local.postgres import EmbeddedPostgres

_ROUNDS = 2
_HOST = "127.0.0.1"
_YARDSTICK = "/do-nothing"
_LATEST = "/models/production/latest"
_PROMOTIONS_OF_EACH = 10

_FILL = (
    """
    INSERT INTO builds (prefix, version, sha, branch, search_config, requested_by, state, finished_at)
    SELECT v || '-' || left(sha, 7), v, sha, 'main', '', 'benchmark', 'succeeded', now()
      FROM (SELECT format('1.%s.0', n) AS v, md5(n::text) AS sha FROM generate_series(1, :prefixes) n) made
    """,
    """
    INSERT INTO models (prefix, version, sha, branch, build_id, metrics, verdict, verdict_reason)
    SELECT prefix, version, sha, branch, id, '{}', 'passed', '' FROM builds
    """,
    """
    INSERT INTO artifacts (model_id, name, key, sha256, size_bytes, content_type)
    SELECT id, name, prefix || '/' || name, repeat('a', 64), 50000000, 'application/octet-stream'
      FROM models, unnest(ARRAY['model.zip', 'search-config.toml', 'benchmark_results.xml',
                                'benchmark_results.zip', 'provenance.json', 'build.log.gz']) name
    """,
    """
    INSERT INTO promotions (model_id, version, stage, promoted_by)
    SELECT m.id, m.version, (ARRAY['development', 'staging', 'production'])[1 + n % 3], 'benchmark'
      FROM generate_series(1, :promotions) n
      JOIN (SELECT id, version, row_number() OVER (ORDER BY prefix) AS row FROM models) m
        ON m.row = 1 + n % :prefixes
    """,
)
# So that none of this work is left for the time of the measurement.
_SETTLE = ("VACUUM ANALYZE", "CHECKPOINT")


@dataclass(frozen=True)
class Figures:
    """Of one endpoint, over all its rounds."""

    per_second: float
    p50_ms: float
    p99_ms: float

    @classmethod
    def of(cls, took_s: list[float], seconds: float) -> "Figures":
        ranked = statistics.quantiles(took_s, n=100)
        return cls(len(took_s) / seconds, 1000 * ranked[49], 1000 * ranked[98])


def serve(port: int) -> None:
    """The API with the yardstick beside it, configured by the environment."""
    app = create_app(Settings())

    @app.get(_YARDSTICK, include_in_schema=False)
    async def do_nothing() -> dict[str, bool]:
        return {"ok": True}

    uvicorn.run(
        app, host=_HOST, port=port, loop="uvloop", http=LimitedProtocol, ws="none", log_level="warning"
    )


async def ask(port: int, path: str, token: str, until: float) -> list[float]:
    """Ask over one keep-alive connection until then; seconds that each answer took."""
    reader, writer = await asyncio.open_connection(_HOST, port)
    writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    request = f"GET {path} HTTP/1.1\r\nHost: {_HOST}\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
    took = []
    while (began := time.perf_counter()) < until:
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            msg = f"{path}: {head.decode(errors='replace')}"
            raise RuntimeError(msg)
        length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
        await reader.readexactly(int(length))
        took.append(time.perf_counter() - began)
    writer.close()
    await writer.wait_closed()
    return took


async def measure(port: int, path: str, token: str, connections: int, seconds: float) -> list[float]:
    until = time.perf_counter() + seconds
    each = await asyncio.gather(*(ask(port, path, token, until) for _ in range(connections)))
    return [took for one in each for took in one]


def await_server(port: int, server: "subprocess.Popen[bytes]") -> None:
    for _ in range(300):
        if server.poll() is not None:
            msg = f"the server ended with status {server.returncode}"
            raise RuntimeError(msg)
        with socket.socket() as probe:
            if probe.connect_ex((_HOST, port)) == 0:
                return
        time.sleep(0.1)
    msg = "the server did not start"
    raise RuntimeError(msg)


def machine() -> str:
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line
        ]
        cpu = names[0] if names else cpu
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return f"{os.cpu_count()} × {cpu}; {platform.platform()}; load before: {load}"


def created_token(database: Database) -> str:
    """A token of the database that may read."""
    wanted = TokenRequest("created", frozenset({Scope.READ}), timedelta(days=1))
    with database.transaction() as session:
        _, secret = tokens.create(session, Caller("benchmark", frozenset(Scope)), wanted, ())
    return secret


@dataclass(frozen=True)
class Asked:
    """An endpoint, and the token to ask it with."""

    label: str
    path: str
    token: str


def run(seconds: float, prefixes: int, connections: list[int], *, created: bool) -> None:
    promotions = _PROMOTIONS_OF_EACH * prefixes
    print(f"machine   {machine()}")
    names = ("fastapi", "uvicorn", "uvloop", "sqlalchemy", "psycopg", "pydantic")
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    with tempfile.TemporaryDirectory() as folder, EmbeddedPostgres(Path(folder) / "postgres") as postgres:
        url = postgres.start()
        database = Database(url)
        migrate.upgrade(database)
        with database.engine.begin() as connection:
            for statement in _FILL:
                counts = {"prefixes": prefixes, "promotions": promotions}
                values = {name: count for name, count in counts.items() if f":{name}" in statement}
                connection.execute(text(statement), values)
        with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            for statement in _SETTLE:
                connection.execute(text(statement))
            server_version = connection.execute(text("SHOW server_version")).scalar_one()
        token = secrets.token_hex(16)
        asked = [Asked(_YARDSTICK, _YARDSTICK, token), Asked(_LATEST, _LATEST, token)]
        if created:
            asked.append(Asked("… with a created token", _LATEST, created_token(database)))
        database.close()
        print(f"versions  Python {platform.python_version()}, {versions}, PostgreSQL {server_version}")
        print(f"data      {promotions:,} promotions of {prefixes:,} models with 6 artifacts each\n")
        with socket.socket() as probe:
            probe.bind((_HOST, 0))
            port: int = probe.getsockname()[1]
        environment = os.environ | {
            "DATABASE_URL": url,
            "AWS_ACCESS_KEY_ID": "benchmark",
            "AWS_SECRET_ACCESS_KEY": "benchmark",
            "AWS_EC2_METADATA_DISABLED": "true",
            "REGISTRY_ACCESS": "tokens",
            "REGISTRY_API_TOKENS": f"deploy={hashlib.sha256(token.encode()).hexdigest()}:read",
        }
        command = [sys.executable, "-m", "benchmarks.latest", "--serve", str(port)]
        with subprocess.Popen(command, env=environment) as server:
            try:
                await_server(port, server)
                report(port, asked, seconds, connections)
            finally:
                server.terminate()


def report(port: int, asked: list[Asked], seconds: float, connections: list[int]) -> None:
    for each in asked:
        # Warms caches and connections up.
        asyncio.run(measure(port, each.path, each.token, max(connections), 0.5))
    print(f"{'connections':>11}  {'endpoint':<26} {'requests/s':>10} {'p50 ms':>8} {'p99 ms':>8}")
    for number in connections:
        took: dict[Asked, list[float]] = {each: [] for each in asked}
        # In turns, so that a machine that slows down or speeds up does it to all.
        for _ in range(_ROUNDS):
            for each, so_far in took.items():
                so_far.extend(asyncio.run(measure(port, each.path, each.token, number, seconds / _ROUNDS)))
        figures = {each.label: Figures.of(of, seconds) for each, of in took.items()}
        for label, of in figures.items():
            print(f"{number:>11}  {label:<26} {of.per_second:>10,.0f} {of.p50_ms:>8.2f} {of.p99_ms:>8.2f}")
        nothing, latest, *with_created = figures.values()
        compare("latest to do-nothing", latest, nothing)
        for other in with_created:
            compare("created to environment", other, latest)
        print()


def compare(label: str, of: Figures, to: Figures) -> None:
    print(
        f"{'':>11}  {label:<26} {of.per_second / to.per_second:>9.2f}×"
        f" {of.p50_ms / to.p50_ms:>7.1f}× {of.p99_ms / to.p99_ms:>7.1f}×"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--seconds", type=float, default=5, help="for each endpoint and number of connections"
    )
    parser.add_argument("--prefixes", type=int, nargs="+", default=[1_000])
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--created", action="store_true", help="also with a token of the database")
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve is not None:
        serve(given.serve)
    else:
        for prefixes in given.prefixes:
            run(given.seconds, prefixes, given.connections, created=given.created)


if __name__ == "__main__":
    main()
