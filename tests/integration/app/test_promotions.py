"""POST /models/{prefix}/promotions: the gates, the record, and the markers that are asked for."""

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from fastapi.testclient import TestClient
from sqlalchemy.exc import IntegrityError

from app.settings import Settings
from app.storage.bucket import Bucket
from app.words import Stage, Verdict
from tests.integration.app.registry import Registry

DEVELOPMENT, STAGING, PRODUCTION = Stage


@pytest.fixture(autouse=True)
def files(registry: Registry, settings: Settings) -> None:
    """Published models have their files in the bucket, which promotions ask for."""
    registry.bucket = Bucket.of(settings)


def test_a_model_goes_through_the_stages_in_their_order(api: TestClient, registry: Registry) -> None:
    prefix = registry.model()
    for stage in Stage:
        answer = api.post(f"/models/{prefix}/promotions", json={"stage": stage, "note": "release"})
        assert answer.status_code == 201
        assert answer.json()["stage"] == stage
        assert answer.json()["note"] == "release"
        assert answer.json()["override"] is False
    assert api.get(f"/models/{prefix}").json()["stages"] == [stage.value for stage in Stage]


@pytest.mark.parametrize(
    ("been_in", "wanted", "needed"),
    [((), STAGING, DEVELOPMENT), ((), PRODUCTION, STAGING), ((DEVELOPMENT,), PRODUCTION, STAGING)],
)
def test_a_stage_cannot_be_left_out(
    api: TestClient, registry: Registry, been_in: tuple[Stage, ...], wanted: Stage, needed: Stage
) -> None:
    prefix = registry.model(stages=been_in)
    before = registry.counts()
    refused = api.post(f"/models/{prefix}/promotions", json={"stage": wanted})
    assert refused.status_code == 409
    problem = refused.json()
    assert problem["type"] == "/problems/gate-refused"
    assert (problem["gate"], problem["required_stage"]) == ("stage_order", needed)
    assert f"Promote it to {needed} first" in problem["detail"]
    assert registry.counts() == before


def test_a_model_that_failed_its_validation_cannot_leave_development(
    api: TestClient, registry: Registry
) -> None:
    prefix = registry.model(verdict=Verdict.FAILED)
    assert api.post(f"/models/{prefix}/promotions", json={"stage": "development"}).status_code == 201
    refused = api.post(f"/models/{prefix}/promotions", json={"stage": "staging"})
    assert refused.status_code == 409
    assert refused.json()["gate"] == "verdict"
    assert "everyday: top_1 62.0%, was 70.0%" in refused.json()["detail"]


@pytest.mark.parametrize("note", [None, "", "  ", "\u200b", "\u3164\n"])
def test_an_override_needs_a_reason(api: TestClient, registry: Registry, note: str | None) -> None:
    prefix = registry.model()
    body = {"stage": "production", "override": True, "note": note}
    refused = api.post(f"/models/{prefix}/promotions", json=body)
    assert refused.status_code == 422
    assert "Say why in `note`" in refused.json()["detail"]
    assert registry.count("promotions") == 0


def test_an_override_goes_through_a_closed_gate_and_is_recorded(api: TestClient, registry: Registry) -> None:
    prefix = registry.model(verdict=Verdict.FAILED)
    body = {"stage": "production", "override": True, "note": "the old one is on fire"}
    made = api.post(f"/models/{prefix}/promotions", json=body)
    assert made.status_code == 201
    assert made.json()["override"] is True
    assert registry.value("SELECT note FROM promotions") == "the old one is on fire"


def test_an_override_that_no_gate_asked_for_is_not_recorded_as_one(
    api: TestClient, registry: Registry
) -> None:
    prefix = registry.model()
    body = {"stage": "development", "override": True, "note": "to be sure"}
    assert api.post(f"/models/{prefix}/promotions", json=body).json()["override"] is False


def test_promoting_what_the_stage_runs_changes_nothing(api: TestClient, registry: Registry) -> None:
    prefix = registry.model()
    first = api.post(f"/models/{prefix}/promotions", json={"stage": "development"})
    before = registry.counts()
    again = api.post(f"/models/{prefix}/promotions", json={"stage": "development", "note": "another"})
    assert again.status_code == 200
    assert again.json() == first.json()
    assert registry.counts() == before


def test_going_back_to_an_older_model_is_a_promotion_of_its_own(api: TestClient, registry: Registry) -> None:
    old, new = registry.model(stages=(DEVELOPMENT,)), registry.model(stages=(DEVELOPMENT,))
    assert api.get("/models/development/latest").json()["prefix"] == new
    back = api.post(f"/models/{old}/promotions", json={"stage": "development"})
    assert back.status_code == 201
    assert api.get("/models/development/latest").json()["prefix"] == old
    shown = api.get(f"/models/{old}").json()
    assert [promotion["stage"] for promotion in shown["promotions"]] == ["development", "development"]


def test_promotions_have_their_markers_looked_at(api: TestClient, registry: Registry) -> None:
    old, new = registry.model(), registry.model()
    registry.execute("DELETE FROM outbox")
    registry.execute("DELETE FROM procrastinate_jobs")
    for prefix in (old, new, old, new):
        assert api.post(f"/models/{prefix}/promotions", json={"stage": "development"}).status_code == 201
    assert sorted(registry.values("SELECT key FROM outbox")) == [f"{old}/development", f"{new}/development"]
    mirrors = "SELECT task_name FROM procrastinate_jobs WHERE queue_name = 'mirror'"
    assert registry.values(mirrors) == ["drain_outbox"]


@pytest.mark.parametrize(
    ("prefix", "status", "says"),
    [
        ("1.0.0-abcdef9", 404, "There is no model 1.0.0-abcdef9"),
        ("nonsense", 422, "is not a prefix"),
        ("1.0.0-abcdef9%0A", 422, "is not a prefix"),
    ],
)
def test_what_cannot_be_promoted_is_refused_with_the_reason(
    api: TestClient, prefix: str, status: int, says: str
) -> None:
    answer = api.post(f"/models/{prefix}/promotions", json={"stage": "development"})
    assert answer.status_code == status
    assert says in answer.json()["detail"]


def test_an_unknown_stage_is_refused_with_the_ones_there_are(api: TestClient, registry: Registry) -> None:
    answer = api.post(f"/models/{registry.model()}/promotions", json={"stage": "moon"})
    assert answer.status_code == 422
    assert "'development', 'staging' or 'production'" in answer.json()["detail"]


@pytest.mark.parametrize(
    "change", ["UPDATE promotions SET note = 'x'", "DELETE FROM promotions", "TRUNCATE promotions"]
)
def test_the_record_is_append_only(registry: Registry, change: str) -> None:
    registry.model(stages=(DEVELOPMENT,))
    with pytest.raises(IntegrityError, match="promotions is append-only"):
        registry.execute(change)
    assert registry.count("promotions") == 1


def test_promotions_at_the_same_moment_come_one_after_the_other(api: TestClient, registry: Registry) -> None:
    prefixes = [registry.model() for _ in range(6)]
    together = threading.Barrier(12)

    def promote(prefix: str) -> int:
        together.wait()
        return api.post(f"/models/{prefix}/promotions", json={"stage": "development"}).status_code

    with ThreadPoolExecutor(12) as threads:
        statuses = list(threads.map(promote, prefixes * 2))
    assert set(statuses) <= {200, 201}
    history = registry.values("SELECT model_id FROM promotions ORDER BY id")
    assert len(history) == statuses.count(201)
    assert all(one != other for one, other in itertools.pairwise(history))
    # Later ids have later times, and every model has exactly one marker.
    times = registry.values("SELECT promoted_at FROM promotions ORDER BY id")
    assert times == sorted(times)
    assert sorted(registry.values("SELECT key FROM outbox WHERE key LIKE '%/development'")) == sorted(
        f"{prefix}/development" for prefix in prefixes
    )


def test_promotions_and_publications_to_one_stage_do_not_deadlock(
    api: TestClient, registry: Registry
) -> None:
    """They take the stage's lock and the queue's in the same order."""
    registry.execute("DELETE FROM procrastinate_jobs")
    for _ in range(5):
        published = [registry.queue(promote_to=DEVELOPMENT) for _ in range(2)]
        models = [registry.model() for _ in range(2)]
        registry.execute("DELETE FROM procrastinate_jobs")
        together = threading.Barrier(4)

        def publish(build_id: object, together: threading.Barrier = together) -> int:
            together.wait()
            registry.publish(build_id)  # type: ignore[arg-type]
            return 201

        def promote(prefix: object, together: threading.Barrier = together) -> int:
            together.wait()
            return api.post(f"/models/{prefix}/promotions", json={"stage": "development"}).status_code

        with ThreadPoolExecutor(4) as threads:
            running = [threads.submit(publish, build) for build in published]
            running += [threads.submit(promote, model) for model in models]
            assert [one.result() for one in running] == [201] * 4
