"""The whole service as its own processes: API and workers over a real Postgres and a simulated AWS."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from app.db.session import Database
from local.simcloud.server import SimCloud
from local.simcloud.settings import Settings as CloudSettings
from local.stack import free_port
from tests.e2e.service import ROOT, Service, small_benchmarks, small_raw_data


@pytest.fixture(scope="module")
def e2e_cloud() -> Iterator[SimCloud]:
    # One thread: two that compete with the tests' other processes wait for each other at every step.
    environment = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with SimCloud(CloudSettings(repository=ROOT, session_environment=environment)) as cloud:
        yield cloud


@pytest.fixture
def service(database: Database, e2e_cloud: SimCloud, tmp_path: Path) -> Iterator[Service]:
    """The API, running; workers are the test's to start. The bucket has small inputs."""
    e2e_cloud.reset()
    port = free_port()
    environment = {
        **os.environ,
        **e2e_cloud.environment(),
        "DATABASE_URL": database.conninfo,
        "REGISTRY_SSH_PORT": str(e2e_cloud.ssh_port),
        "REGISTRY_CODE_REPOSITORY": str(ROOT),
        "REGISTRY_ACCESS": "open",
        "REGISTRY_LEASE": "PT3S",
        "REGISTRY_HEARTBEAT": "PT1S",
        "REGISTRY_STALLED_AFTER": "PT3S",
        "REGISTRY_UPKEEP_EVERY_S": "1",
        "REGISTRY_ORPHAN_GRACE": "PT0S",
    }
    service = Service(f"http://127.0.0.1:{port}", e2e_cloud, database, environment, tmp_path)
    service.put("raw_source_data.zip", small_raw_data())
    service.put("benchmarking_data.zip", small_benchmarks())
    api = service.start("api", "--port", str(port))
    try:
        _await_ready(service.url, api)
        yield service
    finally:
        for process in (*service.workers, api):
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _await_ready(url: str, api: subprocess.Popen[bytes]) -> None:
    ends = time.monotonic() + 60
    while time.monotonic() < ends and api.poll() is None:
        try:
            if httpx.get(f"{url}/readyz").is_success:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.1)
    pytest.fail("the API did not become ready")
