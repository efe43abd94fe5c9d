"""How fast `POST /builds` answers, beside an endpoint of the same server that does nothing.

    python -m benchmarks.posting [--seconds 5] [--connections 1 16] [--models 10000]

Starts an embedded Postgres in a temporary folder with that many models, and the API as `tariff-registry api`
runs it: a uvicorn process of its own, with the same protocol. Every post has a token and is for another
commit, so each of them stores a build with its first event and its job. Connections listen for notifications
as a worker and a reader of events do. The yardstick, an endpoint that returns one constant, tells what
server, framework and client cost on this machine: read the ratio beside the rates.
"""

import argparse
import asyncio
import hashlib
import itertools
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from sqlalchemy import text

from app.db import migrate
from app.db.session import Database
from benchmarks.latest import Figures, await_server, machine, serve
from local.postgres import EmbeddedPostgres

_HOST = "127.0.0.1"
_ROUNDS = 2
_TOKEN = "a token for the benchmark"
_CONFIG = (Path(__file__).parent / "search-config.toml").read_text()
_CHANNELS = ("build_events", "procrastinate_any_queue_v1", "procrastinate_queue_v1#builds")

_FILL = (
    """
    INSERT INTO builds (prefix, version, sha, branch, search_config, requested_by, state, finished_at)
    SELECT v || '-' || left(sha, 7), v, sha, 'main', :config, 'benchmark', 'succeeded', now()
      FROM (SELECT format('1.%s.0', n % 1000) AS v, md5(n::text) AS sha FROM generate_series(1, :models) n)
        ON CONFLICT DO NOTHING
    """,
    """
    INSERT INTO models (prefix, version, sha, branch, build_id, metrics, verdict, verdict_reason)
    SELECT prefix, version, sha, branch, id, '{}', 'passed', '' FROM builds
    """,
    "ANALYZE",
)

Request = Callable[[], bytes]


def do_nothing() -> bytes:
    return f"GET /do-nothing HTTP/1.1\r\nHost: {_HOST}\r\n\r\n".encode()


def posts() -> Request:
    """Each request is for the next commit."""
    numbers = itertools.count(0x1000000)

    def post() -> bytes:
        sha = f"{next(numbers):07x}".ljust(40, "a")
        body = {"sha": sha, "branch": "feature/benchmark", "search_config": _CONFIG}
        content = json.dumps(body).encode()
        head = (
            f"POST /builds HTTP/1.1\r\nHost: {_HOST}\r\nContent-Type: application/json\r\n"
            f"Authorization: Bearer {_TOKEN}\r\nContent-Length: {len(content)}\r\n\r\n"
        )
        return head.encode() + content

    return post


async def ask(port: int, request: Request, until: float) -> list[float]:
    """Send requests over one keep-alive connection until then; seconds that each answer took."""
    reader, writer = await asyncio.open_connection(_HOST, port)
    writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    took = []
    while (began := time.perf_counter()) < until:
        writer.write(request())
        head = await reader.readuntil(b"\r\n\r\n")
        length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
        body = await reader.readexactly(int(length))
        if head[9:12] not in (b"200", b"202") or b'"outcome":"exists"' in body:
            msg = (head + body).decode(errors="replace")
            raise RuntimeError(msg)
        took.append(time.perf_counter() - began)
    writer.close()
    await writer.wait_closed()
    return took


async def measure(port: int, request: Request, connections: int, seconds: float) -> list[float]:
    until = time.perf_counter() + seconds
    each = await asyncio.gather(*(ask(port, request, until) for _ in range(connections)))
    return [took for one in each for took in one]


@contextmanager
def listening(url: str) -> Iterator[None]:
    """Somebody listens for notifications, as a worker and a reader of events do."""
    stop = threading.Event()

    def listen() -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            for channel in _CHANNELS:
                connection.execute(f'LISTEN "{channel}"'.encode())
            while not stop.is_set():
                for _ in connection.notifies(timeout=0.5):
                    pass

    thread = threading.Thread(target=listen)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def run(seconds: float, models: int, connections: list[int]) -> None:
    print(f"machine   {machine()}")
    with tempfile.TemporaryDirectory() as folder, EmbeddedPostgres(Path(folder) / "postgres") as postgres:
        url = postgres.start()
        database = Database(url)
        migrate.upgrade(database)
        with database.engine.begin() as connection:
            for statement in _FILL:
                values = {"models": models, "config": _CONFIG}
                given = {name: value for name, value in values.items() if f":{name}" in statement}
                connection.execute(text(statement), given)
        conninfo = database.conninfo
        database.close()
        print(f"data      {models:,} models of 1,000 versions\n")
        with socket.socket() as probe:
            probe.bind((_HOST, 0))
            port: int = probe.getsockname()[1]
        environment = os.environ | {
            "DATABASE_URL": url,
            "AWS_ACCESS_KEY_ID": "benchmark",
            "AWS_SECRET_ACCESS_KEY": "benchmark",
            "AWS_EC2_METADATA_DISABLED": "true",
            "REGISTRY_API_TOKENS": f"benchmark={hashlib.sha256(_TOKEN.encode()).hexdigest()}",
        }
        command = [sys.executable, "-m", "benchmarks.posting", "--serve", str(port)]
        with subprocess.Popen(command, env=environment) as server, listening(conninfo):
            try:
                await_server(port, server)
                report(port, seconds, connections)
            finally:
                server.terminate()


def report(port: int, seconds: float, connections: list[int]) -> None:
    post = posts()
    for request in (do_nothing, post):
        asyncio.run(measure(port, request, 2, 1))
    print(f"{'connections':>11} {'endpoint':<12} {'per second':>11} {'p50 ms':>8} {'p99 ms':>8}")
    for count in connections:
        took: dict[str, list[float]] = {"do nothing": [], "POST /builds": []}
        for _ in range(_ROUNDS):
            for name, request in zip(took, (do_nothing, post), strict=True):
                took[name] += asyncio.run(measure(port, request, count, seconds))
        figures = {name: Figures.of(of, _ROUNDS * seconds) for name, of in took.items()}
        for name, of in figures.items():
            print(f"{count:>11} {name:<12} {of.per_second:>11,.0f} {of.p50_ms:>8.1f} {of.p99_ms:>8.1f}")
        ratio = figures["do nothing"].per_second / figures["POST /builds"].per_second
        print(f"{count:>11} one post takes as long as {ratio:.0f} requests that do nothing\n")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--seconds", type=float, default=5, help="for each endpoint and number of connections"
    )
    parser.add_argument("--models", type=int, default=10_000)
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve is not None:
        serve(given.serve)
    else:
        run(given.seconds, given.models, given.connections)


if __name__ == "__main__":
    main()
