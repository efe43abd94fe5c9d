"""The worker as a process: what it goes on doing while something is wrong, and how it ends."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import text

from app.db.session import Database
from app.db.tables import Build
from app.registry import mirror
from app.registry.builds import listing
from app.registry.runs import lifecycle
from app.settings import Settings
from app.words import BuildState, RunKind
from local.postgres import EmbeddedPostgres
from local.simcloud.faults import Fault
from local.simcloud.server import SimCloud
from tests.conftest import ROOT, make_template
from tests.integration.app.registry import Registry
from tests.integration.worker.old_bucket import put_model
from tests.integration.worker.receiver import OK, Received, receiving
from worker.clouds import Clouds

Post = Callable[..., UUID]


@pytest.fixture(scope="module")
def own_postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """A Postgres that these tests may stop and start."""
    # As root, Postgres is another user, to whom pytest's own folder is closed.
    folder = Path(f"/tmp/registry-restarts-{os.getpid()}")
    with EmbeddedPostgres(folder / "data", durable=False) as server:
        yield server
    subprocess.run(["rm", "-rf", folder], check=True)


@pytest.fixture(scope="module")
def postgres(own_postgres: EmbeddedPostgres) -> str:
    url = own_postgres.start()
    make_template(url)
    return url


@dataclass
class Workers:
    """Worker processes, with what they log."""

    environment: dict[str, str]
    folder: Path
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self) -> subprocess.Popen[bytes]:
        with (self.folder / f"{len(self.started)}.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "worker"], cwd=ROOT, env=self.environment, stdout=log, stderr=log
            )
        self.started.append(process)
        return process

    def logged(self) -> str:
        return "\n".join(path.read_text() for path in sorted(self.folder.glob("*.log")))

    def stop(self, process: subprocess.Popen[bytes]) -> float:
        """Tell it to stop; returns how many seconds it took."""
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        process.wait(30)
        return time.monotonic() - began


@pytest.fixture
def workers(settings: Settings, cloud: SimCloud, filled_bucket: object, tmp_path: Path) -> Iterator[Workers]:
    environment = (
        os.environ
        | cloud.environment()
        | {
            "DATABASE_URL": settings.database_url.get_secret_value(),
            "REGISTRY_SSH_PORT": str(cloud.ssh_port),
            "REGISTRY_CODE_REPOSITORY": str(ROOT),
            "REGISTRY_LEASE": "PT3S",
            "REGISTRY_HEARTBEAT": "PT1S",
            "REGISTRY_STALLED_AFTER": "PT3S",
            "REGISTRY_UPKEEP_EVERY_S": "1",
            "REGISTRY_ORPHAN_GRACE": "PT0S",
        }
    )
    made = Workers(environment, tmp_path)
    yield made
    for process in made.started:
        process.kill()
        process.wait()


@dataclass(frozen=True)
class Watch:
    """Waits for what the workers do to the database."""

    database: Database
    workers: Workers

    def build(self, build_id: UUID) -> Build:
        with self.database.transaction() as session:
            return listing.get(session, build_id)

    def carried(self, build_id: UUID) -> bool:
        build = self.build(build_id)
        return build.state == BuildState.RUNNING and build.lease_owner is not None

    def outbox_is_empty(self) -> bool:
        with self.database.transaction() as session:
            return session.execute(text("SELECT 1 FROM outbox")).first() is None

    def until(self, what: Callable[[], bool], within_s: float = 30) -> None:
        ends = time.monotonic() + within_s
        while not what():
            if time.monotonic() > ends:
                pytest.fail(f"not within {within_s} s\n{self.workers.logged()[-6000:]}")
            time.sleep(0.1)


@pytest.fixture
def watch(database: Database, workers: Workers) -> Watch:
    return Watch(database, workers)


@pytest.fixture
def never_ready(cloud: SimCloud) -> Fault:
    """Builds wait for their instance for as long as the fault stays."""
    return cloud.faults.add(
        "ec2", "DescribeInstanceStatus", code="RequestLimitExceeded", status=503, times=None
    )


def test_after_a_restart_of_postgres_a_worker_that_carries_a_build_does_everything_else(
    watch: Watch,
    workers: Workers,
    post: Post,
    never_ready: Fault,
    own_postgres: EmbeddedPostgres,
    database: Database,
) -> None:
    first = post("0.0.2")
    workers.start()
    watch.until(lambda: watch.carried(first) and never_ready.hits > 0)
    own_postgres.stop()
    time.sleep(2)
    own_postgres.start()
    second = post("0.0.3")
    with database.transaction() as session:
        mirror.ask(session, "0.0.9-aaaaaaa/passed")
    watch.until(lambda: watch.carried(second), within_s=10)
    watch.until(watch.outbox_is_empty, within_s=10)
    watch.until(lambda: watch.carried(first), within_s=10)
    # Upkeep: a build whose job is lost gets another one.
    third = post("0.0.4", job=False)
    watch.until(lambda: watch.carried(third), within_s=10)
    assert "is started again" in workers.logged()
    assert "Traceback" not in workers.logged()


def test_a_build_is_carried_once_after_a_restart_of_postgres(
    watch: Watch, workers: Workers, post: Post, cloud: SimCloud, own_postgres: EmbeddedPostgres
) -> None:
    hanging = cloud.faults.add("ec2", "DescribeInstanceStatus", hang=True, times=None)
    build_id = post()
    workers.environment["REGISTRY_WORKER_CONCURRENCY"] = "2"
    workers.start()
    watch.until(lambda: hanging.hits == 1)
    owner = watch.build(build_id).lease_owner
    own_postgres.stop()
    own_postgres.start()
    time.sleep(5)
    # The thread that hangs in its call still has the build, and it is the only one.
    assert hanging.hits == 1
    assert watch.build(build_id).lease_owner == owner
    # It leaves room for one build more, no matter how often the queue's worker was started again.
    second, third = post("0.0.3"), post("0.0.4")
    watch.until(lambda: watch.carried(second))
    time.sleep(2)
    assert not watch.carried(third)


def test_a_worker_ends_soon_while_postgres_is_down(
    watch: Watch, workers: Workers, post: Post, never_ready: Fault, own_postgres: EmbeddedPostgres
) -> None:
    build_id = post()
    worker = workers.start()
    watch.until(lambda: watch.carried(build_id) and never_ready.hits > 0)
    own_postgres.stop()
    try:
        time.sleep(1)
        assert workers.stop(worker) < 20
        assert worker.returncode == 0
    finally:
        own_postgres.start()
    assert "Traceback" not in workers.logged()


def test_a_worker_ends_soon_while_a_call_hangs_and_its_build_goes_on_elsewhere(
    watch: Watch, workers: Workers, post: Post, cloud: SimCloud
) -> None:
    hanging = cloud.faults.add("ec2", "DescribeInstanceStatus", hang=True)
    build_id = post()
    worker = workers.start()
    watch.until(lambda: hanging.hits == 1)
    assert workers.stop(worker) < 20
    assert worker.returncode == 0
    assert watch.build(build_id).lease_owner is None
    cloud.faults.add("ec2", "DescribeInstanceStatus", code="RequestLimitExceeded", status=503, times=None)
    workers.start()
    watch.until(lambda: watch.carried(build_id), within_s=10)
    assert "Traceback" not in workers.logged()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_takeover_is_a_normal_event_in_the_log(
    how: signal.Signals, watch: Watch, workers: Workers, post: Post, never_ready: Fault
) -> None:
    build_id = post()
    first = workers.start()
    watch.until(lambda: watch.carried(build_id) and never_ready.hits > 0)
    epoch = watch.build(build_id).lease_epoch
    workers.start()
    first.send_signal(how)
    first.wait(20)
    watch.until(lambda: watch.carried(build_id) and watch.build(build_id).lease_epoch > epoch)
    logged = workers.logged()
    assert "Traceback" not in logged
    assert " ERROR " not in logged


def test_a_paused_worker_that_has_lost_its_build_says_so_in_a_line(
    watch: Watch, workers: Workers, post: Post, never_ready: Fault
) -> None:
    build_id = post()
    first = workers.start()
    watch.until(lambda: watch.carried(build_id) and never_ready.hits > 0)
    first.send_signal(signal.SIGSTOP)
    workers.start()
    watch.until(lambda: watch.build(build_id).lease_epoch > 1)
    first.send_signal(signal.SIGCONT)
    watch.until(lambda: "given up" in workers.logged())
    # It is a worker like any other again.
    others = [post(f"0.1.{number}") for number in range(3)]
    watch.until(lambda: all(watch.carried(other) for other in others))
    time.sleep(3)
    assert "Traceback" not in workers.logged()
    # Postgres may have ended a connection of the queue, which says so itself and goes on.
    errors = [line for line in workers.logged().splitlines() if " ERROR " in line]
    assert [line for line in errors if " ERROR procrastinate." not in line] == []


def test_upkeep_that_hangs_keeps_neither_the_mirror_nor_other_upkeep_waiting(
    watch: Watch,
    workers: Workers,
    post: Post,
    cloud: SimCloud,
    database: Database,
) -> None:
    hanging = cloud.faults.add("ec2", "DescribeInstances", hang=True, times=None)
    listing_bucket = cloud.faults.add("s3", "ListObjectsV2", hang=True, times=None)
    workers.start()
    watch.until(lambda: hanging.hits > 0 and listing_bucket.hits > 0)
    time.sleep(4)
    assert hanging.hits == 1
    with database.transaction() as session:
        mirror.ask(session, "0.0.9-aaaaaaa/passed")
    watch.until(watch.outbox_is_empty, within_s=5)
    build_id = post(job=False)
    watch.until(lambda: watch.build(build_id).state == BuildState.RUNNING, within_s=10)


def test_a_run_goes_on_in_another_worker_after_its_own_was_killed_and_delays_no_build(
    watch: Watch, workers: Workers, post: Post, cloud: SimCloud, clients: Clouds, database: Database
) -> None:
    for minor in range(210):
        put_model(clients.bucket, f"1.{minor}.0-aaaaaaa", files={"benchmark_results.xml": None})
    hanging = cloud.faults.add("s3", "GetObject", hang=True, times=None, match="1.99.0-aaaaaaa")
    with database.transaction() as session:
        run_id = lifecycle.request(session, RunKind.IMPORT, {"digests": False}, "somebody").id
    first = workers.start()

    def adopted() -> int:
        with database.transaction() as session:
            return int((lifecycle.get(session, run_id).result or {}).get("adopted", 0))

    def ended() -> bool:
        with database.transaction() as session:
            return lifecycle.get(session, run_id).state == "succeeded"

    # The second part hangs in its last prefix.
    watch.until(lambda: adopted() == 200 and hanging.hits > 0)
    first.kill()
    first.wait()
    cloud.faults.clear()
    workers.start()
    build_id = post()
    watch.until(ended)
    watch.until(lambda: watch.build(build_id).state != BuildState.QUEUED)
    assert adopted() == 210


def test_a_notification_whose_worker_is_killed_while_it_is_sent_comes_from_another_worker(
    database: Database, workers: Workers, watch: Watch
) -> None:
    """The change wakes a worker, and no log has an address."""
    with receiving() as receiver:
        workers.environment |= {
            "REGISTRY_WEBHOOK_URL": f"{receiver.url}/hush",
            "REGISTRY_WEBHOOK_SECRET": "whsec_" + "aHVzaGh1" * 4,
        }
        killed = workers.start()

        def kill(handler: BaseHTTPRequestHandler, request: Received) -> None:
            killed.kill()
            OK(handler, request)

        receiver.behaviours = [kill, OK]
        Registry(database).fail(Registry(database).queue())
        watch.until(lambda: len(receiver.received) == 1)
        killed.wait(30)
        workers.start()
        with database.transaction() as session:
            session.execute(text("UPDATE notifications SET next_attempt_at = clock_timestamp()"))
        watch.until(lambda: len(receiver.received) == 2)
        first, second = receiver.received
        assert first.headers["webhook-id"] == second.headers["webhook-id"]

        def sent() -> bool:
            with database.transaction() as session:
                # Nobody wants Slack's.
                return session.scalars(text("SELECT state FROM notifications")).all() == ["sent"]

        watch.until(sent)
    assert "sent to webhook" in workers.logged()
    assert "hush" not in workers.logged()
