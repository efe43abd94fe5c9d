"""What every test may ask for: a real Postgres, a simulated AWS, settings, the API, the shared data."""

import gc
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
from fastapi.testclient import TestClient
from filelock import FileLock
from hypothesis import settings as hypothesis
from sqlalchemy import make_url

from app.db import migrate
from app.db.session import Database
from app.main import create_app
from app.settings import Settings
from local.postgres import EmbeddedPostgres
from local.simcloud.server import SimCloud
from local.simcloud.settings import Settings as CloudSettings
from tests.databases import Databases

ROOT = Path(__file__).resolve().parents[1]
ON_CI = os.environ.get("CI", "").lower() in ("1", "true")

# No test is timed: on a busy machine a single example takes long, and says nothing by it. CI tries the same
# examples each time, so that it fails for what a commit changes, and not by chance.
hypothesis.register_profile("untimed", deadline=None, derandomize=ON_CI)
hypothesis.load_profile("untimed")

# No test ever reaches the developer's own account.
for name in [name for name in os.environ if name.startswith(("AWS_", "REGISTRY_"))]:
    del os.environ[name]
os.environ |= {
    "AWS_ACCESS_KEY_ID": "simulated",
    "AWS_SECRET_ACCESS_KEY": "simulated",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
    "HF_HUB_OFFLINE": "1",
}


def pytest_collection_finish() -> None:
    """Leave what is loaded by now, such as torch and moto, out of every later garbage collection."""
    gc.freeze()


def skip_or_fail(reason: str) -> None:
    """On CI nothing is skipped: what is missing there is a failure."""
    if ON_CI:
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def postgres(testrun_uid: str, worker_id: str) -> Iterator[str]:
    """The address of a real Postgres, one for all processes of the test run."""
    # Not below pytest's own folder: each run closes that to others, and as root, Postgres is another user.
    shared = Path(tempfile.gettempdir()) / f"registry-tests-{testrun_uid}"
    shared.mkdir(exist_ok=True)
    users = shared / "users"
    server = EmbeddedPostgres(shared / "data", durable=False)
    with FileLock(shared / "lock"):
        url = server.start()
        users.mkdir(exist_ok=True)
        (users / worker_id).touch()
        make_template(url)
    yield url
    with FileLock(shared / "lock"):
        (users / worker_id).unlink()
        last = not any(users.iterdir())
        if last:
            server.stop()
    if last:
        shutil.rmtree(shared, ignore_errors=True)


def make_template(url: str) -> None:
    """A migrated database to clone: a test's own takes milliseconds then."""
    with psycopg.connect(url, autocommit=True) as connection:
        if connection.execute("SELECT 1 FROM pg_database WHERE datname = 'template_registry'").fetchone():
            return
        connection.execute("CREATE DATABASE making_registry")
    making = Database(make_url(url).set(database="making_registry").render_as_string(hide_password=False))
    migrate.upgrade(making)
    making.close()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("ALTER DATABASE making_registry RENAME TO template_registry")


@pytest.fixture(scope="module")
def _databases(postgres: str) -> Iterator[Databases]:
    made = Databases(postgres)
    yield made
    made.drop()


@pytest.fixture
def new_database(_databases: Databases) -> Iterator[Callable[[str], str]]:
    """Makes databases from a template, and returns their addresses. What a test leaves there is removed."""
    made: list[tuple[str, str]] = []

    def make(template: str = "template_registry") -> str:
        name = _databases.take(template)
        made.append((name, template))
        return _databases.address(name)

    yield make
    for name, template in made:
        _databases.give_back(name, template)


@pytest.fixture
def database(new_database: Callable[[str], str]) -> Iterator[Database]:
    """A migrated, empty database of the test's own."""
    made = Database(new_database("template_registry"))
    yield made
    made.close()


# moto is global, so a process can hold one simulated cloud at a time. One for each module is cheap enough: to
# start it takes 30 ms.
@pytest.fixture(scope="module")
def _module_cloud() -> Iterator[SimCloud]:
    with SimCloud(CloudSettings(session_environment={"HF_HUB_OFFLINE": "1"}, repository=ROOT)) as cloud:
        yield cloud


@pytest.fixture
def cloud(_module_cloud: SimCloud) -> SimCloud:
    """A simulated AWS as it is at its start, without instances."""
    _module_cloud.reset()
    return _module_cloud


@pytest.fixture
def settings(database: Database, cloud: SimCloud) -> Settings:
    """The service's settings over the test's database and the simulated AWS."""
    return Settings.model_validate(
        {
            "database_url": database.conninfo,
            "aws_endpoint_url": cloud.endpoint_url,
            "region": cloud.region,
            "access": "open",
            # What a test changes in the database must show at once.
            "latest_max_age": timedelta(0),
            "ssh_port": cloud.ssh_port,
            "code_repository": str(ROOT),
            "lease": timedelta(seconds=3),
            "orphan_grace": timedelta(0),
        }
    )


@pytest.fixture
def api(settings: Settings) -> Iterator[TestClient]:
    """The API in this process, over the test's database."""
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        yield client


@pytest.fixture(scope="session")
def head() -> str:
    """The checkout's commit: what the simulated machines can bring."""
    done = subprocess.run(
        ["git", "-C", ROOT, "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        skip_or_fail("the tests do not run in a git checkout")
    return done.stdout.strip()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The real trade data beside the checkout."""
    folder = Path(os.environ.get("TARIFF_SHARED_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        skip_or_fail(f"the real trade data are not at {folder}")
    return folder
