"""The audit trail: every change has an entry, and nobody can change one."""

from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy.exc import DBAPIError

from app.api.common import examples
from app.settings import Settings
from app.storage.bucket import Bucket
from app.words import AuditAction, Pinned, Stage
from tests.integration.app.registry import Registry
from tests.integration.app.test_access import WRITES

# What no call of the fixture does: a workflow's sign-in, and what workers record.
ELSEWHERE = {
    AuditAction.SIGNED_IN,
    AuditAction.MODEL_SIGNED,
    AuditAction.MODEL_MARKED,
    AuditAction.MODEL_SWEPT,
    AuditAction.MODEL_COLLECTED,
}


def entries(api: TestClient, **filters: str) -> list[dict[str, Any]]:
    answer = api.get("/audit", params=filters)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["items"]
    return found


@pytest.fixture
def changes(api: TestClient, registry: Registry, settings: Settings) -> dict[tuple[str, str], Any]:
    """One change by each call that changes something, with the answers."""
    registry.bucket = Bucket.of(settings)
    older, newer = registry.model("1.0.0"), registry.model("1.0.1")
    made: dict[tuple[str, str], Any] = {}

    def call(
        path: str, body: dict[str, Any] | None = None, method: str = "post", **places: str
    ) -> dict[str, Any]:
        headers = {"X-Request-Id": f"of {path}"[3:].strip("/")}
        answer = api.request(method, path.format(**places), json=body, headers=headers)
        assert answer.is_success, answer.text
        made[method, path] = answer.json()
        found: dict[str, Any] = answer.json()
        return found

    build = call("/builds", registry.body("2.0.0"))["build"]
    call("/builds/{id}/cancel", id=build["id"])
    call("/builds/{id}/retry", id=build["id"])
    call("/models/{prefix}/promotions", {"stage": "development"}, prefix=older)
    call("/models/{prefix}/promotions", {"stage": "development", "note": "newer"}, prefix=newer)
    call("/models/{prefix}/verdict", {"verdict": "failed", "reason": "bad"}, prefix=newer)
    call("/stages/{stage}/rollback", {"expected": newer, "note": "worse"}, stage="development")
    registry.execute(
        "UPDATE models SET state = 'marked', marked_at = now(), mark_reason = '{}' WHERE prefix = :prefix",
        prefix=newer,
    )
    call("/models/{prefix}/restore", prefix=newer)
    call("/models/{prefix}/pin", examples.PIN_CREATE, prefix=newer)
    call("/models/{prefix}/pin", method="delete", prefix=newer)
    call("/models/{prefix}/release", examples.RELEASE_CREATE, prefix=newer)
    call("/models/{prefix}/release", method="delete", prefix=newer)
    release_rule = call("/gc/release-rules", examples.RELEASE_RULE_CREATE)
    call("/gc/release-rules/{id}", method="delete", id=release_rule["id"])
    call("/mirror/reconcile", {})
    call("/models/{prefix}/sign", prefix=older)
    call("/models/{prefix}/reproduce", {"accept": list(Pinned)}, prefix=older)
    run = call("/imports", {})
    call("/runs/{id}/stop", id=run["id"])
    token = call("/tokens", {"name": "ci", "scopes": ["build"]})
    call("/tokens/{id}", method="delete", id=token["id"])
    call("/images/clean", {})
    call("/gc/runs", {})
    rule = call("/trusted-publishers", examples.PUBLISHER_CREATE)
    call("/trusted-publishers/{id}", method="delete", id=rule["id"])
    call("/notifications/test")
    return made


def test_every_change_has_an_entry(api: TestClient, changes: dict[tuple[str, str], Any]) -> None:
    assert set(changes) == set(WRITES)
    found = entries(api)
    assert {entry["action"] for entry in found} == set(AuditAction) - ELSEWHERE
    # The fixture's two models come from builds that were asked for too.
    assert len(found) == len(changes) + 3
    assert {entry["who"] for entry in found} == {"anonymous"}


def test_an_entry_says_what_was_there_before_and_after(
    api: TestClient, changes: dict[tuple[str, str], Any]
) -> None:
    del changes
    [rolled_back] = entries(api, action="rolled_back")
    promoted = entries(api, action="promoted")
    newer, older = promoted[0]["subject"], promoted[1]["subject"]
    assert rolled_back["before"] == {"stage": "development", "prefix": newer}
    assert rolled_back["after"] == {
        "stage": "development",
        "prefix": older,
        "override": False,
        "note": "worse",
    }
    assert promoted[1]["before"] == {"stage": "development", "prefix": None}
    assert [entry["action"] for entry in entries(api, subject=older)] == ["rolled_back", "promoted"]


def test_entries_come_in_pages_newest_first(api: TestClient, changes: dict[tuple[str, str], Any]) -> None:
    del changes
    whole = entries(api)
    page = api.get("/audit", params={"limit": 5}).json()
    rest = api.get("/audit", params={"limit": 50, "cursor": page["next"]}).json()
    assert page["items"] + rest["items"] == whole
    assert rest["next"] is None
    assert [entry["id"] for entry in whole] == sorted((entry["id"] for entry in whole), reverse=True)
    assert entries(api, since=whole[3]["at"], until=whole[0]["at"]) == whole[1:4]


def test_the_id_of_a_request_is_answered_and_recorded(api: TestClient, registry: Registry) -> None:
    answer = api.post("/builds", json=registry.body(), headers={"X-Request-Id": "run-17.3"})
    assert answer.headers["x-request-id"] == "run-17.3"
    other = api.post("/builds", json=registry.body(), headers={"X-Request-Id": "with space\x7f"})
    assert other.headers["x-request-id"] != "with space\x7f"
    recorded = [entry["request_id"] for entry in entries(api)]
    assert recorded == [other.headers["x-request-id"], "run-17.3"]
    assert api.get("/nowhere").headers["x-request-id"]


def test_what_is_refused_leaves_no_entry(api: TestClient, registry: Registry) -> None:
    prefix = registry.model()
    assert api.post(f"/models/{prefix}/promotions", json={"stage": "production"}).status_code == 409
    assert api.post("/builds", json=registry.body("not a version")).status_code == 422
    assert [entry["action"] for entry in entries(api)] == ["build_requested"]


@pytest.mark.parametrize("change", ["UPDATE audit SET who = 'nobody'", "DELETE FROM audit", "TRUNCATE audit"])
def test_nobody_can_change_an_entry(change: str, registry: Registry) -> None:
    registry.model(stages=(Stage.DEVELOPMENT,))
    with pytest.raises(DBAPIError, match="append-only"):
        registry.execute(change)
