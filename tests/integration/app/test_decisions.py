"""What people decide about models: restore, pin, release, and how they take it back."""

from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.words import Stage
from tests.integration.app.registry import Registry
from tests.integration.app.test_marks import mark, rule_of, state_of, superseded, sweep

DEVELOPMENT, STAGING, PRODUCTION = Stage


def call(api: TestClient, method: str, path: str, body: dict[str, str] | None = None) -> dict[str, Any]:
    answer = api.request(method, path, json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def actions(registry: Registry, prefix: str) -> list[Any]:
    return registry.values("SELECT action FROM audit WHERE subject = :p ORDER BY id", p=prefix)


def test_a_marked_model_is_restored_once(api: TestClient, registry: Registry) -> None:
    prefix = registry.model()
    mark(registry, prefix)
    for _ in range(2):
        shown = call(api, "post", f"/models/{prefix}/restore")
        assert (shown["state"], shown["mark"]) == ("kept", None)
        # What it answers is also what a reader is shown.
        read = api.get(f"/models/{prefix}").json()
        assert read | shown == read
    assert api.get(f"/models/{prefix}/artifacts/model.zip", follow_redirects=False).status_code == 307
    assert actions(registry, prefix) == ["model_marked", "model_restored"]


def test_a_pin_keeps_a_model_until_it_is_taken_off(api: TestClient, registry: Registry) -> None:
    prefix = registry.model()
    mark(registry, prefix)
    for note in ("the annual report", "something else"):
        shown = call(api, "post", f"/models/{prefix}/pin", {"note": note})
        assert (shown["state"], shown["pin"]["note"], shown["pin"]["by"]) == (
            "kept",
            "the annual report",
            "anonymous",
        )
    assert rule_of(lambda: mark(registry, prefix)) == "pinned"
    for _ in range(2):
        assert call(api, "delete", f"/models/{prefix}/pin")["pin"] is None
    mark(registry, prefix)
    assert actions(registry, prefix) == [
        "model_marked",
        "model_restored",
        "model_pinned",
        "model_unpinned",
        "model_marked",
    ]


def test_a_release_lets_a_superseded_model_go_until_it_is_withdrawn(
    api: TestClient, registry: Registry
) -> None:
    prefix = superseded(registry, *Stage)
    assert rule_of(lambda: mark(registry, prefix)) == "models_released"
    first = call(api, "post", f"/models/{prefix}/release", {"reason": "it was replaced"})
    assert call(api, "post", f"/models/{prefix}/release", {"reason": "again"}) == first
    assert first["release"]["note"] == "it was replaced"
    mark(registry, prefix)
    # What needs the release is restored when it is withdrawn.
    for _ in range(2):
        shown = call(api, "delete", f"/models/{prefix}/release")
        assert (shown["state"], shown["release"]) == ("kept", None)
    assert rule_of(lambda: mark(registry, prefix)) == "models_released"
    assert actions(registry, prefix)[-4:] == [
        "model_released",
        "model_marked",
        "release_withdrawn",
        "model_restored",
    ]
    # One that says nothing about a later promotion can be given again.
    call(api, "post", f"/models/{prefix}/release", {"reason": "it was replaced"})
    registry.promote(prefix, PRODUCTION)
    registry.model("1.2.0", stages=tuple(Stage))
    assert rule_of(lambda: mark(registry, prefix)) == "models_released"
    renewed = call(api, "post", f"/models/{prefix}/release", {"reason": "replaced again"})
    assert renewed["release"]["note"] == "replaced again"
    mark(registry, prefix)
    # A model that never reached staging needs none, so its mark stays.
    other = registry.model("2.0.0")
    call(api, "post", f"/models/{other}/release", {"reason": "why not"})
    mark(registry, other)
    assert call(api, "delete", f"/models/{other}/release")["state"] == "marked"


def test_it_is_too_late_once_the_files_are_being_deleted(api: TestClient, registry: Registry) -> None:
    prefix = registry.model()
    mark(registry, prefix)
    sweep(registry, prefix)
    before = registry.counts() | {"audit": registry.count("audit")}
    for method, what, body in (
        ("post", "restore", None),
        ("post", "pin", {"note": "x"}),
        ("post", "release", {"reason": "x"}),
        ("delete", "release", None),
    ):
        answer = api.request(method, f"/models/{prefix}/{what}", json=body)
        assert (answer.status_code, answer.json()["type"]) == (410, "/problems/model-collected")
    assert call(api, "delete", f"/models/{prefix}/pin")["state"] == "sweeping"
    assert registry.counts() | {"audit": registry.count("audit")} == before
    assert state_of(registry, prefix) == "sweeping"


@pytest.mark.parametrize(("what", "field"), [("pin", "note"), ("release", "reason")])
def test_a_decision_needs_words_and_a_model(
    api: TestClient, registry: Registry, what: str, field: str
) -> None:
    prefix = registry.model()
    for body in ({}, {field: ""}, {field: " \u2800\t"}, {field: "a\x00"}, {field: "x", "more": 1}):
        refused = api.post(f"/models/{prefix}/{what}", json=body)
        assert refused.status_code == 422, body
    assert api.post(f"/models/1.0.0-abcdef1/{what}", json={field: "x"}).status_code == 404
    assert registry.count("audit", "action LIKE 'model%'") == 0
