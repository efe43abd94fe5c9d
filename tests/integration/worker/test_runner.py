"""Carrying builds: taking over, handing over, failing, and always ending the machine."""

import threading
import time
from collections.abc import Callable
from uuid import UUID

import pytest
from sqlalchemy import text

from app.db.session import Database
from app.db.tables import Build
from app.registry.builds import listing, log, steps
from app.registry.builds.lease import LeaseLost, release, renew, take
from app.settings import Settings
from app.words import BuildState, StepName, StepState
from local.simcloud.server import SimCloud
from worker.errors import Busy, HandOver
from worker.runner import MAX_TAKINGS, Runner

Post = Callable[..., UUID]
NewRunner = Callable[[], Runner]


def build_of(database: Database, build_id: UUID) -> Build:
    with database.transaction() as session:
        return listing.get(session, build_id)


def state_of(build: Build, name: StepName) -> str:
    return next(step.state for step in steps.shown(build) if step.name == name)


def test_no_capacity_fails_the_build_at_once_and_says_so(
    database: Database, cloud: SimCloud, post: Post, new_runner: NewRunner
) -> None:
    cloud.faults.add("ec2", "RunInstances", code="InsufficientInstanceCapacity", status=500, times=None)
    build_id = post()
    new_runner().carry(build_id)
    build = build_of(database, build_id)
    assert (build.state, build.failure_step, build.failure_code) == (
        "failed",
        "launch_instance",
        "no_capacity",
    )
    assert state_of(build, StepName.TERMINATE_INSTANCE) == StepState.SUCCEEDED
    assert state_of(build, StepName.TRAIN) == StepState.SKIPPED
    assert cloud.instances(ended=True) == []


def test_throttling_is_waited_out(
    database: Database, cloud: SimCloud, post: Post, new_runner: NewRunner
) -> None:
    # More than botocore repeats by itself, in the first step that asks EC2; then the launch fails for good.
    cloud.faults.add("ec2", "DescribeImages", code="RequestLimitExceeded", status=503, times=6)
    cloud.faults.add("ec2", "RunInstances", code="UnauthorizedOperation", status=403, times=None)
    build_id = post()
    new_runner().carry(build_id)
    build = build_of(database, build_id)
    assert state_of(build, StepName.FIND_IMAGE) == StepState.SUCCEEDED
    assert (build.failure_step, build.failure_code) == ("launch_instance", "cloud_auth")


def test_a_machine_whose_end_cannot_be_confirmed_keeps_the_build_running(
    database: Database, cloud: SimCloud, post: Post, new_runner: NewRunner
) -> None:
    cloud.faults.add("ec2", "DescribeInstanceStatus", code="UnauthorizedOperation", status=403, times=None)
    refusing = cloud.faults.add(
        "ec2", "TerminateInstances", code="UnauthorizedOperation", status=403, times=None
    )
    build_id = post()
    runner = new_runner()
    thread = threading.Thread(target=runner.carry, args=(build_id,))
    thread.start()
    ends = time.monotonic() + 30
    while refusing.hits < 2 and time.monotonic() < ends:
        time.sleep(0.05)
    build = build_of(database, build_id)
    assert (build.state, build.failure_code) == (BuildState.RUNNING, "cloud_auth")
    assert state_of(build, StepName.TERMINATE_INSTANCE) == StepState.RUNNING
    assert len(cloud.instances()) == 1
    cloud.faults.remove(refusing)
    thread.join(60)
    assert build_of(database, build_id).state == BuildState.FAILED
    assert cloud.instances() == []


def test_a_defect_in_a_step_ends_the_machine_too(
    database: Database,
    cloud: SimCloud,
    post: Post,
    new_runner: NewRunner,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("worker.steps.code.BringCode.act", broken)
    build_id = post()
    new_runner().carry(build_id)
    build = build_of(database, build_id)
    assert (build.failure_step, build.failure_code) == ("bring_code", "internal_error")
    assert len(cloud.instances(ended=True)) == 1
    assert cloud.instances() == []
    with database.transaction() as session:
        logged, _ = log.read(session, build_id, 0, 1 << 20)
    assert b"ZeroDivisionError" in logged


def test_only_one_of_two_workers_carries_a_build(
    database: Database, cloud: SimCloud, post: Post, new_runner: NewRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, leave = threading.Event(), threading.Event()

    def waits(*_: object) -> None:
        entered.set()
        leave.wait(30)
        raise ZeroDivisionError

    monkeypatch.setattr("worker.steps.image.FindImage.act", waits)
    build_id = post()
    first = threading.Thread(target=new_runner().carry, args=(build_id,))
    first.start()
    assert entered.wait(10)
    # Longer than the lease: it is kept by its heartbeat.
    time.sleep(3.5)
    with pytest.raises(Busy):
        new_runner().carry(build_id)
    leave.set()
    first.join(30)
    # It has ended: another delivery of the job changes nothing.
    new_runner().carry(build_id)
    assert build_of(database, build_id).lease_epoch == 1


def test_a_paused_worker_that_wakes_up_changes_nothing(
    database: Database, cloud: SimCloud, post: Post, new_runner: NewRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, leave = threading.Event(), threading.Event()
    calls = []

    def waits(*_: object) -> None:
        calls.append(1)
        if len(calls) == 1:
            entered.set()
            leave.wait(30)
            raise ZeroDivisionError
        raise LookupError

    monkeypatch.setattr("worker.steps.image.FindImage.act", waits)
    build_id = post()
    paused = threading.Thread(target=new_runner().carry, args=(build_id,))
    paused.start()
    assert entered.wait(10)
    with database.transaction() as session:
        session.execute(text("UPDATE builds SET lease_expires_at = now() - interval '1 second'"))
    new_runner().carry(build_id)
    ended = build_of(database, build_id)
    leave.set()
    paused.join(30)
    build = build_of(database, build_id)
    assert (build.failure_message, build.finished_at) == (ended.failure_message, ended.finished_at)
    assert "LookupError" in (build.failure_message or "")


def test_a_worker_that_is_told_to_stop_lets_go_at_once(
    database: Database, cloud: SimCloud, post: Post, new_runner: NewRunner
) -> None:
    cloud.faults.add("ec2", "DescribeInstanceStatus", code="RequestLimitExceeded", status=503, times=None)
    build_id = post()
    runner = new_runner()
    outcome: list[BaseException] = []

    def carry() -> None:
        try:
            runner.carry(build_id)
        except HandOver as exc:
            outcome.append(exc)

    thread = threading.Thread(target=carry)
    thread.start()
    ends = time.monotonic() + 30
    while (
        state_of(build_of(database, build_id), StepName.AWAIT_READY) != "running" and time.monotonic() < ends
    ):
        time.sleep(0.05)
    runner.stopping.set()
    thread.join(30)
    assert len(outcome) == 1
    build = build_of(database, build_id)
    assert (build.state, build.lease_owner) == ("running", None)
    # The machine stays for the worker that takes over.
    assert len(cloud.instances()) == 1


def test_a_build_that_stops_every_worker_ends_with_its_instance(
    database: Database,
    cloud: SimCloud,
    post: Post,
    new_runner: NewRunner,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A defect outside the steps, which are guarded: the job comes back again and again."""

    def defect(*_: object) -> None:
        message = "a defect while the step is recorded"
        raise ValueError(message)

    build_id = post()
    with monkeypatch.context() as patched:
        patched.setattr("app.registry.builds.steps.start", defect)
        for _ in range(MAX_TAKINGS):
            with pytest.raises(ValueError, match="a defect"):
                new_runner().carry(build_id)
            expire(database)
            assert build_of(database, build_id).state == BuildState.RUNNING
        # Whoever comes next ends it, and needs what is defective to do so no more than once.
    new_runner().carry(build_id)
    build = build_of(database, build_id)
    assert (build.state, build.failure_code) == (BuildState.FAILED, "internal_error")
    assert "a defect while the step is recorded" in (build.failure_message or "")
    assert cloud.instances() == []


def test_workers_that_die_one_after_the_other_end_the_build_but_those_that_hand_it_over_do_not(
    database: Database, cloud: SimCloud, post: Post, new_runner: NewRunner, settings: Settings
) -> None:
    build_id = post()
    for _ in range(3 * MAX_TAKINGS):
        with database.transaction() as session:
            lease = take(session, build_id, "a worker that is stopped", settings.lease)
            assert lease is not None
            # Its progress does not make up for the deaths of those that come later.
            steps.set_progress(session, lease, {"phase": "waiting", "percent": 0.0, "eta_seconds": None})
            release(session, lease)
    for _ in range(MAX_TAKINGS):
        with database.transaction() as session:
            assert take(session, build_id, "a worker that is killed", settings.lease) is not None
        expire(database)
    new_runner().carry(build_id)
    build = build_of(database, build_id)
    assert (build.state, build.failure_code) == (BuildState.FAILED, "internal_error")
    assert "died without a word" in (build.failure_message or "")


def test_a_released_build_is_not_held_again_by_a_late_heartbeat(
    database: Database, post: Post, settings: Settings
) -> None:
    build_id = post()
    with database.transaction() as session:
        lease = take(session, build_id, "a worker that hands over", settings.lease)
        assert lease is not None
        release(session, lease)
    with pytest.raises(LeaseLost), database.transaction() as session:
        renew(session, lease, settings.lease)
    with database.transaction() as session:
        assert take(session, build_id, "another worker", settings.lease) is not None


def expire(database: Database) -> None:
    with database.transaction() as session:
        session.execute(text("UPDATE builds SET lease_expires_at = now() - interval '1 second'"))
