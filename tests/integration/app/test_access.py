"""Who may change something, and that every error is a problem document."""

import hashlib
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import text

from app.db.session import Database
from app.main import create_app
from app.settings import Settings
from app.words import Stage
from tests.integration.app.registry import Registry

TOKENS = {"ci": "c1-token", "deploy": "d3ploy"}


@pytest.fixture
def guarded(settings: Settings) -> Iterator[TestClient]:
    """The API where tokens are needed."""
    entries = tuple(f"{who}={hashlib.sha256(token.encode()).hexdigest()}" for who, token in TOKENS.items())
    with TestClient(create_app(settings.model_copy(update={"api_tokens": entries}))) as client:
        yield client


def writing_operations(api: TestClient) -> list[tuple[str, str]]:
    assert isinstance(api.app, FastAPI)
    return [
        (method, path)
        for path, operations in api.app.openapi()["paths"].items()
        for method in operations
        if method not in ("get", "head")
    ]


WRITES = [("post", "/builds"), ("post", "/models/{prefix}/promotions")]


def test_these_are_all_the_operations_that_write(api: TestClient) -> None:
    assert writing_operations(api) == WRITES


@pytest.mark.parametrize(("method", "path"), WRITES)
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Basic Y2k6YzEtdG9rZW4="},
        {"Authorization": "c1-token"},
        {"Authorization": "Bearer " + hashlib.sha256(b"c1-token").hexdigest()},
    ],
    ids=["none", "wrong", "basic", "bare", "digest"],
)
def test_changes_need_a_token(
    guarded: TestClient, registry: Registry, method: str, path: str, headers: dict[str, str]
) -> None:
    prefix = registry.model()
    before = registry.counts()
    body = {"/builds": registry.body()}.get(path, {"stage": "development"})
    answer = guarded.request(method, path.format(prefix=prefix), json=body, headers=headers)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["type"] == "/problems/unauthorized"
    assert "REGISTRY_API_TOKENS" in answer.json()["detail"]
    assert registry.counts() == before


def test_the_name_that_belongs_to_the_token_is_recorded(guarded: TestClient, registry: Registry) -> None:
    body = registry.body()
    headers = {"Authorization": f"Bearer {TOKENS['ci']}"}
    build = guarded.post("/builds", json=body, headers=headers).json()["build"]
    assert build["requested_by"] == "ci"
    prefix = registry.publish(UUID(build["id"]))
    headers = {"Authorization": f"Bearer {TOKENS['deploy']}"}
    answer = guarded.post(f"/models/{prefix}/promotions", json={"stage": "development"}, headers=headers)
    assert answer.json()["promoted_by"] == "deploy"


def test_a_model_that_is_promoted_with_its_build_names_who_asked_for_the_build(
    guarded: TestClient, registry: Registry
) -> None:
    body = registry.body(promote_to="development")
    headers = {"Authorization": f"Bearer {TOKENS['ci']}"}
    build = guarded.post("/builds", json=body, headers=headers).json()["build"]
    registry.publish(UUID(build["id"]))
    assert guarded.get("/models/development/latest").json()["promoted_by"] == "ci"


def test_reads_stay_open(guarded: TestClient, registry: Registry) -> None:
    prefix = registry.model(stages=(Stage.DEVELOPMENT,))
    build = registry.values("SELECT id FROM builds")[0]
    for path in (
        "/builds",
        f"/builds/{build}",
        f"/builds/{build}/log",
        "/models",
        f"/models/{prefix}",
        "/models/development/latest",
        "/healthz",
        "/readyz",
        "/docs",
        "/openapi.json",
    ):
        assert guarded.get(path).status_code == 200, path


def test_without_configured_tokens_everybody_is_anonymous(api: TestClient, registry: Registry) -> None:
    build = api.post("/builds", json=registry.body(), headers={"Authorization": "Bearer any"}).json()["build"]
    assert build["requested_by"] == "anonymous"


JSON = {"Content-Type": "application/json"}
PROBLEMS: list[tuple[str, str, dict[str, Any], int, str, str]] = [
    ("GET", "/nowhere", {}, 404, "path-not-found", "GET /docs"),
    ("DELETE", "/builds", {}, 405, "method-not-allowed", "does not take DELETE"),
    ("PUT", "/models/1.0.0-abcdef1", {}, 405, "method-not-allowed", "it takes GET"),
    ("POST", "/builds", {"content": "{}"}, 422, "invalid-request", "Content-Type: application/json"),
    ("POST", "/builds", {"content": "{", "headers": JSON}, 422, "invalid-request", "is not readable JSON"),
    ("POST", "/builds", {"content": b"\xff\xfe", "headers": JSON}, 422, "invalid-request", "body"),
    ("POST", "/builds", {"json": []}, 422, "invalid-request", "body"),
    ("POST", "/builds", {"json": {}}, 422, "invalid-request", "body.sha: Field required"),
    ("POST", "/builds", {"data": {"sha": "x"}}, 422, "invalid-request", "body"),
    ("GET", "/builds?limit=0", {}, 422, "invalid-request", "query.limit"),
    ("GET", "/builds?limit=201", {}, 422, "invalid-request", "query.limit"),
    ("GET", "/builds?cursor=me", {}, 422, "invalid-request", "pass the `next` of the page before"),
    ("GET", "/builds?state=done", {}, 422, "invalid-request", "'queued'"),
    ("GET", "/builds?branch=%00", {}, 422, "invalid-request", "U+0000"),
    ("GET", "/builds?prefix=%00", {}, 422, "invalid-request", "U+0000"),
    ("GET", "/models?version=%00", {}, 422, "invalid-request", "U+0000"),
    ("GET", "/models?branch=%00", {}, 422, "invalid-request", "U+0000"),
    ("GET", "/models?stage=moon", {}, 422, "invalid-request", "'production'"),
    ("GET", "/models/development/latest?version=%00", {}, 422, "invalid-request", "U+0000"),
    ("GET", "/models/%00", {}, 422, "invalid-request", "is no prefix"),
    ("GET", "/models/1.0.0-abcdef1/artifacts/%00", {}, 404, "not-found", "There is no model"),
]


@pytest.mark.parametrize(
    ("method", "path", "content", "status", "kind", "says"),
    PROBLEMS,
    ids=[f"{method} {path} {content}" for method, path, content, *_ in PROBLEMS],
)
def test_every_error_is_a_problem_document(
    unchanged_api: TestClient,
    method: str,
    path: str,
    content: dict[str, Any],
    status: int,
    kind: str,
    says: str,
) -> None:
    answer = unchanged_api.request(method, path, **content)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["type"] == f"/problems/{kind}"
    assert problem["status"] == status
    assert problem["title"]
    assert says in problem["detail"]


def test_a_defect_is_a_problem_document_that_gives_nothing_away(
    api: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        msg = "the password is hunter2"
        raise ZeroDivisionError(msg)

    monkeypatch.setattr("app.api.models.stages.latest", broken)
    answer = api.get("/models/development/latest")
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["type"] == "/problems/internal-error"
    assert "hunter2" not in answer.text


def test_a_registry_without_aws_credentials_tells_what_it_lacks(
    settings: Settings, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.model(stages=(Stage.DEVELOPMENT,))
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with TestClient(create_app(settings)) as client:
        answer = client.get("/models/development/latest")
    assert answer.status_code == 502
    assert answer.json()["type"] == "/problems/cloud-error"
    assert "IAM role" in answer.json()["detail"]


def test_a_database_that_is_away_is_told_to_be_tried_again(settings: Settings) -> None:
    away = settings.model_copy(
        update={"database_url": type(settings.database_url)("postgresql://127.0.0.1:1/x")}
    )
    with TestClient(create_app(away)) as client:
        for answer in (client.get("/models"), client.post("/builds", json=Registry(None).body())):  # type: ignore[arg-type]
            assert answer.status_code == 503
            assert answer.headers["retry-after"] == "5"
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.json()["type"] == "/problems/database-unavailable"


def test_a_cut_connection_is_replaced(api: TestClient, database: Database, registry: Registry) -> None:
    """As after a restart of Postgres, between two requests."""
    assert api.get("/models").status_code == 200
    with database.engine.begin() as connection:
        connection.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        )
    assert api.get("/models").status_code == 200
    assert api.post("/builds", json=registry.body()).status_code == 202
