"""Garbage collection, from the request to the objects that are gone."""

import contextlib
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from fastapi.testclient import TestClient

from app.aws import CloudError
from app.db.session import Database
from app.main import create_app
from app.registry.errors import ModelCollected
from app.registry.keeping import marks
from app.settings import Settings
from app.storage.bucket import Bucket
from app.words import Actor, CollectionMode, Stage, Verdict
from local.simcloud.server import SimCloud
from tests.integration.app.registry import Registry
from tests.integration.objects import overwrite
from worker import mirror
from worker.clouds import Clouds
from worker.runner import Runner
from worker.runs.carrying import RunCarrier
from worker.runs.collection import models as deletions
from worker.tasks import ask_for_collection

DEVELOPMENT = Stage.DEVELOPMENT


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Models go as soon as their branch is gone, and nothing has to wait."""
    return settings.model_copy(
        update={
            "gc_minimum_age": timedelta(0),
            "gc_keep_newest_passed": 0,
            "gc_grace": timedelta(0),
            "gc_most_at_once": 1.0,
            "retry_window": timedelta(0),
            "code_repository": None,
        }
    )


@pytest.fixture
def bucket(clients: Clouds) -> Bucket:
    return clients.bucket


@pytest.fixture
def registry(database: Database, bucket: Bucket) -> Registry:
    """With a git repository whose only branch is main."""
    registry = Registry(database, bucket)
    registry.execute("INSERT INTO git_branches VALUES ('main', repeat('a', 40), true)")
    registry.execute(
        "INSERT INTO git_repository (remote, main_branch, main_names, fetched_at, fingerprint, attempted_at)"
        " VALUES ('https://git.example.org/x', 'main', '{main}', now(), 'x', now())"
    )
    return registry


@pytest.fixture
def publish(registry: Registry) -> Callable[..., str]:
    """A model of a branch that is gone, with its files and markers in the bucket; returns its prefix."""

    def publish(version: str = "1.0.0", *stages: Stage, branch: str = "feature/x") -> str:
        build = registry.queue(version, branch=branch)
        prefix = registry.publish(build, Verdict.FAILED, model_zip=10, provenance_json=5)
        for stage in stages:
            registry.promote(prefix, stage)
        assert registry.bucket is not None
        mirror.drain(registry.database, registry.bucket)
        registry.execute(
            "INSERT INTO model_commits (model_id, sha) SELECT id, rpad(sha, 40, '0') FROM models"
            " ON CONFLICT DO NOTHING"
        )
        return prefix

    return publish


@pytest.fixture
def collect(api: TestClient, carrier: RunCarrier) -> Callable[..., dict[str, Any]]:
    """Ask for a collection, and carry it to its end."""

    def collect(**body: Any) -> dict[str, Any]:
        answer = api.post("/gc/runs", json={"dry_run": False, **body})
        assert answer.status_code == 202, answer.text
        carrier.carry(UUID(answer.json()["id"]))
        run: dict[str, Any] = api.get(f"/runs/{answer.json()['id']}").json()
        return run

    return collect


Publish = Callable[..., str]
Collect = Callable[..., dict[str, Any]]


def keys_of(bucket: Bucket, prefix: str) -> set[str]:
    return {key.rpartition("/")[2] for key, _ in bucket.list(f"{prefix}/")}


def states(registry: Registry) -> dict[str, str]:
    return dict(
        zip(
            registry.values("SELECT prefix FROM models ORDER BY prefix"),
            registry.values("SELECT state FROM models ORDER BY prefix"),
            strict=True,
        )
    )


def test_a_dry_run_shows_what_would_go_and_changes_nothing(
    publish: Publish, collect: Collect, bucket: Bucket, registry: Registry, api: TestClient
) -> None:
    doomed, kept = publish("1.0.0"), publish("1.1.0", branch="main")
    before = list(bucket.listed())
    answer = api.post("/gc/runs", json={})
    assert answer.json()["options"]["dry_run"] is True
    api.post(f"/runs/{answer.json()['id']}/stop")
    run = collect(dry_run=True)
    result = run["result"]
    assert (run["state"], result["doomed"], result["kept"], result["marked"]) == ("succeeded", 1, 1, 1)
    assert [one["prefix"] for one in result["marked_prefixes"]] == [doomed]
    assert states(registry) == {doomed: "kept", kept: "kept"}
    assert list(bucket.listed()) == before


def test_what_a_run_marks_goes_in_the_next_one_after_the_grace_period(
    publish: Publish,
    collect: Collect,
    bucket: Bucket,
    registry: Registry,
    api: TestClient,
    carrier: RunCarrier,
) -> None:
    doomed, kept = publish("1.0.0", DEVELOPMENT), publish("1.1.0", DEVELOPMENT, branch="main")
    # Whatever else lies under the prefix goes with it, on whatever page of the listing it is.
    overwrite(bucket, f"{doomed}/zzz/notes.txt", b"?")
    overwrite(bucket, f"{doomed}0/model.zip", b"of another prefix")
    patient = RunCarrier(replaced(carrier.runner, gc_grace=timedelta(days=7)))
    run = UUID(api.post("/gc/runs", json={"dry_run": False}).json()["id"])
    patient.carry(run)
    result = api.get(f"/runs/{run}").json()["result"]
    assert (result["marked"], result["freed"]) == (1, 0)
    assert states(registry) == {doomed: "marked", kept: "kept"}
    assert api.get(f"/models/{doomed}/artifacts/model.zip").status_code == 410
    assert api.post(f"/models/{doomed}/promotions", json={"stage": "staging"}).status_code == 410
    result = collect()["result"]
    assert (result["freed"], result["freed_prefixes"], result["freed_bytes"]) == (1, [doomed], 15)
    assert states(registry) == {doomed: "collected", kept: "kept"}
    assert keys_of(bucket, doomed) == set()
    assert keys_of(bucket, kept) == {"model.zip", "provenance.json", "failed", "development"}
    assert keys_of(bucket, f"{doomed}0") == {"model.zip"}
    assert api.get(f"/models/{doomed}").status_code == 200


def replaced(runner: Runner, **settings: Any) -> Runner:
    changed = runner.settings.model_copy(update=settings)
    return Runner(changed, runner.database, runner.clouds, runner.owner, runner.stopping)


def test_a_mark_goes_when_something_keeps_the_model_again(
    publish: Publish, collect: Collect, registry: Registry, bucket: Bucket
) -> None:
    prefix = publish()
    registry.execute(
        "UPDATE models SET state = 'marked', marked_at = now() - interval '9 days', mark_reason = '{}'"
    )
    # While the branches are not known, the mark stays, and nothing is deleted.
    registry.execute("UPDATE git_repository SET fetched_at = now() - interval '1 day'")
    result = collect()["result"]
    assert (result["postponed"], result["freed"], states(registry)) == (1, 0, {prefix: "marked"})
    registry.execute("UPDATE git_repository SET fetched_at = now()")
    registry.execute("INSERT INTO git_branches VALUES ('feature/x', repeat('b', 40), true)")
    result = collect()["result"]
    assert (result["restored"], result["freed"], states(registry)) == (1, 0, {prefix: "kept"})
    assert "model.zip" in keys_of(bucket, prefix)


def test_a_plan_that_has_changed_is_refused(
    publish: Publish, collect: Collect, api: TestClient, registry: Registry, carrier: RunCarrier
) -> None:
    publish("1.0.0")
    digest = collect(dry_run=True)["result"]["plan_digest"]
    asked = api.post("/gc/runs", json={"dry_run": False, "plan_digest": digest}).json()["id"]
    publish("1.1.0")
    # The worker looks again.
    carrier.carry(UUID(asked))
    run = api.get(f"/runs/{asked}").json()
    assert run["state"] == "failed"
    assert "Look at the result of a new dry run" in run["failure"]
    answer = api.post("/gc/runs", json={"dry_run": False, "plan_digest": digest})
    assert (answer.status_code, answer.json()["type"].rpartition("/")[2]) == (409, "plan-changed")
    assert set(states(registry).values()) == {"kept"}
    assert collect(plan_digest=answer.json()["digest"])["result"]["marked"] == 2


def test_a_run_that_would_delete_too_much_needs_to_be_allowed_by_name(
    publish: Publish, settings: Settings, registry: Registry, carrier: RunCarrier, database: Database
) -> None:
    for number in range(12):
        publish(f"1.{number}.0")
    careful = settings.model_copy(update={"gc_most_at_once": 0.5, "gc": CollectionMode.ON})
    with TestClient(create_app(careful)) as api:
        answer = api.post("/gc/runs", json={"dry_run": False})
        assert (answer.status_code, answer.json()["type"].rpartition("/")[2]) == (409, "collection-too-large")
        assert (answer.json()["models"], answer.json()["most"]) == (12, 10)
        # That of the night is recorded, and fails.
        ask_for_collection(database, careful)
        nightly = RunCarrier(replaced(carrier.runner, gc_most_at_once=0.5))
        nightly.carry(registry.values("SELECT id FROM runs")[0])
        [run] = api.get("/runs").json()["items"]
        assert (run["state"], run["requested_by"]) == ("failed", "schedule")
        assert set(states(registry).values()) == {"kept"}
        allowed = api.post("/gc/runs", json={"dry_run": False, "allow_large": True}).json()["id"]
        nightly.carry(UUID(allowed))
        assert set(states(registry).values()) == {"collected"}


def test_the_schedule_follows_the_setting(
    publish: Publish, settings: Settings, registry: Registry, database: Database, carrier: RunCarrier
) -> None:
    publish()
    for mode, asked in (
        (CollectionMode.OFF, []),
        (CollectionMode.PLAN, [True]),
        (CollectionMode.ON, [False]),
    ):
        registry.execute("DELETE FROM runs")
        ask_for_collection(database, settings.model_copy(update={"gc": mode}))
        assert registry.values("SELECT (options ->> 'dry_run')::boolean FROM runs") == asked
    # A worker that is told to delete nothing does not carry out what was asked for before.
    run = registry.values("SELECT id FROM runs")[0]
    RunCarrier(replaced(carrier.runner, gc=CollectionMode.OFF)).carry(run)
    assert registry.values("SELECT state FROM runs") == ["failed"]
    assert set(states(registry).values()) == {"kept"}
    with TestClient(create_app(settings.model_copy(update={"gc": CollectionMode.OFF}))) as api:
        answer = api.post("/gc/runs", json={"dry_run": False})
        assert (answer.status_code, answer.json()["type"].rpartition("/")[2]) == (409, "collection-off")


def test_a_stop_ends_all_deletion(
    publish: Publish,
    api: TestClient,
    registry: Registry,
    bucket: Bucket,
    carrier: RunCarrier,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    prefix = publish()
    monkeypatch.setattr(deletions, "_OBJECTS_TOGETHER", 1)
    run = api.post("/gc/runs", json={"dry_run": False}).json()["id"]
    together = bucket.deleter.together
    asked: list[object] = []

    def stop_after_the_first(doomed: Any) -> None:
        together(doomed)
        asked.append(doomed)
        api.post(f"/runs/{run}/stop")

    monkeypatch.setattr(bucket.deleter, "together", stop_after_the_first)
    carrier.carry(UUID(run))
    assert len(asked) == 1
    assert api.get(f"/runs/{run}").json()["state"] == "stopped"
    assert states(registry) == {prefix: "sweeping"}
    assert "failed" in keys_of(bucket, prefix)


def test_a_run_that_dies_at_any_call_goes_on_where_it_was(
    publish: Publish,
    api: TestClient,
    registry: Registry,
    bucket: Bucket,
    carrier: RunCarrier,
    cloud: SimCloud,
) -> None:
    """The worker dies at the first call to S3, then at the second, and so on, until none is left."""
    gone = [publish("1.0.0"), publish("1.1.0", DEVELOPMENT)]
    kept = publish("2.0.0", DEVELOPMENT)
    run = UUID(api.post("/gc/runs", json={"dry_run": False}).json()["id"])
    deaths = 0
    while api.get(f"/runs/{run}").json()["state"] != "succeeded":
        fault = cloud.faults.add("s3", code="AccessDenied", status=403, skip=deaths)
        try:
            carrier.carry(run)
        except CloudError:
            deaths += 1
        cloud.faults.remove(fault)
        registry.execute("UPDATE runs SET takings = 0")
        for prefix, state in states(registry).items():
            if state in ("kept", "marked"):
                assert "model.zip" in keys_of(bucket, prefix)
            if state == "collected":
                assert keys_of(bucket, prefix) == set()
    assert deaths > 3
    assert states(registry) == {gone[0]: "collected", gone[1]: "collected", kept: "kept"}
    assert api.get(f"/runs/{run}").json()["result"]["freed"] == 2


def test_inputs_and_unpublished_files_go_with_the_models(
    publish: Publish, collect: Collect, bucket: Bucket, registry: Registry
) -> None:
    failed = registry.queue("3.0.0")
    registry.fail(failed)
    overwrite(bucket, f"unpublished/{failed}/{'a' * 64}", b"weights")
    result = collect()["result"]
    assert (result["unpublished_freed"], result["unpublished_freed_bytes"]) == (1, 7)
    assert list(bucket.list("unpublished/")) == []


@dataclass(frozen=True)
class Contest:
    """A model is promoted at the moment at which it is swept."""

    publish: Publish
    collect: Collect
    api: TestClient
    registry: Registry
    bucket: Bucket

    def happen(self, rounds: int) -> Counter[int]:
        """Either the promotion succeeds, and the model is whole, or the model is gone. Counts the answers."""
        running = self.publish("2.0.0", DEVELOPMENT, branch="main")
        answers: Counter[int] = Counter()
        took_s = 0.0
        for number in range(rounds):
            prefix = self.publish(f"1.0.{number}", DEVELOPMENT)
            # What runs in development is never swept.
            self.registry.promote(running, DEVELOPMENT)
            self.registry.execute(
                "UPDATE models SET state = 'marked', marked_at = now(), mark_reason = '{}'"
                " WHERE prefix = :prefix",
                prefix=prefix,
            )
            with ThreadPoolExecutor(2) as threads:
                began = time.monotonic()
                swept = threads.submit(self.collect)
                # A little later each time, from the beginning of a collection to its end.
                promoted = threads.submit(self._promote, prefix, took_s * (number % 10) / 9)
                swept.result()
                took_s = time.monotonic() - began
                answers[promoted.result()] += 1
            self._check(prefix, promoted.result())
        return answers

    def _promote(self, prefix: str, after_s: float) -> int:
        time.sleep(after_s)
        with contextlib.suppress(ModelCollected), self.registry.database.transaction() as session:
            marks.restore(session, prefix, "somebody", Actor.TOKEN)
        body = {"stage": "staging", "override": True, "note": "it is needed after all"}
        return self.api.post(f"/models/{prefix}/promotions", json=body).status_code

    def _check(self, prefix: str, answer: int) -> None:
        mirror.drain(self.registry.database, self.bucket)
        state = self.registry.value("SELECT state FROM models WHERE prefix = :prefix", prefix=prefix)
        there = keys_of(self.bucket, prefix)
        if answer == 201:
            assert state == "kept"
            assert there == {"model.zip", "provenance.json", "failed", "development", "staging"}
        else:
            assert answer == 410
            # It was marked again after it was restored, or was swept.
            assert (state == "collected") == (there == set())


@pytest.fixture
def contest(
    publish: Publish, collect: Collect, api: TestClient, registry: Registry, bucket: Bucket
) -> Contest:
    return Contest(publish, collect, api, registry, bucket)


def test_a_model_that_is_promoted_at_the_moment_of_its_sweep_is_whole_or_gone(contest: Contest) -> None:
    contest.happen(10)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_models_that_are_promoted_at_the_moment_of_their_sweep_are_whole_or_gone(contest: Contest) -> None:
    answers = contest.happen(1000)
    # Otherwise one of them always came first, and they have not met.
    assert set(answers) == {201, 410}
