"""An upgrade in the middle of a build: stop the workers, migrate, start the new ones."""

import re
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text

from app.db import migrate
from app.db.session import Database
from app.settings import Settings
from local.fake_training import Control, Repository
from local.simcloud.server import SimCloud
from local.simcloud.settings import Settings as CloudSettings
from tests.integration.worker.conftest import CONFIG
from tests.integration.worker.release_before import STEPS, ReleaseBefore
from worker import mirror
from worker.clouds import Clouds
from worker.runner import Runner

BEFORE = "0005"
VERSION = "0.0.2"

# What the older release reads, in an order of its own. The outbox's entries that are done were only a record.
_ROWS = {
    "builds": "SELECT * FROM builds ORDER BY id",
    "build_steps": "SELECT * FROM build_steps ORDER BY build_id, position",
    "build_log_chunks": "SELECT * FROM build_log_chunks ORDER BY build_id, start",
    "build_inputs": "SELECT * FROM build_inputs ORDER BY build_id, kind, name",
    "models": "SELECT * FROM models ORDER BY id",
    "artifacts": "SELECT * FROM artifacts ORDER BY key",
    "promotions": "SELECT * FROM promotions ORDER BY id",
    "outbox": "SELECT key, created_at FROM outbox WHERE done_at IS NULL ORDER BY key",
    "jobs": "SELECT * FROM procrastinate_jobs ORDER BY id",
}


@pytest.fixture(scope="module")
def control(tmp_path_factory: pytest.TempPathFactory) -> Control:
    return Control(tmp_path_factory.mktemp("control"))


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    return Repository.make(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module")
def head(repository: Repository) -> str:
    return repository.commit(CONFIG.format(version=VERSION))


@pytest.fixture(scope="module")
def _module_cloud(control: Control, repository: Repository, head: str) -> Iterator[SimCloud]:
    """Its instances have the fake training for their repository."""
    settings = CloudSettings(
        repository=repository.folder, session_environment=control.environment(seconds=0.3)
    )
    with SimCloud(settings) as cloud:
        yield cloud


@pytest.fixture
def database(new_database: Callable[[str], str]) -> Iterator[Database]:
    """A database of the release before."""
    made = Database(new_database("template0"))
    migrate.upgrade(made, BEFORE)
    yield made
    made.close()


@pytest.fixture
def settings(database: Database, cloud: SimCloud, repository: Repository) -> Settings:
    return Settings.model_validate(
        {
            "database_url": database.conninfo,
            "aws_endpoint_url": cloud.endpoint_url,
            "region": cloud.region,
            "ssh_port": cloud.ssh_port,
            "code_repository": str(repository.folder),
            "lease": timedelta(seconds=3),
        }
    )


@pytest.fixture
def before(
    database: Database, filled_bucket: Clouds, cloud: SimCloud, control: Control, head: str
) -> ReleaseBefore:
    control.clear()
    return ReleaseBefore(
        database, filled_bucket, cloud, control, head, search_config=CONFIG.format(version=VERSION)
    )


@pytest.fixture
def work(settings: Settings, database: Database, filled_bucket: Clouds) -> Iterator[Callable[[], None]]:
    """What a worker of today does with the jobs that wait, until none is left."""
    stopping = threading.Event()

    runner = Runner(settings, database, filled_bucket, "the new worker", stopping)

    def do_what_waits() -> None:
        waiting = text("SELECT args->>'build_id' FROM procrastinate_jobs WHERE task_name = 'run_build'")
        with database.engine.connect() as connection:
            builds = list(connection.execute(waiting).scalars())
        for build_id in builds:
            runner.carry(UUID(build_id))
        mirror.drain(database, filled_bucket.bucket)

    yield do_what_waits
    stopping.set()


def rows(database: Database) -> dict[str, list[dict[str, Any]]]:
    with database.engine.connect() as connection:
        return {
            table: [dict(row) for row in connection.execute(text(query)).mappings()]
            for table, query in _ROWS.items()
        }


def assert_succeeded(api: TestClient, before: ReleaseBefore) -> None:
    """As CI and the deploy job see it: the build ended well, its model is there, its one instance is gone."""
    build = api.get(f"/builds/{before.id}").json()
    assert build["state"] == "succeeded", build["failure"]
    assert [step["name"] for step in build["steps"]] == list(STEPS)
    assert {step["state"] for step in build["steps"]} == {"succeeded"}
    assert api.get(f"/models/{before.prefix}").json()["stages"] == ["development"]
    [instance] = before.cloud.instances(ended=True)
    assert instance.state == "terminated"
    assert before.control.starts("train") == [str(before.id)]
    lines = re.findall(r"^train: line (\d+)$", api.get(f"/builds/{before.id}/log").text, re.MULTILINE)
    assert lines == [str(number) for number in range(1, len(lines) + 1)]
    assert lines


def launched(before: ReleaseBefore, *, stored: bool) -> None:
    before.post(VERSION)
    before.find_everything()
    instance_id = before.launch()
    if stored:
        before.finish_launch(instance_id)


def training(before: ReleaseBefore) -> None:
    launched(before, stored=True)
    before.control.hold("train")
    before.prepare_machine()
    before.start_training()
    before.follow_training(lines=5)


@pytest.mark.parametrize("stored", [True, False], ids=["stored", "launched but not stored"])
def test_a_build_that_was_stopped_at_its_launch_goes_on_with_its_instance(
    before: ReleaseBefore, database: Database, api: TestClient, work: Callable[[], None], stored: bool
) -> None:
    launched(before, stored=stored)
    before.hand_over()
    migrate.upgrade(database)
    work()
    assert_succeeded(api, before)


def test_a_training_that_ran_during_the_upgrade_is_followed_to_its_end(
    before: ReleaseBefore, database: Database, api: TestClient, work: Callable[[], None]
) -> None:
    training(before)
    before.hand_over()
    migrate.upgrade(database)
    shown = api.get(f"/builds/{before.id}").json()
    assert (shown["state"], shown["progress"]["phase"]) == ("running", "train")
    before.control.release("train")
    work()
    assert_succeeded(api, before)


def test_a_running_build_survives_the_way_back_to_the_release_before(
    before: ReleaseBefore, database: Database, api: TestClient, work: Callable[[], None]
) -> None:
    earlier = before.publish_earlier_model("0.0.1")
    training(before)
    before.hand_over()
    written = rows(database)
    migrate.upgrade(database)
    migrate.downgrade(database, BEFORE)
    assert rows(database) == written
    migrate.upgrade(database)
    # The training ends while no worker is there, and is not started again.
    before.control.release("train")
    before.await_end_of_training()
    work()
    assert_succeeded(api, before)
    # A marker of the earlier model that the older worker had not written yet.
    assert f"{earlier}/development" in [key for key, _ in before.clouds.bucket.list(earlier)]
