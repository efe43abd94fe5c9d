"""The whole service as processes, as the tests drive it."""

import csv
import io
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest
from sqlalchemy import text

from app.db.session import Database
from cli.client import RegistryClient
from local.demo.inputs import subheadings
from local.simcloud.server import SimCloud

ROOT = Path(__file__).resolve().parents[2]

CONFIG = """\
name = "small"
version = "{version}"
digits = 6
cn_data_file = "reference_data/cn_self_text.csv"
transformer = "all-MiniLM-L6-v2"
device = "cpu"
hidden_size = 64
max_epochs = {epochs}
"""


def small_config(version: str = "0.0.2", epochs: int = 4) -> str:
    return CONFIG.format(version=version, epochs=epochs)


@dataclass
class Service:
    """The API and any number of workers, as processes."""

    url: str
    cloud: SimCloud
    database: Database
    environment: dict[str, str]
    folder: Path
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        with (self.folder / f"{arguments[0]}-{len(self.workers)}.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "cli", *arguments],
                cwd=ROOT,
                env=self.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def await_ready(self, api: subprocess.Popen[bytes]) -> None:
        ends = time.monotonic() + 60
        while time.monotonic() < ends and api.poll() is None:
            try:
                if httpx.get(f"{self.url}/readyz").is_success:
                    return
            except httpx.HTTPError:
                pass
            time.sleep(0.1)
        pytest.fail("The API did not become ready.")

    def kill(self, *processes: subprocess.Popen[bytes]) -> None:
        for process in processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def reset(self) -> None:
        """Empty the database and the cloud. No worker may run."""
        with self.database.engine.begin() as connection:
            tables = connection.scalars(
                text(
                    "SELECT string_agg(quote_ident(tablename), ', ') FROM pg_tables "
                    "WHERE schemaname = 'public' AND tablename <> 'alembic_version'"
                )
            ).one()
            # Without triggers, because some tables refuse every change of what is in them.
            connection.execute(text("SET LOCAL session_replication_role = replica"))
            connection.execute(text(f"TRUNCATE {tables} RESTART IDENTITY CASCADE"))
        self.cloud.reset()

    def run(self, *arguments: str, cwd: Path = ROOT, **variables: str) -> subprocess.CompletedProcess[str]:
        """`tariff-registry`, as CI and the deploy job call it."""
        fixed = {"REGISTRY_URL": self.url, "COLUMNS": "200", "PYTHONPATH": str(ROOT)}
        return subprocess.run(
            [sys.executable, "-m", "cli", *arguments],
            cwd=cwd,
            env={**os.environ, **fixed, **variables},
            capture_output=True,
            text=True,
            timeout=200,
        )

    def start_worker(self) -> subprocess.Popen[bytes]:
        worker = self.start("worker")
        self.workers.append(worker)
        return worker

    def client(self) -> RegistryClient:
        return RegistryClient(self.url)

    def post(self, sha: str, config: str, **more: Any) -> dict[str, Any]:
        # Forced, because the commit has another search-config.toml than the small ones of the tests.
        body = {"sha": sha, "branch": "main", "search_config": config, "force": True, **more}
        with self.client() as client:
            return client.post("/builds", body)

    def build(self, build_id: str) -> dict[str, Any]:
        with self.client() as client:
            return client.get(f"/builds/{build_id}")

    def await_build(
        self, build_id: str, until: Callable[[dict[str, Any]], bool], timeout_s: float = 150
    ) -> dict[str, Any]:
        ends = time.monotonic() + timeout_s
        while True:
            build = self.build(build_id)
            if until(build):
                return build
            if time.monotonic() > ends:
                logs = "\n".join(path.read_text()[-3000:] for path in sorted(self.folder.glob("*.log")))
                pytest.fail(f"This did not happen within {timeout_s} s. The build: {build}\n{logs}")
            time.sleep(0.1)

    def await_end(self, build_id: str, timeout_s: float = 150) -> dict[str, Any]:
        return self.await_build(build_id, lambda build: build["finished_at"] is not None, timeout_s)

    def await_step(self, build_id: str, name: str, state: str = "running") -> dict[str, Any]:
        return self.await_build(build_id, lambda build: step_of(build, name)["state"] == state)

    def await_job(self, build_id: str, command: str) -> None:
        """Wait until the job runs on the machine."""
        self.await_step(build_id, command)
        [instance] = self.cloud.instances()
        log = instance.home / "builds" / build_id / command / "log"
        self.await_build(build_id, lambda _: log.exists())

    def bucket_keys(self) -> list[str]:
        listing = self.s3().list_objects_v2(Bucket=self.cloud.bucket)
        return [item["Key"] for item in listing.get("Contents", [])]

    def s3(self) -> Any:
        return boto3.client("s3", endpoint_url=self.cloud.endpoint_url, region_name=self.cloud.region)

    def put(self, key: str, body: bytes) -> None:
        self.s3().put_object(Bucket=self.cloud.bucket, Key=key, Body=body)


def step_of(build: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(step for step in build["steps"] if step["name"] == name)
    return found


def small_raw_data(rows: int = 120) -> bytes:
    """Self-texts of the real nomenclature's first subheadings, and two vague terms."""
    lines = [[f"{found.code}0000", f"{found.code}00", found.own_text] for found in list(subheadings())[:rows]]
    return _zip(
        {
            "reference_data/cn_self_text.csv": [["CNKEY", "CN_CODE", "NAME_EN"], *lines],
            "reference_data/vague_terms.csv": [["description"], ["assorted items"], ["a gift"]],
        }
    )


def small_benchmarks() -> bytes:
    """One benchmark with codes, and one of descriptions that deserve no code."""
    known = [[f"{found.own_text} for sale", found.code] for found in list(subheadings())[:30]]
    return _zip(
        {
            "known.csv": [["Goods Description", "Commodity Code"], *known],
            "vague.csv": [["Goods Description"], ["misc"], ["a gift"], ["parts, various"]],
        }
    )


def _zip(files: dict[str, list[list[str]]]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, rows in files.items():
            written = io.StringIO()
            csv.writer(written).writerows(rows)
            archive.writestr(name, written.getvalue())
    return packed.getvalue()


def unpack(packed: bytes, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        archive.extractall(folder)
