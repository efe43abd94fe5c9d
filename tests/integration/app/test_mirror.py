"""What the bucket should hold for a key, and the list of keys to look at."""

from datetime import timedelta

import pytest

from app.registry import mirror
from app.registry.mirror import CopyOf, Entry, Exactly, Nothing, NotOurs, Wanted
from app.words import Stage, Verdict
from tests.integration.app.registry import Registry

DEVELOPMENT, STAGING, PRODUCTION = Stage


def should_hold(registry: Registry, key: str) -> Wanted:
    with registry.database.transaction() as session:
        return mirror.should_hold(session, key)


def due(registry: Registry) -> list[Entry]:
    with registry.database.transaction() as session:
        return mirror.due(session)


def due_keys(registry: Registry) -> list[str]:
    return [entry.key for entry in due(registry)]


def ask(registry: Registry, *keys: str) -> None:
    with registry.database.transaction() as session:
        mirror.ask(session, *keys)


def done(registry: Registry, entry: Entry) -> bool:
    with registry.database.transaction() as session:
        return mirror.done(session, entry)


def failed(registry: Registry, entry: Entry) -> timedelta | None:
    with registry.database.transaction() as session:
        return mirror.failed(session, entry, "SlowDown: later")


# What the bucket should hold


def test_a_stages_marker_is_there_once_the_model_was_promoted_to_it(registry: Registry) -> None:
    prefix = registry.model(stages=(DEVELOPMENT, STAGING))
    registry.model(stages=(DEVELOPMENT,))
    assert should_hold(registry, f"{prefix}/development") == Exactly(b"")
    assert should_hold(registry, f"{prefix}/staging") == Exactly(b"")
    assert should_hold(registry, f"{prefix}/production") == Nothing()


@pytest.mark.parametrize("verdict", [word for word in Verdict if word.has_marker])
def test_of_the_two_markers_of_a_verdict_the_models_own_is_there(
    registry: Registry, verdict: Verdict
) -> None:
    prefix = registry.model(verdict=verdict)
    other = next(word for word in Verdict if word.has_marker and word is not verdict)
    assert should_hold(registry, f"{prefix}/{verdict}") == Exactly(b"")
    assert should_hold(registry, f"{prefix}/{other}") == Nothing()


def test_a_verdict_that_is_unknown_has_no_marker(registry: Registry) -> None:
    prefix = registry.model(verdict=Verdict.UNKNOWN)
    assert should_hold(registry, f"{prefix}/passed") == Nothing()
    assert should_hold(registry, f"{prefix}/failed") == Nothing()
    assert isinstance(should_hold(registry, f"{prefix}/unknown"), NotOurs)
    assert registry.count("outbox") == 0


def test_an_artifact_is_what_was_published(registry: Registry) -> None:
    build_id = registry.queue()
    prefix = registry.publish(build_id)
    wanted = should_hold(registry, f"{prefix}/model.zip")
    assert isinstance(wanted, CopyOf)
    assert wanted.sha256 == registry.value("SELECT sha256 FROM artifacts")
    assert wanted.size_bytes == 10
    assert wanted.source is not None
    assert str(build_id) in wanted.source


def test_a_prefix_that_a_build_is_about_to_publish_is_left_alone(registry: Registry) -> None:
    build_id = registry.queue("1.0.0")
    prefix = registry.value("SELECT prefix FROM builds")
    for _ in ("queued", "running"):
        for name in ("development", "passed", "model.zip"):
            assert isinstance(should_hold(registry, f"{prefix}/{name}"), NotOurs)
        if registry.value("SELECT state FROM builds") == "queued":
            registry.take(build_id)


@pytest.mark.parametrize(
    "key",
    [
        "0.0.2-aff1242/development",
        "0.0.2-aff1242/model.zip",
        "somebody/passed",
        "raw_source_data.zip",
        "inputs/sha256/" + "a" * 64,
        "staging/6f1c2b7e-0d5a-4c39-9a51-3e0c9d1f7b42/model.zip",
        "",
        "/",
        "/development",
        "0.0.2-aff1242/",
    ],
)
def test_what_the_registry_does_not_know_is_left_alone(shared: Registry, key: str) -> None:
    assert isinstance(should_hold(shared, key), NotOurs)


def test_an_object_that_is_not_an_artifact_of_the_model_is_left_alone(registry: Registry) -> None:
    prefix = registry.model()
    for name in ("notes.txt", "check_result.json", "development/x", "DEVELOPMENT"):
        assert isinstance(should_hold(registry, f"{prefix}/{name}"), NotOurs)


# The keys to look at


def test_a_promotion_and_a_publication_ask_for_their_markers(registry: Registry) -> None:
    prefix = registry.model(stages=(DEVELOPMENT, STAGING))
    # One after the other, in the order in which they were asked for.
    for name in ("passed", "development", "staging"):
        [entry] = due(registry)
        assert entry.key == f"{prefix}/{name}"
        assert done(registry, entry)
    assert due(registry) == []


def test_of_a_prefix_files_come_before_markers_and_no_key_overtakes_one_that_is_put_off(
    registry: Registry,
) -> None:
    ask(registry, "p/staging")
    ask(registry, "p/model.zip", "q/passed")
    assert due_keys(registry) == ["p/model.zip", "q/passed"]
    assert failed(registry, due(registry)[0])
    assert due_keys(registry) == ["q/passed"]


def test_an_entry_that_is_done_is_taken_off_the_list(registry: Registry) -> None:
    ask(registry, "a", "b")
    assert done(registry, due(registry)[0])
    assert due_keys(registry) == ["b"]


def test_a_key_that_is_asked_for_twice_is_listed_once(registry: Registry) -> None:
    ask(registry, "a", "b", "a")
    ask(registry, "b")
    assert due_keys(registry) == ["a", "b"]


def test_an_entry_stays_when_its_key_was_asked_for_again_in_the_meantime(registry: Registry) -> None:
    ask(registry, "a")
    [first] = due(registry)
    ask(registry, "a")
    assert not done(registry, first)
    [second] = due(registry)
    assert second.generation > first.generation
    assert done(registry, second)
    assert due(registry) == []


def test_a_late_worker_cannot_take_off_what_was_asked_for_after_its_entry_was_done(
    registry: Registry,
) -> None:
    ask(registry, "a")
    [late] = due(registry)
    assert done(registry, late)
    ask(registry, "a")
    assert not done(registry, late)
    assert failed(registry, late) is None
    assert due_keys(registry) == ["a"]


def test_a_failing_entry_is_put_off_longer_each_time_and_keeps_no_other_waiting(registry: Registry) -> None:
    ask(registry, "a", "b")
    first = due(registry)[0]
    waits = [failed(registry, first) for _ in range(12)]
    assert waits == [timedelta(seconds=min(300, 2**n)) for n in range(12)]
    assert due_keys(registry) == ["b"]
    assert registry.value("SELECT last_error || ' ' || attempts FROM outbox WHERE key = 'a'") == (
        "SlowDown: later 12"
    )


def test_asking_again_ends_the_wait_of_a_failing_entry(registry: Registry) -> None:
    ask(registry, "a")
    [entry] = due(registry)
    for _ in range(12):
        failed(registry, entry)
    assert due(registry) == []
    ask(registry, "a")
    [again] = due(registry)
    assert failed(registry, again) == timedelta(seconds=1)


def test_an_entry_that_has_failed_for_years_is_still_tried(registry: Registry) -> None:
    ask(registry, "a")
    registry.execute("UPDATE outbox SET attempts = 1000000")
    assert failed(registry, due(registry)[0]) == timedelta(minutes=5)
