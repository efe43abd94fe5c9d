"""GET /notifications and its test message, over the API and by the command line."""

from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.registry import notifications
from app.words import NotificationKind, NotificationTarget
from tests.integration.app.registry import Registry


def listed(api: TestClient, **filters: Any) -> list[dict[str, Any]]:
    answer = api.get("/notifications", params=filters)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["items"]
    return found


def test_what_was_sent_and_what_was_not_is_listed_newest_first(api: TestClient, registry: Registry) -> None:
    registry.model("1.0.0")
    with registry.database.transaction() as session:
        webhook, slack = (
            notifications.claim(session, target, list(NotificationKind)) for target in NotificationTarget
        )
        assert webhook is not None
        assert slack is not None
        assert notifications.sent(session, webhook)
        assert notifications.give_up(session, slack, "The target answered 410")
    everything = listed(api)
    assert [each["kind"] for each in everything] == ["build.ended"] * 2 + ["model.verdict"] * 2
    assert [each["id"] for each in everything] == [4, 3, 2, 1]
    page = api.get("/notifications", params={"limit": 3}).json()
    assert listed(api, limit=3, cursor=page["next"]) == everything[3:]
    [failed] = listed(api, state="failed")
    assert (failed["target"], failed["attempts"], failed["error"]) == ("slack", 1, "The target answered 410")
    assert failed["next_attempt_at"] is None
    assert failed["finished_at"] is not None
    assert [each["id"] for each in listed(api, state="pending", target="webhook")] == [3]
    assert [each["state"] for each in listed(api, kind="model.verdict")] == ["failed", "sent"]
    assert listed(api, message=failed["message"]) == everything[2:]
    assert everything[0]["data"]["prefix"] == everything[0]["subject"]


def test_a_test_message_goes_to_every_target(api: TestClient, registry: Registry) -> None:
    answer = api.post("/notifications/test")
    assert answer.status_code == 202
    message = answer.json()["message"]
    found = listed(api, message=message)
    assert [each["target"] for each in found] == ["slack", "webhook"]
    assert {each["kind"] for each in found} == {"test"}
    assert found[0]["data"] == {"by": "anonymous"}
    assert registry.count("procrastinate_jobs", "queue_name = 'notifications'") == 2


@pytest.mark.parametrize("query", ["state=lost", "message=7", "target=pigeon", "kind=", "limit=0"])
def test_a_filter_that_cannot_match_is_refused(unchanged_api: TestClient, query: str) -> None:
    assert unchanged_api.get(f"/notifications?{query}").status_code == 422
