"""What it costs that hundreds of readers follow one build, beside the same number that ask again and again.

    python -m benchmarks.following [--readers 300] [--log-mb 10] [--seconds 20] [--writes-per-second 2]

Starts an embedded Postgres in a temporary folder and the API as a process of its own, with a build whose log
is that long already. First, all readers read that log from its start. Then lines are added, and each reader
notes how long after its write a line arrived. The readers are sockets of this process. Followers keep
`GET /builds/{id}/events` open; askers get the build and the rest of its log once a second, as a client
without streams does. Readers, API and Postgres share the machine: read the ratios beside the figures.
"""

import argparse
import asyncio
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import httpx
import uvicorn
from sqlalchemy import event

from app.db import migrate
from app.db.session import Database
from app.main import create_app
from app.registry.builds import lease, log, requests
from app.registry.builds.lease import Lease
from app.registry.builds.requests import BuildRequest
from app.server import StreamingServer, server_config
from app.settings import Settings
from benchmarks.latest import await_server, machine
from local.postgres import EmbeddedPostgres

_HOST = "127.0.0.1"
_CONFIG = (Path(__file__).parent / "search-config.toml").read_text()
# A line says when it was written, by the clock that all processes of a machine share.
_STAMP = re.compile(rb"written at (\d+)")
_TICKS = os.sysconf("SC_CLK_TCK")


def serve(port: int) -> None:
    """The API, which also counts its transactions and the threads that it has."""
    app = create_app(Settings())
    counted = {"transactions": 0}

    def count(_: object) -> None:
        counted["transactions"] += 1

    event.listen(app.state.database.engine, "begin", count)

    @app.get("/counts", include_in_schema=False)
    async def counts() -> dict[str, int]:
        return {**counted, "threads": threading.active_count()}

    server: uvicorn.Server = StreamingServer(server_config(app, _HOST, port), app.state.following)
    server.run()


@dataclass(frozen=True)
class Used:
    """What the API's process has used until now."""

    cpu_s: float
    transactions: int
    threads: int
    rss_mib: float

    @classmethod
    def of(cls, pid: int, port: int) -> "Used":
        counts = httpx.get(f"http://{_HOST}:{port}/counts").json()
        times = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        resident = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
        rss_mib = int(resident[1]) / 1024 if resident else 0.0
        return cls(
            (int(times[11]) + int(times[12])) / _TICKS, counts["transactions"], counts["threads"], rss_mib
        )


class Reader:
    """One reader of the build: how much of its log it has, and how late each new line came."""

    def __init__(self) -> None:
        self.received_bytes = 0
        self.late_ms: list[float] = []

    def take(self, data: bytes) -> None:
        now = time.monotonic_ns()
        self.received_bytes += len(data)
        # Only new lines have a stamp, and a line is never long.
        self.late_ms += [(now - int(at)) / 1e6 for at in _STAMP.findall(data)]


async def follow(port: int, build_id: UUID, reader: Reader) -> None:
    """Read the stream of events until this is cancelled."""
    stream, writer = await asyncio.open_connection(_HOST, port, limit=1 << 20)
    writer.write(f"GET /builds/{build_id}/events HTTP/1.1\r\nHost: {_HOST}\r\n\r\n".encode())
    try:
        while data := await stream.read(1 << 18):
            reader.take(data)
    finally:
        writer.close()


async def ask(port: int, build_id: UUID, reader: Reader, offset: int, delay_s: float) -> None:
    """Ask for the build and the rest of its log once a second, until this is cancelled."""
    await asyncio.sleep(delay_s)
    stream, writer = await asyncio.open_connection(_HOST, port, limit=1 << 20)

    async def get(path: str) -> tuple[bytes, bytes]:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {_HOST}\r\n\r\n".encode())
        head = (await stream.readuntil(b"\r\n\r\n")).lower()
        length = head.partition(b"content-length: ")[2].partition(b"\r\n")[0]
        return head, await stream.readexactly(int(length))

    try:
        while True:
            asked = time.monotonic()
            await get(f"/builds/{build_id}")
            head, text = await get(f"/builds/{build_id}/log?offset={offset}")
            offset = int(head.partition(b"x-log-next-offset: ")[2].partition(b"\r\n")[0])
            reader.take(text)
            await asyncio.sleep(max(0.0, 1.0 - (time.monotonic() - asked)))
    finally:
        writer.close()


@dataclass(frozen=True)
class Load:
    """What is written while readers read."""

    database: Database
    lease: Lease
    seconds: float
    per_second: float

    def write(self) -> int:
        began = time.monotonic()
        writes = int(self.seconds * self.per_second)
        for number in range(writes):
            time.sleep(max(0.0, began + number / self.per_second - time.monotonic()))
            text = "a line of a training, as long as such lines are, with its loss and its rate "
            with self.database.transaction() as session:
                log.append(session, self.lease, f"{text} written at {time.monotonic_ns()}\n")
        return writes


async def measure(
    name: str,
    readers: list[Reader],
    start: Callable[[Reader, float], Awaitable[None]],
    load: Load,
    api: tuple[int, int],
    log_bytes: int,
) -> dict[str, float]:
    """Let the readers read what is there, then write, and print what it cost."""
    began, before = time.monotonic(), Used.of(*api)
    tasks = [
        asyncio.ensure_future(start(reader, place / len(readers))) for place, reader in enumerate(readers)
    ]
    while min(reader.received_bytes for reader in readers) < log_bytes:
        await asyncio.sleep(0.05)
    caught_up = await asyncio.to_thread(Used.of, *api)
    if log_bytes:
        print(
            f"{name:<10} {len(readers)} readers got {log_bytes / 1e6:.0f} MB each in "
            f"{time.monotonic() - began:.1f} s, with {caught_up.cpu_s - before.cpu_s:.1f} s of CPU, "
            f"{caught_up.transactions - before.transactions} reads of the database, "
            f"{caught_up.rss_mib:.0f} MiB resident ({before.rss_mib:.0f} before)"
        )
    await asyncio.sleep(1.5)
    quiet = await asyncio.to_thread(Used.of, *api)
    writes = await asyncio.to_thread(load.write)
    await asyncio.sleep(1.5)
    after = await asyncio.to_thread(Used.of, *api)
    for task in tasks:
        task.cancel()
    for ended in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(ended, Exception):
            raise ended
    late = sorted(ms for reader in readers for ms in reader.late_ms)
    missing = writes * len(readers) - len(late)
    ranked = statistics.quantiles(late, n=100)
    found = {
        "CPU s": after.cpu_s - quiet.cpu_s,
        "reads": float(after.transactions - quiet.transactions),
        "median ms": ranked[49],
        "p99 ms": ranked[98],
    }
    shown = "  ".join(f"{what} {value:,.1f}" for what, value in found.items())
    print(
        f"{name:<10} {writes} writes in {load.seconds:.0f} s: {shown}  threads {after.threads}  "
        f"resident {after.rss_mib:.0f} MiB  lines that did not arrive {missing}"
    )
    return found


def run(readers: int, log_mb: int, seconds: float, per_second: float) -> None:
    print(f"machine    {machine()}")
    with tempfile.TemporaryDirectory() as folder, EmbeddedPostgres(Path(folder) / "postgres") as postgres:
        url = postgres.start()
        database = Database(url)
        migrate.upgrade(database)
        load = Load(database, _build(database), seconds, per_second)
        line = "epoch 1 of 9: a line of a training, as long as such lines are, with its loss and its rate\n"
        for _ in range(log_mb):
            with database.transaction() as session:
                log.append(session, load.lease, line * (1_000_000 // len(line)))
        with socket.socket() as probe:
            probe.bind((_HOST, 0))
            port: int = probe.getsockname()[1]
        environment = os.environ | {
            "DATABASE_URL": url,
            "AWS_ACCESS_KEY_ID": "benchmark",
            "AWS_SECRET_ACCESS_KEY": "benchmark",
            "AWS_EC2_METADATA_DISABLED": "true",
            "REGISTRY_ACCESS": "open",
        }
        command = [sys.executable, "-m", "benchmarks.following", "--serve", str(port)]
        with subprocess.Popen(command, env=environment) as server:
            try:
                await_server(port, server)
                asyncio.run(report(readers, load, (server.pid, port)))
            finally:
                server.terminate()
        database.close()


async def report(readers: int, load: Load, api: tuple[int, int]) -> None:
    port, build_id = api[1], load.lease.build_id
    with load.database.transaction() as session:
        size = log.size_of(session, build_id)
    followed = await measure(
        "following",
        [Reader() for _ in range(readers)],
        lambda reader, _: follow(port, build_id, reader),
        load,
        api,
        size,
    )
    with load.database.transaction() as session:
        size = log.size_of(session, build_id)
    asked = await measure(
        "asking",
        [Reader() for _ in range(readers)],
        lambda reader, delay_s: ask(port, build_id, reader, size, delay_s),
        load,
        api,
        0,
    )
    ratios = {what: round(asked[what] / followed[what], 1) for what in followed if followed[what]}
    print(f"asking to following: {json.dumps(ratios)}")


def _build(database: Database) -> Lease:
    with database.transaction() as session:
        answer = requests.request(session, BuildRequest("a" * 40, "main", _CONFIG))
    assert answer.build is not None
    with database.transaction() as session:
        taken = lease.take(session, answer.build.id, "benchmark", timedelta(hours=1))
    assert taken is not None
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--readers", type=int, default=300)
    parser.add_argument("--log-mb", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--writes-per-second", type=float, default=2)
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve is not None:
        serve(given.serve)
    else:
        run(given.readers, given.log_mb, given.seconds, given.writes_per_second)


if __name__ == "__main__":
    main()
