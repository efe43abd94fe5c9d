"""What holds for every request: limits, HEAD, the methods of a path, no guessing of types, no redirects."""

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.api.common.edge import MAX_BODY_BYTES, MAX_HEADER_BYTES
from app.words import Stage
from tests.integration.app.registry import Registry
from tests.integration.app.snapshot import document

JSON = {"Content-Type": "application/json"}


def problem(answer: Any, status: int, type_: str) -> dict[str, Any]:
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    found: dict[str, Any] = answer.json()
    assert found["type"] == f"/problems/{type_}"
    return found


# Limits


def test_a_body_that_announces_itself_as_too_large_is_refused(unchanged_api: TestClient) -> None:
    for path in ("/builds", "/models/1.0.0-abcdef1/promotions"):
        answer = unchanged_api.post(
            path, content=b"[" + b"{}," * (MAX_BODY_BYTES // 3) + b"{}]", headers=JSON
        )
        assert "Send less" in problem(answer, 413, "body-too-large")["detail"]


def test_a_body_that_turns_out_to_be_too_large_is_refused(unchanged_api: TestClient) -> None:
    sent = 0

    def chunks() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(100):
            sent += 1
            yield b" " * (1 << 20)

    answer = unchanged_api.post("/builds", content=chunks(), headers=JSON)
    problem(answer, 413, "body-too-large")


def test_the_largest_body_that_is_allowed_is_read(unchanged_api: TestClient) -> None:
    answer = unchanged_api.post("/builds", content=b" " * MAX_BODY_BYTES, headers=JSON)
    problem(answer, 422, "invalid-request")


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/models", {"X-Long": "x" * MAX_HEADER_BYTES}),
        ("/models", {f"X-{number}": "x" * 300 for number in range(120)}),
        (f"/models?branch={'x' * MAX_HEADER_BYTES}", {}),
    ],
    ids=["one header", "many headers", "query"],
)
def test_headers_that_are_too_large_are_refused(
    unchanged_api: TestClient, path: str, headers: dict[str, str]
) -> None:
    problem(unchanged_api.get(path, headers=headers), 431, "headers-too-large")


# HEAD, and the methods of a path


def test_head_answers_like_get_without_the_body(api: TestClient, registry: Registry) -> None:
    prefix = registry.model(stages=(Stage.DEVELOPMENT,))
    build = registry.values("SELECT id FROM builds")[0]
    places = {
        "id": build,
        "prefix": prefix,
        "other": prefix,
        "stage": "development",
        "name": "model.zip",
        "sha256": "0" * 64,
    }
    paths = [path.format(**places) for path, methods in document()["paths"].items() if "get" in methods]
    for path in (*paths, "/", "/docs", "/openapi.json", "/models/1.0.0-0000000", "/builds?limit=0"):
        got = api.get(path, follow_redirects=False)
        head = api.head(path, follow_redirects=False)
        assert head.status_code == got.status_code, path
        assert head.content == b""
        for name in ("content-type", "content-length", "etag", "x-log-size"):
            assert head.headers.get(name) == got.headers.get(name), (path, name)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "/builds", "GET, HEAD, POST"),
        ("PUT", "/builds/6f1c2b7e-0d5a-4c39-9a51-3e0c9d1f7b42", "GET, HEAD"),
        ("HEAD", "/models/1.0.0-abcdef1/promotions", "POST"),
        ("GET", "/models/1.0.0-abcdef1/promotions", "POST"),
        ("POST", "/models/development/latest", "GET, HEAD"),
        ("TRACE", "/healthz", "GET, HEAD"),
    ],
)
def test_a_method_that_a_path_does_not_take_is_refused_with_all_that_it_takes(
    unchanged_api: TestClient, method: str, path: str, allowed: str
) -> None:
    answer = unchanged_api.request(method, path)
    assert (answer.status_code, answer.headers["allow"]) == (405, allowed)
    if method != "HEAD":
        assert f"takes only {allowed}" in problem(answer, 405, "method-not-allowed")["detail"]


def test_nothing_is_redirected_to_an_address_made_from_the_host_header(unchanged_api: TestClient) -> None:
    for path in ("/builds/", "/models/", "/models/development/latest/", "/builds//", "/docs/"):
        for method in ("GET", "POST"):
            host = {"Host": "evil.example"}
            answer = unchanged_api.request(method, path, headers=host, follow_redirects=False)
            assert answer.status_code == 404
            assert "evil" not in str(answer.headers)
    start = unchanged_api.get("/", headers={"Host": "evil.example"}, follow_redirects=False)
    assert start.headers["location"] == "/docs"


# Every answer


def test_no_browser_may_guess_what_an_answer_is(api: TestClient, registry: Registry) -> None:
    build = registry.queue()
    for path in (
        f"/builds/{build}/log",
        "/models",
        "/docs",
        "/openapi.json",
        "/nowhere",
        "/models?x=1",
        "/readyz",
    ):
        assert api.get(path).headers.get_list("x-content-type-options") == ["nosniff"], path
    assert api.post("/builds", content=b"{", headers=JSON).headers["x-content-type-options"] == "nosniff"


def test_a_tag_is_found_in_whichever_header_line_it_comes(api: TestClient, registry: Registry) -> None:
    registry.model(stages=(Stage.DEVELOPMENT,))
    tag = api.get("/models/development/latest").headers["etag"]
    for lines in ([tag, '"x"'], ['"x"', tag], ['"x", "y"', f'"z", W/{tag.removeprefix("W/")}']):
        headers = [("If-None-Match", line) for line in lines]
        assert api.get("/models/development/latest", headers=headers).status_code == 304, lines
    other = api.get(
        "/models/development/latest", headers=[("If-None-Match", '"x"'), ("If-None-Match", '"y"')]
    )
    assert other.status_code == 200


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/stages", 200),
        ("/models", 200),
        ("/models/production/latest", 404),
        ("/models/production/latest?verison=1", 422),
        ("/nowhere", 404),
        ("/healthz", 200),
    ],
)
def test_no_cache_may_store_what_changes(unchanged_api: TestClient, path: str, status: int) -> None:
    answer = unchanged_api.get(path)
    assert (answer.status_code, answer.headers["Cache-Control"]) == (status, "no-store")
