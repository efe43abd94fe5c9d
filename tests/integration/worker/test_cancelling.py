"""A build that is cancelled ends soon, with its instance, whatever its worker is doing."""

import threading
import time
from collections.abc import Callable, Iterator
from uuid import UUID

import pytest

from app.db.session import Database
from app.db.tables import Build
from app.registry.builds import cancellation, listing, log
from app.registry.errors import BuildEnded, NotFound
from app.settings import Settings
from app.words import Actor, BuildState
from local.simcloud.server import SimCloud
from worker.clouds import Clouds
from worker.runner import Runner

Post = Callable[..., UUID]


@pytest.fixture
def carrying(new_runner: Callable[[], Runner]) -> Iterator[Callable[[UUID], threading.Thread]]:
    """Carries a build in a thread, as a worker does."""
    started: list[threading.Thread] = []
    runner = new_runner()

    def carry(build_id: UUID) -> threading.Thread:
        started.append(threading.Thread(target=runner.carry, args=[build_id], daemon=True))
        started[-1].start()
        return started[-1]

    yield carry
    runner.stopping.set()
    for thread in started:
        thread.join(30)


def eventually(holds: Callable[[], bool]) -> None:
    ends = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < ends, "it never came to hold"
        time.sleep(0.02)


def cancel(database: Database, build_id: UUID, who: str = "an engineer") -> Build:
    with database.transaction() as session:
        return cancellation.cancel(session, build_id, who, Actor.TOKEN)


def build_of(database: Database, build_id: UUID) -> Build:
    with database.transaction() as session:
        return listing.get(session, build_id)


def test_a_build_that_waits_for_its_instance_is_cancelled_with_it(
    database: Database,
    cloud: SimCloud,
    post: Post,
    carrying: Callable[[UUID], threading.Thread],
    new_runner: Callable[[], Runner],
) -> None:
    waits = cloud.faults.add(
        "ec2", "DescribeInstanceStatus", code="RequestLimitExceeded", status=503, times=None
    )
    build_id = post()
    first = carrying(build_id)
    eventually(lambda: waits.hits > 0)
    assert len(cloud.instances()) == 1
    assert cancel(database, build_id).state == BuildState.RUNNING
    new_runner().carry(build_id)
    build = build_of(database, build_id)
    assert build.state == BuildState.CANCELLED
    assert build.cancel_requested_by == "an engineer"
    assert not cloud.instances()
    first.join(30)
    assert not first.is_alive()
    with database.transaction() as session:
        text, _ = log.read(session, build_id, 0, 1 << 20)
    assert "[await_ready] started" in text.decode()
    assert "as an engineer asked" in text.decode()
    # Its prefix is free.
    assert post() != build_id


def test_a_worker_that_hangs_in_a_call_neither_delays_the_end_nor_changes_it(
    database: Database,
    cloud: SimCloud,
    post: Post,
    carrying: Callable[[UUID], threading.Thread],
    new_runner: Callable[[], Runner],
) -> None:
    hangs = cloud.faults.add("ec2", "DescribeInstanceStatus", hang=True, times=None)
    build_id = post()
    first = carrying(build_id)
    eventually(lambda: hangs.hits > 0)
    cancel(database, build_id)
    new_runner().carry(build_id)
    assert build_of(database, build_id).state == BuildState.CANCELLED
    assert first.is_alive()
    cloud.faults.clear()
    first.join(90)
    assert build_of(database, build_id).state == BuildState.CANCELLED
    assert not cloud.instances()


def test_a_queued_build_is_cancelled_at_once(
    database: Database, cloud: SimCloud, post: Post, new_runner: Callable[[], Runner]
) -> None:
    build_id = post()
    assert cancel(database, build_id).state == BuildState.CANCELLED
    # Its job finds nothing to do.
    new_runner().carry(build_id)
    assert build_of(database, build_id).state == BuildState.CANCELLED
    assert not cloud.instances(ended=True)


def test_asking_again_changes_nothing(database: Database, post: Post) -> None:
    build_id = post()
    first = cancel(database, build_id)
    again = cancel(database, build_id, "somebody else")
    assert (again.cancel_requested_by, again.finished_at) == ("an engineer", first.finished_at)


def test_a_build_that_has_ended_is_not_cancelled(
    database: Database, cloud: SimCloud, post: Post, new_runner: Callable[[], Runner]
) -> None:
    cloud.faults.add("ec2", "DescribeImages", code="UnauthorizedOperation", status=403, times=None)
    build_id = post()
    new_runner().carry(build_id)
    assert build_of(database, build_id).state == BuildState.FAILED
    with pytest.raises(BuildEnded, match="has failed already"):
        cancel(database, build_id)
    assert build_of(database, build_id).cancel_requested_at is None


def test_a_build_that_does_not_exist_cannot_be_cancelled(database: Database) -> None:
    with pytest.raises(NotFound):
        cancel(database, UUID(int=7))


def test_a_cancelled_build_that_fails_to_end_its_instance_goes_on_trying(
    settings: Settings,
    database: Database,
    cloud: SimCloud,
    filled_bucket: Clouds,
    post: Post,
    carrying: Callable[[UUID], threading.Thread],
) -> None:
    waits = cloud.faults.add(
        "ec2", "DescribeInstanceStatus", code="RequestLimitExceeded", status=503, times=None
    )
    build_id = post()
    carrying(build_id)
    eventually(lambda: waits.hits > 0)
    refuses = cloud.faults.add("ec2", "TerminateInstances", code="UnauthorizedOperation", status=403, times=2)
    cancel(database, build_id)
    carrying(build_id)
    eventually(lambda: refuses.hits == 2)
    assert build_of(database, build_id).state == BuildState.RUNNING
    eventually(lambda: build_of(database, build_id).state == BuildState.CANCELLED)
    assert not cloud.instances()
