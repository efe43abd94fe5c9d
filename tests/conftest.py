"""What every test may ask for: a real Postgres, a simulated AWS, settings, the API, the shared data."""

import gc
import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

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


class Databases:
    """The databases of a module's tests.

    Making one takes up to a quarter of a second, and most tests need one. So a migrated database whose schema
    a test has left alone is emptied and given to the next test.
    """

    def __init__(self, server: str) -> None:
        self._server = server
        self._emptied: list[str] = []
        self._fingerprint = ""

    def address(self, name: str) -> str:
        return make_url(self._server).set(database=name).render_as_string(hide_password=False)

    def take(self, template: str) -> str:
        """The name of an empty database that nobody else uses."""
        if template == "template_registry" and self._emptied:
            return self._emptied.pop()
        name = f"test_{secrets.token_hex(6)}"
        with psycopg.connect(self._server, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}".encode())
        if template == "template_registry" and not self._fingerprint:
            with psycopg.connect(self.address(name)) as connection:
                self._fingerprint = fingerprint(connection)
        return name

    def give_back(self, name: str, template: str) -> None:
        if template == "template_registry" and self._empty(name):
            self._emptied.append(name)
            return
        self._drop(name)

    def drop(self) -> None:
        """Drop those that wait for another test."""
        while self._emptied:
            self._drop(self._emptied.pop())

    def _drop(self, name: str) -> None:
        with psycopg.connect(self._server, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())

    def _empty(self, name: str) -> bool:
        """Remove every row. Returns whether the database is as a new one is."""
        with psycopg.connect(self.address(name)) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            if fingerprint(connection) != self._fingerprint:
                return False
            tables = connection.execute(
                "SELECT quote_ident(tablename) FROM pg_tables"
                " WHERE schemaname = 'public' AND tablename <> 'alembic_version'"
            ).fetchall()
            # Without triggers, because some tables refuse every change of what is in them.
            connection.execute("SET LOCAL session_replication_role = replica")
            connection.execute(";".join(f"DELETE FROM {table}" for (table,) in tables).encode())
            connection.execute(
                "SELECT setval(format('%I.%I', schemaname, sequencename)::regclass, start_value, false)"
                " FROM pg_sequences"
            )
            size = connection.execute("SELECT pg_database_size(current_database())").fetchone()
        return size is not None and size[0] < MAX_REUSED_BYTES


# Deleted rows keep their room. A larger database than this had so many that they would slow later tests down.
MAX_REUSED_BYTES = 16 << 20


def fingerprint(connection: psycopg.Connection[Any]) -> str:
    """A digest of the schema, of its revision, and of the database's settings."""
    found = connection.execute(
        """
        SELECT md5(string_agg(part, E'\\n' ORDER BY part)) FROM (
            SELECT version_num FROM alembic_version
            UNION ALL SELECT format('%s %s', attribute.attrelid::regclass, attribute)
              FROM pg_attribute attribute JOIN pg_class ON pg_class.oid = attrelid
             WHERE relnamespace = 'public'::regnamespace
            UNION ALL SELECT format('%s %s', conrelid::regclass, pg_get_constraintdef(oid))
              FROM pg_constraint WHERE connamespace = 'public'::regnamespace
            UNION ALL SELECT indexdef FROM pg_indexes WHERE schemaname = 'public'
            UNION ALL SELECT format('%s %s', tgenabled, pg_get_triggerdef(oid)) FROM pg_trigger
            UNION ALL SELECT prosrc FROM pg_proc WHERE pronamespace = 'public'::regnamespace
            UNION ALL SELECT format('%s', setconfig) FROM pg_db_role_setting
             WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())
        ) parts(part)
        """
    ).fetchone()
    return str(found and found[0])


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
