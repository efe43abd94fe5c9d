"""What a worker writes: under its lease, whole, and nothing after another has taken over."""

import inspect
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.db.session import Database
from app.registry import builds, models, runs
from app.registry.errors import NotFound
from app.registry.models import ArtifactRef
from app.registry.runs import Failure, InputRecord, Lease, LeaseLost
from app.words import BuildState, Stage, StepName, StepState, Verdict
from tests.integration.app.registry import LEASE, Registry, publication

FAILURE = Failure(StepName.TRAIN, "out_of_memory", "Take a larger machine.")
INPUT = InputRecord("raw_data", "raw_source_data.zip", "a" * 64, 5, None)

WRITES: dict[str, Callable[[Session, Lease], object]] = {
    "renew": lambda s, lease: runs.renew(s, lease, timedelta(hours=9)),
    "release": runs.release,
    "view": runs.view,
    "start_step": lambda s, lease: runs.start_step(s, lease, StepName.TRAIN),
    "finish_step": lambda s, lease: runs.finish_step(s, lease, StepName.TRAIN, {"x": 1}),
    "note_step": lambda s, lease: runs.note_step(s, lease, StepName.TRAIN, "waits"),
    "checkpoint_step": lambda s, lease: runs.checkpoint_step(s, lease, StepName.TRAIN, {"x": 1}),
    "fail_step": lambda s, lease: runs.fail_step(s, lease, FAILURE),
    "set_progress": lambda s, lease: runs.set_progress(s, lease, {"phase": "x", "percent": 1.0}),
    "append_log": lambda s, lease: runs.append_log(s, lease, "a line\n"),
    "record_inputs": lambda s, lease: runs.record_inputs(s, lease, [INPUT]),
    "publish": lambda s, lease: runs.publish(s, lease, publication("1.0.0-abcdef1"), {}),
    "fail": runs.fail,
}


def everything(registry: Registry) -> list[object]:
    """Every row that a worker can write."""
    tables = "builds build_steps build_log_chunks build_inputs models artifacts outbox procrastinate_jobs"
    return [
        row
        for table in tables.split()
        for row in registry.values(f"SELECT to_jsonb(t)::text FROM {table} t ORDER BY 1")
    ]


def unattended(registry: Registry) -> list[UUID]:
    with registry.database.transaction() as session:
        return runs.unattended(session)


def lapsed(registry: Registry) -> Lease:
    """A lease whose build another worker has taken over."""
    build_id = registry.queue()
    lease = registry.take(build_id, "the first", timedelta(milliseconds=1))
    time.sleep(0.01)
    registry.take(build_id, "the second")
    return lease


def test_these_are_all_the_functions_that_write_under_a_lease() -> None:
    functions = [function for function in vars(runs).values() if inspect.isfunction(function)]
    under_a_lease = {
        function.__name__
        for function in functions
        if not function.__name__.startswith("_") and function.__annotations__.get("lease") is Lease
    }
    assert under_a_lease == WRITES.keys()


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


def test_an_empty_log_line_is_no_write_but_a_lost_lease_is_noticed_at_the_next(registry: Registry) -> None:
    lease = lapsed(registry)
    with registry.database.transaction() as session:
        runs.append_log(session, lease, "")


def test_a_held_build_cannot_be_taken_until_its_lease_has_run_out(registry: Registry) -> None:
    build_id = registry.queue()
    first = registry.take(build_id, "the first", timedelta(milliseconds=300))
    with registry.database.transaction() as session:
        assert runs.take(session, build_id, "the second", LEASE) is None
    time.sleep(0.35)
    second = registry.take(build_id, "the second")
    assert second.epoch == first.epoch + 1
    assert registry.value("SELECT lease_owner FROM builds") == "the second"


def test_a_renewed_lease_lasts_longer(registry: Registry) -> None:
    build_id = registry.queue()
    lease = registry.take(build_id, lease=timedelta(milliseconds=200))
    with registry.database.transaction() as session:
        runs.renew(session, lease, LEASE)
    time.sleep(0.25)
    with registry.database.transaction() as session:
        assert runs.take(session, build_id, "another", LEASE) is None


def test_a_released_build_can_be_taken_at_once(registry: Registry) -> None:
    build_id = registry.queue()
    lease = registry.take(build_id)
    with registry.database.transaction() as session:
        runs.release(session, lease)
    assert registry.take(build_id).epoch == lease.epoch + 1


def test_a_build_is_unattended_when_neither_a_worker_nor_a_job_has_it(registry: Registry) -> None:
    build_id = registry.queue()
    # Its job waits.
    assert unattended(registry) == []
    registry.execute("DELETE FROM procrastinate_jobs")
    assert unattended(registry) == [build_id]
    lease = registry.take(build_id)
    assert unattended(registry) == []
    with registry.database.transaction() as session:
        runs.release(session, lease)
    assert unattended(registry) == [build_id]
    registry.publish(build_id)
    assert unattended(registry) == []


def test_of_two_that_take_at_the_same_moment_one_gets_it(registry: Registry) -> None:
    build_id = registry.queue()
    one, other = registry.database.transaction(), registry.database.transaction()
    with one as first:
        assert runs.take(first, build_id, "one", LEASE) is not None
        with other as second:
            second.connection().exec_driver_sql("SET LOCAL lock_timeout = '100ms'")
            # Waits for the first one's end instead of taking it, too.
            with pytest.raises(Exception, match="lock timeout"), second.begin_nested():
                runs.take(second, build_id, "other", LEASE)
    with registry.database.transaction() as session:
        assert runs.take(session, build_id, "other", LEASE) is None


def test_a_build_that_has_ended_cannot_be_taken(registry: Registry) -> None:
    build_id = registry.queue()
    registry.publish(build_id)
    with registry.database.transaction() as session:
        assert runs.take(session, build_id, "late", LEASE) is None
        assert runs.state_of(session, build_id) is BuildState.SUCCEEDED


def test_steps_keep_their_first_start_over_all_workers(registry: Registry) -> None:
    build_id = registry.queue()
    first = registry.take(build_id, lease=timedelta(milliseconds=1))
    with registry.database.transaction() as session:
        assert runs.start_step(session, first, StepName.TRAIN) == timedelta(0)
        runs.checkpoint_step(session, first, StepName.TRAIN, {"log_bytes": 5})
        runs.note_step(session, first, StepName.TRAIN, "waits")
    time.sleep(0.05)
    second = registry.take(build_id)
    with registry.database.transaction() as session:
        assert runs.start_step(session, second, StepName.TRAIN) >= timedelta(seconds=0.05)
    with registry.database.transaction() as session:
        view = runs.view(session, second)
        assert view.done == frozenset()
        assert view.outputs == {StepName.TRAIN: {"log_bytes": 5}}
        runs.finish_step(session, second, StepName.TRAIN, {"log_bytes": 9})
    with registry.database.transaction() as session:
        view = runs.view(session, second)
        step = next(step for step in builds.get(session, build_id).steps if step.name == StepName.TRAIN)
    assert view.done == {StepName.TRAIN}
    assert view.outputs == {StepName.TRAIN: {"log_bytes": 9}}
    assert (step.state, step.attempts, step.message) == (StepState.SUCCEEDED, 2, None)


def test_a_failed_build_tells_why_and_skips_what_was_left(registry: Registry) -> None:
    build_id = registry.queue()
    lease = registry.take(build_id)
    with registry.database.transaction() as session:
        runs.start_step(session, lease, StepName.TRAIN)
        runs.fail_step(session, lease, FAILURE)
    with registry.database.transaction() as session:
        # Its instance is not gone yet.
        assert runs.view(session, lease).failure == FAILURE
        assert runs.state_of(session, build_id) is BuildState.RUNNING
    with registry.database.transaction() as session:
        runs.finish_step(session, lease, StepName.TERMINATE_INSTANCE, {})
        runs.fail(session, lease)
    with registry.database.transaction() as session:
        build = builds.get(session, build_id)
        states = {step.name: step.state for step in build.steps}
    assert build.state == BuildState.FAILED
    assert build.finished_at is not None
    assert (build.lease_owner, build.lease_expires_at, build.progress) == (None, None, None)
    assert states.pop("train") == StepState.FAILED
    assert states.pop("terminate_instance") == StepState.SUCCEEDED
    assert set(states.values()) == {StepState.SKIPPED}


def test_a_build_cannot_fail_without_a_reason(registry: Registry) -> None:
    lease = registry.take(registry.queue())
    with pytest.raises(IntegrityError, match="ck_builds_failure"), registry.database.transaction() as session:
        runs.fail(session, lease)


def test_publishing_makes_model_promotion_and_markers_in_one_change(registry: Registry) -> None:
    build_id = registry.queue("1.0.0", promote_to=Stage.DEVELOPMENT)
    prefix = registry.publish(build_id, Verdict.FAILED)
    assert registry.values("SELECT key FROM outbox ORDER BY id") == [
        f"{prefix}/failed",
        f"{prefix}/development",
    ]
    jobs = "SELECT task_name FROM procrastinate_jobs WHERE queue_name = 'upkeep'"
    assert registry.values(jobs) == ["drain_outbox"]
    with registry.database.transaction() as session:
        model = models.get(session, prefix)
        build = builds.get(session, build_id)
    assert (model.build_id, model.verdict) == (build_id, "failed")
    assert [promotion.note for promotion in model.promotions] == ["with its build"]
    assert build.state == BuildState.SUCCEEDED
    assert build.steps[-1].state == StepState.SUCCEEDED


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
        runs.publish(session, lease, broken, {})
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
            prefix = builds.get(session, lease.build_id).prefix
            runs.publish(session, lease, publication(prefix), {})
            raise Died

    with pytest.raises(Died):
        publish_and_die()
    assert everything(registry) == before
    with database.transaction() as session, pytest.raises(NotFound):
        models.get(session, builds.get(session, lease.build_id).prefix)


def test_inputs_are_recorded_once_and_the_last_word_counts(registry: Registry) -> None:
    build_id = registry.queue()
    lease = registry.take(build_id)
    image = InputRecord("machine_image", "FPO Training 1.1.0", origin="ami-1")
    for size in (5, 6):
        with registry.database.transaction() as session:
            runs.record_inputs(session, lease, [replace(INPUT, size_bytes=size), image])
    with registry.database.transaction() as session:
        assert runs.inputs_of(session, build_id) == [image, replace(INPUT, size_bytes=6)]


@pytest.mark.parametrize(
    "bad",
    [replace(INPUT, kind="gossip"), replace(INPUT, sha256="abc"), replace(INPUT, sha256=None)],
    ids=["kind", "digest", "unidentified"],
)
def test_an_input_that_identifies_nothing_is_refused(shared: Registry, bad: InputRecord) -> None:
    lease = shared.take(shared.queue())
    with pytest.raises(IntegrityError, match="ck_build_inputs"), shared.database.transaction() as session:
        runs.record_inputs(session, lease, [bad])
