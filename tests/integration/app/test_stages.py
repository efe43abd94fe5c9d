"""What runs where, what ran there before, and going back to it."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.settings import Settings
from app.storage.bucket import Bucket
from app.words import Stage, Verdict
from local.simcloud.server import SimCloud
from tests.integration.app.registry import Registry

DEVELOPMENT, STAGING, PRODUCTION = Stage
# The type of an answer is that of whichever client the test client is made of.
Answer = Any


@pytest.fixture(autouse=True)
def bucket(registry: Registry, settings: Settings) -> Bucket:
    """Published models have their files in the bucket, which rollbacks ask for."""
    registry.bucket = Bucket.of(settings)
    return registry.bucket


def roll_back(api: TestClient, expected: str, stage: str = "development", **more: Any) -> Answer:
    return api.post(f"/stages/{stage}/rollback", json={"expected": expected, "note": "it is bad", **more})


def runs(api: TestClient, stage: str = "development") -> str:
    return str(api.get(f"/models/{stage}/latest").json()["prefix"])


def in_production(registry: Registry, *versions: str) -> list[str]:
    return [registry.model(version, stages=tuple(Stage)) for version in versions]


# What runs where


def test_each_stage_shows_what_it_runs_since_when_and_by_whom(api: TestClient, registry: Registry) -> None:
    registry.model("1.0.0", stages=(DEVELOPMENT, STAGING))
    newer = registry.model("1.1.0", stages=(DEVELOPMENT,))
    shown = {item["stage"]: item["current"] for item in api.get("/stages").json()["items"]}
    assert list(shown) == list(Stage)
    assert shown["production"] is None
    assert (shown["staging"]["version"], shown["staging"]["verdict"]) == ("1.0.0", "passed")
    assert shown["development"]["prefix"] == newer
    promotion = api.get(f"/models/{newer}").json()["promotions"][0]
    assert shown["development"]["promotion"] == promotion
    assert promotion["promoted_by"] == "someone"


def test_a_stage_shows_which_files_its_model_lacks(api: TestClient, registry: Registry) -> None:
    registry.model(stages=(DEVELOPMENT,))
    registry.execute("UPDATE artifacts SET missing_since = now()")
    [development, *_] = api.get("/stages").json()["items"]
    assert development["current"]["missing_artifacts"] == ["model.zip"]
    assert api.get("/models/development/latest").status_code == 503


# History


def test_history_has_the_periods_newest_first(api: TestClient, registry: Registry) -> None:
    first, second, third = in_production(registry, "1.0.0", "1.1.0", "1.2.0")
    items = api.get("/stages/production/history").json()["items"]
    assert [item["prefix"] for item in items] == [third, second, first]
    assert items[0]["until"] is None
    assert [item["until"] for item in items[1:]] == [item["promoted_at"] for item in items[:-1]]


def test_history_comes_in_pages_that_end_where_the_next_begins(api: TestClient, registry: Registry) -> None:
    in_production(registry, *(f"1.{n}.0" for n in range(5)))
    whole = api.get("/stages/production/history").json()["items"]
    items, cursor = [], None
    while True:
        parameters = {"limit": 2} | ({"cursor": cursor} if cursor else {})
        page = api.get("/stages/production/history", params=parameters).json()
        items += page["items"]
        if (cursor := page["next"]) is None:
            break
    assert items == whole


def test_history_tells_what_ran_at_a_time(api: TestClient, registry: Registry) -> None:
    first, second = in_production(registry, "1.0.0", "1.1.0")
    newer, older = api.get("/stages/production/history").json()["items"]

    def at(moment: str) -> list[str]:
        answer = api.get("/stages/production/history", params={"at": moment})
        return [item["prefix"] for item in answer.json()["items"]]

    began, ended = datetime.fromisoformat(older["promoted_at"]), datetime.fromisoformat(older["until"])
    assert at(older["promoted_at"]) == [first]
    assert at((began - timedelta(microseconds=1)).isoformat()) == []
    assert at((ended - timedelta(microseconds=1)).isoformat()) == [first]
    assert at(newer["promoted_at"]) == [second, first]
    # What ran at a moment of the past ended, although it is first in this answer.
    past = api.get("/stages/production/history", params={"at": older["promoted_at"]}).json()
    assert past["items"][0]["until"] == older["until"]


@pytest.mark.parametrize("at", ["yesterday", "2026-11-23", "2026-11-23T10:00:00", "1795430000", ""])
def test_a_time_that_is_not_clear_is_refused(api: TestClient, at: str) -> None:
    answer = api.get("/stages/production/history", params={"at": at})
    assert answer.status_code == 422
    assert "Write one such as 2026-11-23T10:12:44Z" in answer.json()["detail"]


def test_the_cursor_of_another_list_is_refused(api: TestClient, registry: Registry) -> None:
    in_production(registry, "1.0.0", "1.1.0")
    other = api.get("/models", params={"limit": 1}).json()["next"]
    own = api.get("/stages/production/history", params={"limit": 1}).json()["next"]
    assert api.get("/stages/production/history", params={"cursor": other}).status_code == 422
    assert api.get("/models", params={"cursor": own}).status_code == 422


# The order of promotions


def test_a_promotion_of_the_past_does_not_become_the_newest(api: TestClient, registry: Registry) -> None:
    """As an import records it, from a marker in the bucket."""
    old = registry.model("1.0.0")
    new = registry.model("1.1.0", stages=(DEVELOPMENT,))
    registry.execute(
        "INSERT INTO promotions (model_id, version, stage, promoted_by, promoted_at)"
        " SELECT id, version, 'development', 'import', now() - interval '1 year' FROM models"
        " WHERE prefix = :prefix",
        prefix=old,
    )
    assert runs(api) == new
    assert [item["prefix"] for item in api.get("/stages/development/history").json()["items"]] == [new, old]
    assert roll_back(api, new).json()["prefix"] == old


def test_a_clock_that_was_set_back_does_not_change_the_order(api: TestClient, registry: Registry) -> None:
    old, new = registry.model("1.0.0"), registry.model("1.1.0")
    registry.execute(
        "INSERT INTO promotions (model_id, version, stage, promoted_by, promoted_at)"
        " SELECT id, version, 'development', 'x', now() + interval '1 hour' FROM models"
        " WHERE prefix = :prefix",
        prefix=old,
    )
    assert api.post(f"/models/{new}/promotions", json={"stage": "development"}).status_code == 201
    assert runs(api) == new


# Rollbacks


def test_a_rollback_goes_to_the_model_before(api: TestClient, registry: Registry) -> None:
    first, second = in_production(registry, "1.0.0", "1.1.0")
    answer = roll_back(api, second, "production")
    assert answer.status_code == 201
    made = answer.json()
    assert (made["prefix"], made["rollback"], made["override"]) == (first, True, False)
    assert (made["note"], made["promoted_by"]) == ("it is bad", "anonymous")
    assert runs(api, "production") == first
    assert registry.count("outbox", f"key = '{first}/production'") == 1


def test_a_rollback_needs_no_verdict(api: TestClient, registry: Registry) -> None:
    first, second = in_production(registry, "1.0.0", "1.1.0")
    registry.execute("UPDATE models SET verdict = 'failed' WHERE prefix = :prefix", prefix=first)
    assert roll_back(api, second, "production").json()["prefix"] == first


def test_a_repeated_rollback_happens_once(api: TestClient, registry: Registry) -> None:
    first, second, third = in_production(registry, "1.0.0", "1.1.0", "1.2.0")
    assert roll_back(api, third, "production").status_code == 201
    again = roll_back(api, third, "production")
    assert again.status_code == 409
    problem = again.json()
    assert problem["type"] == "/problems/stage-changed"
    assert (problem["expected"], problem["running"]) == (third, second)
    assert runs(api, "production") == second
    assert first not in again.text


def test_rollbacks_go_further_back_and_never_forward(api: TestClient, registry: Registry) -> None:
    first, second, third = in_production(registry, "1.0.0", "1.1.0", "1.2.0")
    assert roll_back(api, third, "production").json()["prefix"] == second
    assert roll_back(api, second, "production").json()["prefix"] == first
    last = roll_back(api, first, "production")
    assert (last.status_code, last.json()["type"]) == (409, "/problems/nothing-to-roll-back-to")
    assert runs(api, "production") == first


def test_a_rollback_of_a_model_that_was_promoted_again(api: TestClient, registry: Registry) -> None:
    """It goes to the model between its two promotions, as somebody decided for each of them."""
    first, second = registry.model("1.0.0"), registry.model("1.1.0")
    for prefix in (first, second, first):
        registry.promote(prefix, DEVELOPMENT)
    assert roll_back(api, first).json()["prefix"] == second


def test_a_rollback_can_name_its_target(api: TestClient, registry: Registry) -> None:
    first, _, third = in_production(registry, "1.0.0", "1.1.0", "1.2.0")
    assert roll_back(api, third, "production", to=first).json()["prefix"] == first


def test_only_a_model_that_ran_in_the_stage_can_be_gone_back_to(api: TestClient, registry: Registry) -> None:
    """Otherwise a rollback would be a way around the gates."""
    running = registry.model("1.0.0", stages=tuple(Stage))
    never = registry.model("1.1.0", verdict=Verdict.FAILED, stages=(DEVELOPMENT,))
    refused = roll_back(api, running, "production", to=never)
    assert (refused.status_code, refused.json()["type"]) == (409, "/problems/nothing-to-roll-back-to")
    assert "never ran in production" in refused.json()["detail"]
    assert roll_back(api, running, "production", to=running).status_code == 422
    assert roll_back(api, running, "production", to="9.9.9-abcdef1").status_code == 404


def test_what_is_expected_is_checked_before_anything_else(api: TestClient, registry: Registry) -> None:
    running = registry.model(stages=(DEVELOPMENT,))
    for more in ({"to": "9.9.9-abcdef1"}, {"note": " "}, {"to": running}):
        answer = roll_back(api, "1.0.0-abcdef1", **more)
        assert (answer.status_code, answer.json()["type"]) == (409, "/problems/stage-changed")
    empty = roll_back(api, running, "production")
    assert "running" not in empty.json()
    assert "production runs nothing" in empty.json()["detail"]
    assert roll_back(api, running, note="\u200b").status_code == 422


def test_models_whose_files_are_gone_are_left_out(
    api: TestClient, registry: Registry, bucket: Bucket
) -> None:
    first, second, third, fourth = in_production(registry, "1.0.0", "1.1.0", "1.2.0", "1.3.0")
    bucket.delete(f"{third}/model.zip")
    registry.execute("UPDATE artifacts SET missing_since = now() WHERE key = :key", key=f"{second}/model.zip")
    named = roll_back(api, fourth, "production", to=third)
    assert (named.status_code, named.json()["gate"], named.json()["artifacts"]) == (
        409,
        "artifacts",
        ["model.zip"],
    )
    assert roll_back(api, fourth, "production").json()["prefix"] == first


def test_when_no_model_is_whole_nothing_is_rolled_back(
    api: TestClient, registry: Registry, bucket: Bucket
) -> None:
    first, second = in_production(registry, "1.0.0", "1.1.0")
    bucket.delete(f"{first}/model.zip")
    refused = roll_back(api, second, "production")
    assert refused.json()["type"] == "/problems/nothing-to-roll-back-to"
    assert f"Left out: {first}" in refused.json()["detail"]
    assert roll_back(api, second, "production", override=True).status_code == 409
    forced = roll_back(api, second, "production", to=first, override=True)
    assert (forced.status_code, forced.json()["override"]) == (201, True)


# Whether the files are whole


def swapped(bucket: Bucket, key: str) -> None:
    bucket.write(key, b"0123456789", over=bucket.head(key))


def shortened(bucket: Bucket, key: str) -> None:
    bucket.write(key, b"model", over=bucket.head(key))


@pytest.mark.parametrize("harm", [Bucket.delete, swapped, shortened])
def test_a_model_whose_files_are_not_whole_is_not_promoted(
    api: TestClient, registry: Registry, bucket: Bucket, harm: Callable[[Bucket, str], None]
) -> None:
    prefix = registry.model()
    harm(bucket, f"{prefix}/model.zip")
    before = registry.counts()
    refused = api.post(f"/models/{prefix}/promotions", json={"stage": "development"})
    assert refused.status_code == 409
    assert (refused.json()["gate"], refused.json()["artifacts"]) == ("artifacts", ["model.zip"])
    assert registry.counts() == before
    body = {"stage": "development", "override": True, "note": "only its figures are needed"}
    assert api.post(f"/models/{prefix}/promotions", json=body).json()["override"] is True


def test_files_without_a_digest_go_by_their_size(api: TestClient, registry: Registry, bucket: Bucket) -> None:
    """As those of an import, until their digests have been computed."""
    prefix = registry.model()
    swapped(bucket, f"{prefix}/model.zip")
    registry.execute("UPDATE artifacts SET sha256 = NULL")
    assert api.post(f"/models/{prefix}/promotions", json={"stage": "development"}).status_code == 201


def test_while_s3_is_down_a_promotion_can_be_sent_again_or_forced(
    api: TestClient, registry: Registry, cloud: SimCloud
) -> None:
    first, second = (registry.model(version) for version in ("1.0.0", "1.1.0"))
    assert api.post(f"/models/{first}/promotions", json={"stage": "development"}).status_code == 201
    cloud.faults.add("s3", code="ServiceUnavailable", status=503, times=None)
    refused = api.post(f"/models/{second}/promotions", json={"stage": "development"})
    assert (refused.status_code, refused.json()["type"]) == (503, "/problems/bucket-unavailable")
    assert int(refused.headers["Retry-After"]) > 0
    # What needs no answer of S3 does not wait for it.
    assert api.post(f"/models/{first}/promotions", json={"stage": "development"}).status_code == 200
    assert api.post(f"/models/{second}/promotions", json={"stage": "production"}).status_code == 409
    body = {"stage": "development", "override": True, "note": "production is on fire"}
    assert api.post(f"/models/{second}/promotions", json=body).json()["override"] is True
    assert roll_back(api, second).status_code == 503
    assert runs(api) == second
    assert roll_back(api, second, override=True).json()["prefix"] == first


# Several requests at the same moment


def at_once(*calls: Callable[[], Answer]) -> list[Answer]:
    together = threading.Barrier(len(calls))

    def call(one: Callable[[], Answer]) -> Answer:
        together.wait()
        return one()

    with ThreadPoolExecutor(len(calls)) as threads:
        return list(threads.map(call, calls))


def test_of_equal_rollbacks_at_the_same_moment_one_happens(api: TestClient, registry: Registry) -> None:
    _, _, second, third = in_production(registry, "1.0.0", "1.1.0", "1.2.0", "1.3.0")
    answers = at_once(*[partial(roll_back, api, third, "production")] * 6)
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 5
    assert runs(api, "production") == second
    assert registry.count("promotions", "stage = 'production'") == 5


def test_of_promotions_that_expect_the_same_model_one_happens(api: TestClient, registry: Registry) -> None:
    running = registry.model("1.0.0", stages=(DEVELOPMENT,))
    others = [registry.model(f"1.{n}.0") for n in range(1, 6)]
    body = {"stage": "development", "expected": running}
    calls = [partial(api.post, f"/models/{prefix}/promotions", json=body) for prefix in others]
    answers = at_once(*calls)
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 4
    [made] = [answer.json()["prefix"] for answer in answers if answer.status_code == 201]
    assert runs(api) == made


def test_a_promotion_beside_a_rollback_is_not_undone_by_it(api: TestClient, registry: Registry) -> None:
    for round_ in range(4):
        old, bad, fixed = (registry.model(f"{round_}.{n}.0") for n in (1, 2, 3))
        for prefix in (old, bad):
            registry.promote(prefix, DEVELOPMENT)
        promoted, rolled_back = at_once(
            partial(api.post, f"/models/{fixed}/promotions", json={"stage": "development"}),
            partial(roll_back, api, bad),
        )
        assert promoted.status_code == 201
        assert rolled_back.status_code in (201, 409)
        # Whichever came first, nobody asked for the end of the new model.
        assert runs(api) == fixed


def test_promotions_at_the_same_moment_have_one_order(api: TestClient, registry: Registry) -> None:
    prefixes = [registry.model(f"1.{n}.0") for n in range(6)]
    body = {"stage": "development"}
    calls = [partial(api.post, f"/models/{prefix}/promotions", json=body) for prefix in prefixes]
    assert {answer.status_code for answer in at_once(*calls)} == {201}
    by_time = registry.values("SELECT id FROM promotions ORDER BY promoted_at, id")
    assert by_time == registry.values("SELECT id FROM promotions ORDER BY id")
    newest = registry.value(
        "SELECT prefix FROM models WHERE id = (SELECT model_id FROM promotions"
        " ORDER BY promoted_at DESC, id DESC LIMIT 1)"
    )
    assert runs(api) == newest


# Promotions that a build asks for


def test_a_refused_promotion_is_an_event_of_its_build(api: TestClient, registry: Registry) -> None:
    build = registry.queue("1.0.0", promote_to=DEVELOPMENT)
    # Such a post is refused by now. Builds of an earlier release may still ask for it.
    registry.execute("UPDATE builds SET promote_to = 'staging'")
    prefix = registry.publish(build)
    assert api.get(f"/models/{prefix}").json()["promotions"] == []
    assert api.get(f"/builds/{build}").json()["state"] == "succeeded"
    [told] = registry.values("SELECT data FROM build_events WHERE type = 'promotion_refused'")
    assert (told["stage"], told["gate"]) == ("staging", "stage_order")
    assert "never in development" in told["message"]


def test_a_promotion_to_development_takes_any_verdict(api: TestClient, registry: Registry) -> None:
    prefix = registry.publish(registry.queue("1.0.0", promote_to=DEVELOPMENT), Verdict.FAILED)
    assert runs(api) == prefix
