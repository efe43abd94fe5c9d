"""/healthz and /readyz: whether the process lives, and whether it can serve."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr

from app.api.probe import BucketProbe
from app.db import migrate
from app.main import create_app
from app.settings import Settings
from app.words import Stage
from local.simcloud.server import SimCloud
from tests.integration.app.registry import Registry


def ready_when(api: TestClient, says: Callable[[str], bool]) -> dict[str, Any]:
    """The answer once its bucket's status is this."""
    ends = time.monotonic() + 20
    while time.monotonic() < ends:
        answer: dict[str, Any] = api.get("/readyz").json()
        if says(answer["bucket"]):
            return answer
        time.sleep(0.05)
    pytest.fail(f"the bucket's status stayed {answer['bucket']!r}")


def test_it_is_ready_with_database_schema_and_bucket(api: TestClient) -> None:
    answer = ready_when(api, lambda bucket: bucket == "ok")
    assert answer == {
        "ready": True,
        "database": "ok",
        "migrations": "ok",
        "bucket": "ok",
        "access": "open: everyone who can reach this service may change everything",
    }


def test_a_database_that_is_away(settings: Settings) -> None:
    away = settings.model_copy(update={"database_url": SecretStr("postgresql://127.0.0.1:1/nowhere")})
    with TestClient(create_app(away)) as client:
        answer = client.get("/readyz")
        assert answer.status_code == 503
        assert answer.json()["database"] == "unreachable (OperationalError)"
        assert client.get("/healthz").json() == {"status": "ok"}


@pytest.mark.parametrize("at", ["0001", None])
def test_a_schema_that_is_behind_the_code(api: TestClient, registry: Registry, at: str | None) -> None:
    registry.execute("DELETE FROM alembic_version")
    if at is not None:
        registry.execute("INSERT INTO alembic_version VALUES (:at)", at=at)
    answer = api.get("/readyz")
    assert answer.status_code == 503
    expected = f"the schema is at {at or 'nothing'}, the code at {migrate.head()}: run `tariff-registry"
    assert answer.json()["migrations"].startswith(expected)


def test_an_empty_database(settings: Settings, new_database: Callable[[str], str]) -> None:
    empty = settings.model_copy(update={"database_url": SecretStr(new_database("template0"))})
    with TestClient(create_app(empty)) as client:
        answer = client.get("/readyz")
        assert answer.status_code == 503
        assert "the schema is at nothing" in answer.json()["migrations"]


def test_a_schema_that_a_newer_release_has_migrated_is_served(api: TestClient, registry: Registry) -> None:
    registry.execute("UPDATE alembic_version SET version_num = '9999'")
    assert api.get("/readyz").status_code == 200


def test_a_bucket_that_is_not_there_is_shown_and_takes_nothing_out_of_service(settings: Settings) -> None:
    with TestClient(create_app(settings.model_copy(update={"bucket": "no-such-bucket"}))) as client:
        answer = ready_when(client, lambda bucket: bucket != "not asked yet")
        assert answer["ready"] is True
        assert "there is no bucket 'no-such-bucket'. Set REGISTRY_BUCKET" in answer["bucket"]
        assert client.get("/readyz").status_code == 200


def test_s3_is_asked_once_however_often_readiness_is(settings: Settings, cloud: SimCloud) -> None:
    fault = cloud.faults.add("s3", "HeadBucket", code="SlowDown", status=503, times=None)
    with TestClient(create_app(settings)) as client:
        ready_when(client, lambda bucket: "503" in bucket)
        for _ in range(10):
            assert client.get("/readyz").json()["ready"] is True
    assert fault.hits == 1


def test_s3_that_hangs_holds_up_neither_readiness_nor_the_deploy_job(
    settings: Settings, registry: Registry
) -> None:
    registry.model(stages=(Stage.DEVELOPMENT,))
    answers_now = threading.Event()
    app = create_app(settings)
    with TestClient(app) as client:
        app.state.bucket_probe = BucketProbe(lambda: assert_set(answers_now))
        with ThreadPoolExecutor(60) as threads:
            answers = list(threads.map(lambda _: client.get("/readyz"), range(60)))
        assert client.get("/models/development/latest").status_code == 200
        answers.append(client.get("/readyz"))
        assert {(answer.status_code, answer.json()["bucket"]) for answer in answers} == {
            (200, "not asked yet")
        }
        answers_now.set()
        ready_when(client, lambda bucket: bucket == "ok")


def assert_set(event: threading.Event) -> None:
    assert event.wait(60)


def test_s3_that_does_not_answer_is_named(settings: Settings, cloud: SimCloud) -> None:
    cloud.faults.add("s3", "HeadBucket", latency_s=4.0, times=None)
    with TestClient(create_app(settings)) as client:
        ready_when(client, lambda bucket: "ReadTimeoutError" in bucket)
