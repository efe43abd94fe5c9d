"""How long it takes to import a bucket that other tools have filled, and to reconcile it.

    python -m benchmarks.importing [--prefixes 10000]

Starts an embedded Postgres and a simulated AWS in temporary folders, the AWS as a process of its own, and
fills the bucket with prefixes of five objects each. Each run is carried in this process, as a worker carries
it. Against the real S3, the calls take longer and the server takes none of this machine's time.
"""

import argparse
import contextlib
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from app.db import migrate
from app.db.session import Database
from app.registry.runs import lifecycle
from app.settings import Settings
from app.storage.bucket import Bucket
from app.words import RunKind
from benchmarks.latest import machine
from local.postgres import EmbeddedPostgres
from worker.clouds import Clouds
from worker.runner import Runner
from worker.runs.carrying import RunCarrier

_XML = b"""<testsuites><testsuite name="everyday" tests="1" failures="0">
<testcase classname="everyday" name="top_1"><system-out>0.6200 of 200</system-out></testcase>
</testsuite></testsuites>"""


@contextlib.contextmanager
def simulated_aws(state: Path) -> Iterator[str]:
    """The address of a simulated AWS in a process of its own."""
    command = [
        sys.executable,
        "-m",
        "local.simcloud",
        "--port",
        "0",
        "--ssh-port",
        "0",
        "--state",
        str(state),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            found = re.search(r"http://\S+?:\d+", process.stdout.readline())
            if found is None:
                sys.exit("The simulated AWS did not start.")
            yield found[0]
        finally:
            process.terminate()


def fill(bucket: Bucket, client: Any, prefixes: int) -> None:
    """Put the objects there without the metadata of this registry."""

    def put(number: int) -> None:
        version, sha7 = f"1.{number // 100}.{number % 100}", f"{number:07x}"
        objects = {
            "model.zip": b"the model",
            "search-config.toml": f'version = "{version}"\n'.encode(),
            "benchmark_results.xml": _XML,
            "passed": b"",
            "development": b"",
        }
        for name, content in objects.items():
            client.put_object(Bucket=bucket.name, Key=f"{version}-{sha7}/{name}", Body=content)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(put, range(prefixes)))


def timed(carrier: RunCarrier, kind: RunKind, options: Mapping[str, bool]) -> tuple[float, Mapping[str, Any]]:
    """How many seconds a run takes, and its result."""
    database = carrier.runner.database
    with database.transaction() as session:
        run_id = lifecycle.request(session, kind, options, "benchmark").id
    began = time.monotonic()
    carrier.carry(run_id)
    took = time.monotonic() - began
    with database.transaction() as session:
        run = lifecycle.get(session, run_id)
    if run.state != "succeeded" or run.result is None:
        sys.exit(f"The {kind} {run.state}: {run.failure or run.last_error}")
    return took, run.result


def main() -> int:
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--prefixes", type=int, default=10_000)
    wanted: int = options.parse_args().prefixes
    os.environ |= {"AWS_ACCESS_KEY_ID": "simulated", "AWS_SECRET_ACCESS_KEY": "simulated"}
    with (
        tempfile.TemporaryDirectory() as folder,
        EmbeddedPostgres(Path(folder) / "postgres") as postgres,
        simulated_aws(Path(folder) / "aws") as address,
    ):
        database = Database(postgres.start())
        migrate.upgrade(database)
        settings = Settings.model_validate({"database_url": database.conninfo, "aws_endpoint_url": address})
        clouds = Clouds(settings)
        fill(clouds.bucket, clouds.bucket._client, wanted)  # noqa: SLF001 - there is no other way to put them
        carrier = RunCarrier(Runner(settings, database, clouds, "benchmark", threading.Event()))
        print(machine())
        print(f"{wanted:,} prefixes with {5 * wanted:,} objects:")
        for what, kind, asked in (
            ("import without digests", RunKind.IMPORT, {"digests": False}),
            ("the same again, which changes nothing", RunKind.IMPORT, {"digests": False}),
            ("the digests of all files", RunKind.IMPORT, {"digests": True}),
            ("reconciliation", RunKind.RECONCILIATION, {}),
        ):
            took, result = timed(carrier, kind, asked)
            counts = ", ".join(f"{name} {value:,}" for name, value in result.items() if type(value) is int)
            print(f"  {what}: {took:.1f} s ({counts})", flush=True)
        database.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
