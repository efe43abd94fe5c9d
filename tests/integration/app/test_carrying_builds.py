"""What a worker writes: under its lease, whole, and nothing after another has taken over."""

import inspect
import json
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import cast
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

import app.registry.publication
from app.db.session import Database
from app.db.tables import Build
from app.registry import inputs, launches, takeovers
from app.registry.builds import ending, events, listing, log, steps
from app.registry.builds import lease as build_lease
from app.registry.builds.lease import Lease, LeaseLost, release, renew, state_of, take, unattended
from app.registry.builds.state import InvalidTransition, switch
from app.registry.builds.steps import Failure
from app.registry.errors import NotFound
from app.registry.inputs import InputRecord, Part
from app.registry.models import catalogue
from app.registry.models.catalogue import ArtifactRef
from app.registry.publication import publish
from app.words import BuildKind, BuildState, InputKind, Stage, StepName, StepState, Verdict
from tests.integration.app.registry import LEASE, Registry, publication

FAILURE = Failure(StepName.TRAIN, "out_of_memory", "Take a larger machine.")
PLACE = launches.Place("eu-west-2", "eu-west-2a", "subnet-1")
INPUT = InputRecord(InputKind.RAW_DATA, "raw_source_data.zip", "a" * 64, 5, None)

WRITES: dict[str, Callable[[Session, Lease], object]] = {
    "renew": lambda s, lease: renew(s, lease, timedelta(hours=9)),
    "release": release,
    "note_error": lambda s, lease: build_lease.note_error(s, lease, "ValueError: no"),
    "view": steps.view,
    "start": lambda s, lease: steps.start(s, lease, StepName.TRAIN),
    "finish": lambda s, lease: steps.finish(s, lease, StepName.TRAIN, {"x": 1}),
    "note": lambda s, lease: steps.note(s, lease, StepName.TRAIN, "waits"),
    "checkpoint": lambda s, lease: steps.checkpoint(s, lease, StepName.TRAIN, {"x": 1}),
    "fail": lambda s, lease: steps.fail(s, lease, FAILURE),
    "set_progress": lambda s, lease: steps.set_progress(s, lease, {"phase": "x", "percent": 1.0}),
    "set_report": lambda s, lease: steps.set_report(s, lease, {"verdict": "passed"}),
    "append": lambda s, lease: log.append(s, lease, "a line\n"),
    "record": lambda s, lease: inputs.record(s, lease, [INPUT]),
    "publish": lambda s, lease: publish(s, lease, publication("1.0.0-abcdef1")),
    "rewind": lambda s, lease: steps.rewind(s, lease, StepName.LAUNCH_INSTANCE, "its instance is gone"),
    "add_details": lambda s, lease: inputs.add_details(s, lease, INPUT.kind, INPUT.name, {"rows": 1}),
    "describe": lambda s, lease: inputs.describe(s, lease, "a" * 64, {"packages": {"torch": "2.1"}}),
    "record_parts": lambda s, lease: inputs.record_parts(s, lease, "a" * 64, [Part("a.csv", "b" * 64, 1)]),
    "claim": lambda s, lease: inputs.claim(s, lease, "a" * 64),
    "stored": lambda s, lease: inputs.stored(s, lease, "a" * 64),
    "request": lambda s, lease: launches.request(s, lease, PLACE, "g5.xlarge"),
    "launched": lambda s, lease: launches.launched(s, lease, 1, "i-1"),
    "refused": lambda s, lease: launches.refused(s, lease, 1, "InsufficientCapacity", "none left"),
    "ended": launches.ended,
    "end": lambda s, lease: ending.end(s, lease, BuildState.FAILED),
    "take_over": lambda s, lease: takeovers.take_over(s, lease, lease.build_id, (), lambda _, output: output),
}


def everything(registry: Registry) -> list[object]:
    """Every row that a worker can write."""
    tables = (
        "builds build_steps build_events build_log_chunks inputs input_parts build_inputs launches models"
        " artifacts outbox procrastinate_jobs"
    )
    return [
        row
        for table in tables.split()
        for row in registry.values(f"SELECT to_jsonb(t)::text FROM {table} t ORDER BY 1")
    ]


def unattended_in(registry: Registry) -> list[UUID]:
    with registry.database.transaction() as session:
        return unattended(session)


def lapsed(registry: Registry) -> Lease:
    """A lease whose build another worker has taken over."""
    build_id = registry.queue()
    lease = registry.take(build_id, "the first", timedelta(milliseconds=1))
    time.sleep(0.01)
    registry.take(build_id, "the second")
    return lease


def test_these_are_all_the_functions_that_write_under_a_lease() -> None:
    under_a_lease = {
        name
        for module in (build_lease, steps, log, ending, inputs, launches, takeovers, app.registry.publication)
        for name, function in vars(module).items()
        if inspect.isfunction(function)
        and function.__module__ == module.__name__
        and not name.startswith("_")
        and function.__annotations__.get("lease") is Lease
    }
    assert under_a_lease - {"fence"} == WRITES.keys()


@pytest.mark.parametrize("write", WRITES)
def test_a_worker_whose_build_was_taken_over_changes_nothing(shared: Registry, write: str) -> None:
    lease = lapsed(shared)
    before = everything(shared)
    with pytest.raises(LeaseLost, match=str(lease.build_id)), shared.database.transaction() as session:
        WRITES[write](session, lease)
    assert everything(shared) == before


@pytest.mark.parametrize("write", WRITES)
def test_nothing_is_written_for_a_build_that_has_ended(shared: Registry, write: str) -> None:
    build_id = shared.queue()
    lease = Lease(build_id, 1)
    shared.publish(build_id)
    before = everything(shared)
    with pytest.raises(LeaseLost), shared.database.transaction() as session:
        WRITES[write](session, lease)
    assert everything(shared) == before


def test_an_empty_log_line_writes_nothing_even_after_the_lease_was_lost(
    registry: Registry,
) -> None:
    lease = lapsed(registry)
    with registry.database.transaction() as session:
        log.append(session, lease, "")


def test_a_held_build_cannot_be_taken_until_its_lease_has_run_out(registry: Registry) -> None:
    build_id = registry.queue()
    first = registry.take(build_id, "the first", timedelta(milliseconds=300))
    with registry.database.transaction() as session:
        assert take(session, build_id, "the second", LEASE) is None
    time.sleep(0.35)
    second = registry.take(build_id, "the second")
    assert second.epoch == first.epoch + 1
    assert registry.value("SELECT lease_owner FROM builds") == "the second"


def test_a_renewed_lease_lasts_longer(registry: Registry) -> None:
    build_id = registry.queue()
    lease = registry.take(build_id, lease=timedelta(milliseconds=200))
    with registry.database.transaction() as session:
        renew(session, lease, LEASE)
    time.sleep(0.25)
    with registry.database.transaction() as session:
        assert take(session, build_id, "another", LEASE) is None


def test_a_released_build_can_be_taken_at_once(registry: Registry) -> None:
    build_id = registry.queue()
    lease = registry.take(build_id)
    with registry.database.transaction() as session:
        release(session, lease)
    assert registry.take(build_id).epoch == lease.epoch + 1


def test_a_build_is_unattended_when_neither_a_worker_nor_a_job_has_it(registry: Registry) -> None:
    build_id = registry.queue()
    # Its job waits.
    assert unattended_in(registry) == []
    registry.execute("DELETE FROM procrastinate_jobs")
    assert unattended_in(registry) == [build_id]
    lease = registry.take(build_id)
    assert unattended_in(registry) == []
    with registry.database.transaction() as session:
        release(session, lease)
    assert unattended_in(registry) == [build_id]
    registry.publish(build_id)
    assert unattended_in(registry) == []


def test_of_two_that_take_at_the_same_moment_one_gets_it(registry: Registry) -> None:
    build_id = registry.queue()
    one, other = registry.database.transaction(), registry.database.transaction()
    with one as first:
        assert take(first, build_id, "one", LEASE) is not None
        with other as second:
            second.connection().exec_driver_sql("SET LOCAL lock_timeout = '100ms'")
            # Waits for the first one's end instead of taking it, too.
            with pytest.raises(Exception, match="lock timeout"), second.begin_nested():
                take(second, build_id, "other", LEASE)
    with registry.database.transaction() as session:
        assert take(session, build_id, "other", LEASE) is None


def test_a_build_that_has_ended_cannot_be_taken(registry: Registry) -> None:
    build_id = registry.queue()
    registry.publish(build_id)
    with registry.database.transaction() as session:
        assert take(session, build_id, "late", LEASE) is None
        assert state_of(session, build_id) is BuildState.SUCCEEDED


def test_a_deadline_counts_only_the_time_in_which_a_worker_worked_on_the_step(registry: Registry) -> None:
    build_id = registry.queue()
    first = registry.take(build_id)
    with registry.database.transaction() as session:
        assert steps.start(session, first, StepName.TRAIN) == timedelta(0)
    # It worked for an hour and died; then nobody was there for a day.
    registry.execute(
        "UPDATE build_steps SET resumed_at = clock_timestamp() - interval '25 hours';"
        " UPDATE builds SET lease_expires_at = clock_timestamp() - interval '24 hours'"
    )
    second = registry.take(build_id)
    with registry.database.transaction() as session:
        worked = steps.start(session, second, StepName.TRAIN)
    assert timedelta(minutes=59) < worked < timedelta(minutes=61)
    # Another hour, and a hand-over to a worker that comes a day later.
    registry.execute("UPDATE build_steps SET resumed_at = clock_timestamp() - interval '1 hour'")
    with registry.database.transaction() as session:
        release(session, second)
    third = registry.take(build_id)
    with registry.database.transaction() as session:
        worked = steps.start(session, third, StepName.TRAIN)
    assert timedelta(minutes=119) < worked < timedelta(minutes=121)


def test_what_a_step_has_done_so_far_is_apart_from_its_output(registry: Registry) -> None:
    build_id = registry.queue()
    first = registry.take(build_id, lease=timedelta(milliseconds=1))
    with registry.database.transaction() as session:
        steps.start(session, first, StepName.TRAIN)
        steps.checkpoint(session, first, StepName.TRAIN, {"log_bytes": 5})
        steps.note(session, first, StepName.TRAIN, "waits")
    time.sleep(0.05)
    second = registry.take(build_id)
    with registry.database.transaction() as session:
        steps.start(session, second, StepName.TRAIN)
    with registry.database.transaction() as session:
        view = steps.view(session, second)
        assert view.done == frozenset()
        assert (view.outputs, view.checkpoints) == ({}, {StepName.TRAIN: {"log_bytes": 5}})
        steps.finish(session, second, StepName.TRAIN, {"log_bytes": 9})
    with registry.database.transaction() as session:
        view = steps.view(session, second)
        [step] = listing.get(session, build_id).steps
    assert view.done == {StepName.TRAIN}
    assert view.outputs == {StepName.TRAIN: {"log_bytes": 9}}
    assert (step.state, step.attempts, step.message) == (StepState.SUCCEEDED, 2, None)


def test_a_failed_build_tells_why_and_skips_what_was_left(registry: Registry) -> None:
    build_id = registry.queue()
    lease = registry.take(build_id)
    with registry.database.transaction() as session:
        steps.start(session, lease, StepName.TRAIN)
        steps.fail(session, lease, FAILURE)
    with registry.database.transaction() as session:
        # Its instance is not gone yet.
        assert steps.view(session, lease).failure == FAILURE
        assert state_of(session, build_id) is BuildState.RUNNING
    with registry.database.transaction() as session:
        steps.start(session, lease, StepName.TERMINATE_INSTANCE)
        steps.finish(session, lease, StepName.TERMINATE_INSTANCE, {})
        ending.end(session, lease, BuildState.FAILED)
    with registry.database.transaction() as session:
        build = listing.get(session, build_id)
        states = {step.name: step.state for step in steps.shown(build)}
    assert build.state == BuildState.FAILED
    assert build.finished_at is not None
    assert (build.lease_owner, build.lease_expires_at, build.progress) == (None, None, None)
    assert states.pop("train") == StepState.FAILED
    assert states.pop("terminate_instance") == StepState.SUCCEEDED
    assert set(states.values()) == {StepState.SKIPPED}


def test_a_build_cannot_fail_without_a_reason(registry: Registry) -> None:
    lease = registry.take(registry.queue())
    with pytest.raises(IntegrityError, match="ck_builds_failure"), registry.database.transaction() as session:
        ending.end(session, lease, BuildState.FAILED)


def test_publishing_makes_model_promotion_and_markers_in_one_change(registry: Registry) -> None:
    build_id = registry.queue("1.0.0", promote_to=Stage.DEVELOPMENT)
    prefix = registry.publish(build_id, Verdict.FAILED)
    assert registry.values("SELECT key FROM outbox ORDER BY key") == [
        f"{prefix}/development",
        f"{prefix}/failed",
    ]
    jobs = "SELECT task_name FROM procrastinate_jobs WHERE queue_name = 'mirror'"
    assert registry.values(jobs) == ["drain_outbox"]
    with registry.database.transaction() as session:
        model = catalogue.get(session, prefix)
        build = listing.get(session, build_id)
    assert (model.build_id, model.verdict) == (build_id, "failed")
    assert [promotion.note for promotion in model.promotions] == ["with its build"]
    assert build.state == BuildState.SUCCEEDED
    assert steps.shown(build)[-1].state == StepState.SUCCEEDED


def test_a_publication_that_fails_half_way_leaves_no_model(registry: Registry) -> None:
    build_id = registry.queue(promote_to=Stage.DEVELOPMENT)
    lease = registry.take(build_id)
    before = everything(registry)
    file = ArtifactRef("model.zip", "somewhere/model.zip", "no digest", 1)
    broken = replace(publication("1.0.0-abcdef1"), artifacts=(file,))
    with (
        pytest.raises(IntegrityError, match="ck_artifacts_sha256"),
        registry.database.transaction() as session,
    ):
        publish(session, lease, broken)
    assert everything(registry) == before


def test_a_publication_whose_transaction_is_lost_leaves_no_model(
    database: Database, registry: Registry
) -> None:
    lease = registry.take(registry.queue(promote_to=Stage.DEVELOPMENT))
    before = everything(registry)

    class Died(Exception):
        pass

    def publish_and_die() -> None:
        with database.transaction() as session:
            prefix = listing.get(session, lease.build_id).prefix
            publish(session, lease, publication(prefix))
            raise Died

    with pytest.raises(Died):
        publish_and_die()
    assert everything(registry) == before
    with database.transaction() as session, pytest.raises(NotFound):
        catalogue.get(session, listing.get(session, lease.build_id).prefix)


def test_inputs_are_recorded_once_and_the_last_word_counts(registry: Registry) -> None:
    build_id = registry.queue()
    lease = registry.take(build_id)
    image = InputRecord(InputKind.MACHINE_IMAGE, "FPO Training 1.1.0", origin="ami-1")
    for size in (None, 5):
        with registry.database.transaction() as session:
            inputs.record(session, lease, [replace(INPUT, size_bytes=size), image])
    with registry.database.transaction() as session:
        assert inputs.of_build(session, build_id) == [image, INPUT]


@pytest.mark.parametrize(
    "bad",
    [
        replace(INPUT, kind=cast("InputKind", "gossip")),
        replace(INPUT, sha256="abc"),
        replace(INPUT, sha256=None),
    ],
    ids=["kind", "digest", "unidentified"],
)
def test_an_input_that_identifies_nothing_is_refused(shared: Registry, bad: InputRecord) -> None:
    lease = shared.take(shared.queue())
    with pytest.raises(IntegrityError, match=r"ck_(build_)?inputs"), shared.database.transaction() as session:
        inputs.record(session, lease, [bad])


def events_of(registry: Registry, build_id: UUID) -> list[tuple[str, dict[str, object]]]:
    with registry.database.engine.connect() as connection:
        rows = connection.execute(
            text("SELECT type, data FROM build_events WHERE build_id = :id ORDER BY id"), {"id": build_id}
        )
        return [(row.type, row.data) for row in rows]


def test_what_happens_to_a_build_is_recorded_in_its_order(registry: Registry) -> None:
    build_id = registry.queue()
    lease = registry.take(build_id)
    with registry.database.transaction() as session:
        steps.start(session, lease, StepName.TRAIN)
    with registry.database.transaction() as session:
        steps.note(session, lease, StepName.TRAIN, "waits for AWS")
        steps.fail(session, lease, FAILURE)
    with registry.database.transaction() as session:
        ending.end(session, lease, BuildState.FAILED)
    assert events_of(registry, build_id) == [
        ("state", {"state": "queued"}),
        ("state", {"state": "running"}),
        ("step_started", {"step": "train", "attempt": 1}),
        ("note", {"step": "train", "message": "waits for AWS"}),
        ("step_failed", {"step": "train", "code": FAILURE.code, "message": FAILURE.message}),
        ("state", {"state": "failed"}),
    ]


def test_an_event_that_is_not_committed_is_not_there(registry: Registry) -> None:
    lease = registry.take(registry.queue())
    before = events_of(registry, lease.build_id)
    with registry.database.transaction() as session:
        steps.start(session, lease, StepName.TRAIN)
        session.rollback()
    assert events_of(registry, lease.build_id) == before


def test_listeners_are_told_of_events_and_progress_by_their_ids_alone(registry: Registry) -> None:
    lease = registry.take(registry.queue())
    with psycopg.connect(registry.database.conninfo, autocommit=True) as listener:
        listener.execute(f"LISTEN {events.CHANNEL}")
        with registry.database.transaction() as session:
            steps.start(session, lease, StepName.TRAIN)
            # More than a payload can hold: it must not travel with the notification.
            steps.note(session, lease, StepName.TRAIN, "x" * 9000)
            steps.set_progress(session, lease, {"phase": "embed", "percent": 5.0})
        told = [json.loads(one.payload) for one in listener.notifies(timeout=5, stop_after=3)]
    ids = registry.values("SELECT id FROM build_events ORDER BY id DESC LIMIT 2")
    assert told == [{"build": str(lease.build_id), "event": id_} for id_ in (ids[1], ids[0], None)]


def test_a_build_does_not_change_to_a_state_that_cannot_follow(registry: Registry) -> None:
    build_id = registry.queue()
    with pytest.raises(InvalidTransition, match="queued"), registry.database.transaction() as session:
        switch(session, session.get_one(Build, build_id), BuildState.SUCCEEDED)
    assert registry.value("SELECT state FROM builds") == "queued"


def test_a_rewound_build_starts_anew_from_the_named_step_and_keeps_what_came_before(
    registry: Registry,
) -> None:
    lease = registry.take(registry.queue())
    with registry.database.transaction() as session:
        for name in BuildKind.TRAIN.steps[:9]:
            steps.start(session, lease, name)
            steps.finish(session, lease, name, {"of": name})
        steps.start(session, lease, StepName.TRAIN)
        steps.checkpoint(session, lease, StepName.TRAIN, {"log_bytes": 5})
    with registry.database.transaction() as session:
        steps.rewind(session, lease, StepName.LAUNCH_INSTANCE, "the instance i-1 is gone")
    with registry.database.transaction() as session:
        view = steps.view(session, lease)
        shown = steps.shown(listing.get(session, lease.build_id))
    assert view.done == {StepName.NEEDS_MODEL, StepName.FIND_IMAGE, StepName.FIND_NETWORK}
    assert view.checkpoints == {}
    assert [step.state for step in shown] == ["succeeded"] * 3 + ["pending"] * 13
    told = {"step": "launch_instance", "reason": "the instance i-1 is gone"}
    assert events_of(registry, lease.build_id)[-1] == ("rewound", told)


def test_a_build_of_a_kind_that_a_worker_does_not_know_is_left_to_a_newer_one(registry: Registry) -> None:
    model = registry.model()
    build_id = registry.queue("1.1.0")
    registry.execute(
        "UPDATE builds SET kind = 'reproduce', reproduction_wanted = '{}',"
        " reproduces = (SELECT id FROM models WHERE prefix = :model) WHERE id = :id",
        id=build_id,
        model=model,
    )
    with registry.database.transaction() as session:
        assert take(session, build_id, "an older worker", LEASE, [BuildKind.TRAIN]) is None
        assert take(session, build_id, "a newer worker", LEASE) is not None


def test_words_and_fields_of_a_newer_version_are_passed_over_by_the_worker(registry: Registry) -> None:
    lease = registry.take(registry.queue())
    registry.execute(
        "INSERT INTO build_steps (build_id, name, state, attempts, started_at, output)"
        " VALUES (:id, 'warm_the_cache', 'succeeded', 1, now(), '{}')",
        id=lease.build_id,
    )
    with registry.database.transaction() as session:
        assert "warm_the_cache" in steps.view(session, lease).done
        assert steps.shown(listing.get(session, lease.build_id))[-1].name == "warm_the_cache"
