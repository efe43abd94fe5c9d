"""The whole service as processes: the API and workers over a real Postgres and a simulated AWS."""

import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url

from app.db.session import Database
from local import signing
from local.simcloud.server import SimCloud
from local.simcloud.settings import Settings as CloudSettings
from local.stack import free_port
from tests.e2e.service import ROOT, Service, small_benchmarks, small_raw_data


@pytest.fixture(scope="module")
def repository() -> Path:
    """Where the training code comes from: this checkout, unless a module has another repository."""
    return ROOT


@pytest.fixture(scope="module")
def machine_environment() -> dict[str, str]:
    """What every process on a simulated machine has in its environment."""
    # One thread: two that compete with the tests' other processes wait for each other at every step.
    return {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def running_cloud(repository: Path, machine_environment: dict[str, str]) -> Iterator[SimCloud]:
    with SimCloud(CloudSettings(repository=repository, session_environment=machine_environment)) as cloud:
        yield cloud


@pytest.fixture(scope="module")
def running_service(
    postgres: str, running_cloud: SimCloud, repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """The API as a process, for all tests of a module: it keeps no state of its own."""
    name = f"test_{secrets.token_hex(6)}"
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE template_registry".encode())
    url = make_url(postgres).set(database=name).render_as_string(hide_password=False)
    database = Database(url)
    port = free_port()
    environment = {
        **os.environ,
        **running_cloud.environment(),
        "DATABASE_URL": url,
        "REGISTRY_ACCESS": "open",
        "REGISTRY_SSH_PORT": str(running_cloud.ssh_port),
        "REGISTRY_CODE_REPOSITORY": str(repository),
        "REGISTRY_LEASE": "PT3S",
        "REGISTRY_HEARTBEAT": "PT1S",
        "REGISTRY_STALLED_AFTER": "PT3S",
        "REGISTRY_UPKEEP_EVERY_S": "1",
        "REGISTRY_ORPHAN_GRACE": "PT0S",
        "REGISTRY_SIGNING_KEY": signing.new_key(),
    }
    folder = tmp_path_factory.mktemp("service")
    service = Service(f"http://127.0.0.1:{port}", running_cloud, database, environment, folder)
    api = service.start("api", "--port", str(port))
    try:
        service.await_ready(api)
        yield service
    finally:
        service.kill(api)
        database.close()
        with psycopg.connect(postgres, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@pytest.fixture
def service(running_service: Service) -> Iterator[Service]:
    """The API over an empty database, and a bucket with small inputs. The test starts the workers."""
    running_service.reset()
    running_service.put("raw_source_data.zip", small_raw_data())
    running_service.put("benchmarking_data.zip", small_benchmarks())
    yield running_service
    running_service.kill(*running_service.workers)
    running_service.workers.clear()
