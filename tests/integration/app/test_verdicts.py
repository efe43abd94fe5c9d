"""A person changes the verdict of a model: gates, markers, `latest` and the audit trail follow."""

import json
import threading
from datetime import timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.api.common import examples
from app.main import create_app
from app.registry import mirror
from app.registry.errors import GateRefused
from app.registry.models import verdicts
from app.registry.stages import promotions
from app.registry.stages.promotions import PromotionRequest
from app.settings import Settings
from app.storage.bucket import Bucket
from app.storage.keys import verdict_key
from app.words import Actor, Stage, Verdict
from tests.integration.app.registry import Registry

WAITING = (
    "SELECT count(*) > 0 FROM pg_stat_activity"
    " WHERE datname = current_database() AND wait_event_type = 'Lock'"
)


def change(api: TestClient, prefix: str, verdict: str, reason: str = "I looked at it") -> dict[str, Any]:
    answer = api.post(f"/models/{prefix}/verdict", json={"verdict": verdict, "reason": reason})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def markers(registry: Registry, prefix: str) -> dict[Verdict, bool]:
    """Whether the bucket should hold each marker of a verdict."""
    with registry.database.transaction() as session:
        return {
            word: isinstance(mirror.should_hold(session, verdict_key(prefix, word)), mirror.Exactly)
            for word in Verdict
            if word.has_marker
        }


def test_the_gates_the_markers_and_the_audit_trail_follow_a_changed_verdict(
    api: TestClient, registry: Registry, settings: Settings
) -> None:
    registry.bucket = Bucket.of(settings)
    prefix = registry.model(verdict=Verdict.FAILED, stages=(Stage.DEVELOPMENT,))
    promotion = {"stage": "staging"}
    assert api.post(f"/models/{prefix}/promotions", json=promotion).json()["gate"] == "verdict"
    registry.execute("DELETE FROM outbox")

    answer = change(api, prefix, "passed", "the lost descriptions do not matter\nany more")
    assert (answer["verdict"], answer["verdict_reason"]) == (
        "passed",
        "the lost descriptions do not matter\nany more",
    )
    assert answer["changed"]["by"] == "anonymous"
    assert api.get(f"/models/{prefix}/validation").json() == answer
    assert api.get(f"/models/{prefix}").json()["verdict"] == "passed"
    assert markers(registry, prefix) == {Verdict.PASSED: True, Verdict.FAILED: False}
    assert set(registry.values("SELECT key FROM outbox")) == {f"{prefix}/passed", f"{prefix}/failed"}
    [entry] = api.get("/audit", params={"action": "verdict_changed"}).json()["items"]
    assert entry["before"] == {"verdict": "failed", "reason": "everyday: top_1 62.0%, was 70.0%"}
    assert entry["after"] == {"verdict": "passed", "reason": "the lost descriptions do not matter\nany more"}

    assert api.post(f"/models/{prefix}/promotions", json=promotion).status_code == 201
    change(api, prefix, "unknown")
    assert markers(registry, prefix) == {Verdict.PASSED: False, Verdict.FAILED: False}
    refused = api.post(f"/models/{prefix}/promotions", json={"stage": "production"})
    assert (refused.status_code, refused.json()["gate"]) == (409, "verdict")


def test_the_same_verdict_again_changes_nothing(api: TestClient, registry: Registry) -> None:
    prefix = registry.model(verdict=Verdict.FAILED)
    first = change(api, prefix, "passed", "the first reason")
    before = registry.counts() | {"audit": registry.count("audit")}
    assert change(api, prefix, "passed", "another reason") == first
    assert registry.counts() | {"audit": registry.count("audit")} == before


def test_the_report_stays_as_it_was(api: TestClient, registry: Registry) -> None:
    prefix = registry.model()
    report = examples.VALIDATION["report"]
    registry.execute(
        "UPDATE builds SET validation_report = cast(:report AS jsonb)", report=json.dumps(report)
    )
    assert api.get(f"/models/{prefix}/validation").json()["report"] == report
    changed = change(api, prefix, "failed")
    assert (changed["verdict"], changed["report"]) == ("failed", report)
    # What only another release can read is left out, and the file is among the artifacts.
    registry.execute("""UPDATE builds SET validation_report = '{"verdict": 3}'""")
    assert api.get(f"/models/{prefix}/validation").json()["report"] is None


def test_an_imported_model_has_no_report_and_can_get_a_verdict(api: TestClient, registry: Registry) -> None:
    prefix = registry.model(verdict=Verdict.UNKNOWN)
    registry.execute("UPDATE models SET origin = 'imported', build_id = NULL, branch = NULL")
    found = api.get(f"/models/{prefix}/validation").json()
    assert (found["verdict"], found["changed"], found["report"]) == ("unknown", None, None)
    assert change(api, prefix, "passed")["verdict"] == "passed"


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"verdict": "passed"}, "reason"),
        ({"verdict": "passed", "reason": ""}, "reason"),
        ({"verdict": "passed", "reason": " \u2800\t"}, "Say why"),
        ({"verdict": "passed", "reason": "a\x00"}, "U+0000"),
        ({"verdict": "good", "reason": "x"}, "verdict"),
        ({"verdict": "passed", "reason": "x", "more": 1}, "more"),
    ],
)
def test_a_change_without_a_reason_or_with_another_word_is_refused(
    api: TestClient, registry: Registry, body: dict[str, str], says: str
) -> None:
    prefix = registry.model(verdict=Verdict.FAILED)
    answer = api.post(f"/models/{prefix}/verdict", json=body)
    assert answer.status_code == 422
    assert says in answer.json()["detail"]
    assert registry.value("SELECT verdict FROM models") == "failed"


def test_latest_shows_a_changed_verdict_in_every_process(settings: Settings, registry: Registry) -> None:
    changed = settings.model_copy(update={"latest_max_age": timedelta(milliseconds=100)})
    prefix = registry.model(stages=(Stage.DEVELOPMENT,))
    path = "/models/development/latest"
    with TestClient(create_app(changed)) as here, TestClient(create_app(changed)) as there:
        assert [api.get(path).json()["verdict"] for api in (here, there)] == ["passed", "passed"]
        change(here, prefix, "failed")
        assert here.get(path).json()["verdict"] == "failed"
        while there.get(path).json()["verdict"] != "failed":
            pass


def test_a_promotion_waits_for_a_change_of_the_verdict_and_sees_it(registry: Registry) -> None:
    prefix = registry.model(stages=(Stage.DEVELOPMENT,))
    refusals: list[Exception] = []

    def promote() -> None:
        try:
            registry.promote(prefix, Stage.STAGING)
        except GateRefused as exc:
            refusals.append(exc)

    promoting = threading.Thread(target=promote)
    with registry.database.transaction() as session:
        verdicts.change(session, "me", Actor.TOKEN, prefix, Verdict.FAILED, "bad")
        promoting.start()
        registry.await_value(WAITING)
    promoting.join(30)
    assert len(refusals) == 1
    assert registry.count("promotions") == 1


def test_a_change_of_the_verdict_waits_for_a_promotion_that_has_read_it(registry: Registry) -> None:
    prefix = registry.model(stages=(Stage.DEVELOPMENT,))

    def fail() -> None:
        with registry.database.transaction() as session:
            verdicts.change(session, "me", Actor.TOKEN, prefix, Verdict.FAILED, "bad")

    failing = threading.Thread(target=fail)
    with registry.database.transaction() as session:
        promotions.record(session, "someone", prefix, PromotionRequest(Stage.STAGING))
        failing.start()
        registry.await_value(WAITING)
    failing.join(30)
    assert registry.value("SELECT verdict FROM models") == "failed"
    assert registry.count("promotions") == 2
    assert registry.value(
        "SELECT (SELECT max(promoted_at) FROM promotions) < (SELECT verdict_changed_at FROM models)"
    )
