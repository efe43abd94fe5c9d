"""What the API and a worker need while nothing happens, and how long the API takes to its first answer.

    python -m benchmarks.idle [--tries 5] [--idle 75]

Both run as processes of their own with the default settings, on an embedded Postgres and the simulated AWS.
They are measured after they have been idle for a while, because the first rounds of the upkeep load AWS's
descriptions of S3 and EC2. Resident memory is what the processes have of the computer's memory. The
proportional figure counts a page that several processes share for each of them in part.
"""

import argparse
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx

from app.db import migrate
from app.db.session import Database
from benchmarks.fault_lab import service_environment
from benchmarks.latest import machine
from local.postgres import EmbeddedPostgres
from local.simcloud.server import SimCloud
from local.simcloud.settings import Settings as CloudSettings

ROOT = Path(__file__).parents[1]
MEMORY_LIMIT_MIB = 250
START_LIMIT_S = 1.5
_POLL_S = 0.005


@contextmanager
def _process(arguments: list[str], environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


@contextmanager
def _api(environment: dict[str, str]) -> Iterator[tuple[subprocess.Popen[bytes], dict[str, float]]]:
    """The API, and the seconds from its start to the first good answer of each call."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    began = time.monotonic()
    with (
        _process(["-m", "app", "api", "--port", str(port)], environment) as process,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client,
    ):
        took = {}
        for path in ("/healthz", "/readyz", "/stages"):
            while not _answers(client, path):
                if process.poll() is not None:
                    sys.exit(f"The API ended with status {process.returncode}.")
                time.sleep(_POLL_S)
            took[path] = time.monotonic() - began
        yield process, took


def _answers(client: httpx.Client, path: str) -> bool:
    try:
        return client.get(path).is_success
    except httpx.TransportError:
        return False


def _memory_mib(pid: int) -> tuple[float, float]:
    """Resident and proportional memory of a process."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    kib = {name: int(value.split()[0]) for name, _, value in (line.partition(":") for line in lines)}
    return kib["Rss"] / 1024, kib["Pss"] / 1024


def main() -> int:
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--tries", type=int, default=5, help="starts of the API")
    options.add_argument("--idle", type=float, default=75, help="seconds until the memory is measured")
    chosen = options.parse_args()
    print(machine())
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="idle-")))
        # As root, Postgres is another user, who must get through to its folder.
        folder.chmod(0o755)
        postgres = EmbeddedPostgres(folder / "postgres")
        database = Database(postgres.start())
        stack.callback(postgres.stop)
        stack.callback(database.close)
        migrate.upgrade(database)
        cloud = SimCloud(CloudSettings(repository=ROOT))
        cloud.start()
        stack.callback(cloud.stop)
        environment = service_environment(cloud, database, ROOT)
        starts: dict[str, list[float]] = {}
        for _ in range(chosen.tries):
            with _api(environment) as (_, took):
                for path, seconds in took.items():
                    starts.setdefault(path, []).append(seconds)
        worker = stack.enter_context(_process(["-m", "worker"], environment))
        api, _ = stack.enter_context(_api(environment))
        time.sleep(chosen.idle)
        used = {"API": _memory_mib(api.pid), "worker": _memory_mib(worker.pid)}
    for path, seconds_of in starts.items():
        print(f"start to the first answer of {path:9} median {statistics.median(seconds_of):.2f} s")
    for name, (resident, proportional) in used.items():
        print(f"{name:7} {resident:6.1f} MiB resident, {proportional:6.1f} MiB in proportion")
    together = sum(resident for resident, _ in used.values())
    start = statistics.median(starts["/healthz"])
    print(
        f"together {together:.0f} MiB resident, at most {MEMORY_LIMIT_MIB} wanted; "
        f"first answer after {start:.2f} s, at most {START_LIMIT_S} wanted"
    )
    return 0 if together <= MEMORY_LIMIT_MIB and start <= START_LIMIT_S else 1


if __name__ == "__main__":
    sys.exit(main())
