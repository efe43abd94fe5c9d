"""/healthz and /readyz: whether the process lives, and whether it can serve."""

from collections.abc import Callable

import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr

from app.db import migrate
from app.main import create_app
from app.settings import Settings
from local.simcloud.server import SimCloud
from tests.integration.app.registry import Registry


def test_it_is_ready_with_database_schema_and_bucket(api: TestClient) -> None:
    answer = api.get("/readyz")
    assert answer.status_code == 200
    assert answer.json() == {"ready": True, "database": "ok", "migrations": "ok", "bucket": "ok"}


def test_a_database_that_is_away(settings: Settings) -> None:
    away = settings.model_copy(update={"database_url": SecretStr("postgresql://127.0.0.1:1/nowhere")})
    with TestClient(create_app(away)) as client:
        answer = client.get("/readyz")
        assert answer.status_code == 503
        assert answer.json()["database"] == "unreachable (OperationalError)"
        assert answer.json()["bucket"] == "ok"
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


def test_a_bucket_that_is_not_there(settings: Settings) -> None:
    with TestClient(create_app(settings.model_copy(update={"bucket": "no-such-bucket"}))) as client:
        answer = client.get("/readyz")
        assert answer.status_code == 503
        assert "there is no bucket 'no-such-bucket'; set REGISTRY_BUCKET" in answer.json()["bucket"]


def test_s3_that_fails_is_asked_once(api: TestClient, cloud: SimCloud) -> None:
    fault = cloud.faults.add("s3", "HeadBucket", code="SlowDown", status=503, times=None)
    answer = api.get("/readyz")
    assert answer.status_code == 503
    assert "503" in answer.json()["bucket"]
    assert fault.hits == 1


def test_s3_that_hangs_does_not_hold_the_answer_up(api: TestClient, cloud: SimCloud) -> None:
    fault = cloud.faults.add("s3", "HeadBucket", latency_s=4.0, times=None)
    answer = api.get("/readyz")
    assert answer.status_code == 503
    assert "ReadTimeoutError" in answer.json()["bucket"]  # it gave up, and did not ask again
    assert fault.hits == 1
