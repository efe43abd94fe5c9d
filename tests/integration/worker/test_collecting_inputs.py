"""Inputs that nothing needs any more are deleted, and no build ever relies on one that is."""

import contextlib
import hashlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest
from fastapi.testclient import TestClient

from app.aws import CloudError, CloudUnavailable
from app.db.session import Database
from app.registry import late_deletes
from app.registry.builds.lease import release
from app.registry.collection.report import Report
from app.registry.inputs import InputRecord, claim, record
from app.registry.runs import lifecycle
from app.settings import Settings
from app.storage import keys
from app.storage.bucket import Bucket, digest_of
from app.storage.deleting import ObjectVersion
from app.words import Actor, InputKind, RunKind
from local.simcloud.server import SimCloud
from tests.integration.app.registry import Registry
from tests.integration.objects import overwrite, read
from tests.integration.worker.conftest import Flow
from worker.clouds import Clouds
from worker.heartbeat import LeaseKeeper
from worker.runs.collection.inputs import sweep_inputs
from worker.runs.work import RunWork
from worker.steps.inputs import keep_input

RAW = "raw_source_data.zip"
CONTENT = b"the raw data"
DIGEST = hashlib.sha256(CONTENT).hexdigest()
KEY = keys.input_key(DIGEST)
USED = InputRecord(InputKind.RAW_DATA, RAW, DIGEST, len(CONTENT), f"s3://bucket/{KEY}")
HOUR = timedelta(hours=1)

Keep = Callable[..., UUID]
Sweep = Callable[..., Report]


@pytest.fixture
def registry(database: Database) -> Registry:
    return Registry(database)


@pytest.fixture
def bucket(clients: Clouds) -> Bucket:
    return clients.bucket


@pytest.fixture
def keep(registry: Registry, bucket: Bucket) -> Keep:
    """A build that has put an input into the bucket, long ago; returns its id."""

    def keep(content: bytes = CONTENT, build: UUID | None = None) -> UUID:
        build_id = build or registry.queue()
        digest = hashlib.sha256(content).hexdigest()
        lease = registry.take(build_id)
        with registry.database.transaction() as session:
            record(session, lease, [InputRecord(InputKind.RAW_DATA, RAW, digest, len(content))])
            assert claim(session, lease, digest) is None
            release(session, lease)
        overwrite(bucket, keys.input_key(digest), content)
        registry.execute(
            "UPDATE inputs SET stored_at = recorded_at - interval '9 days',"
            " recorded_at = recorded_at - interval '9 days', upload_begun_at = NULL WHERE sha256 = :sha256",
            sha256=digest,
        )
        return build_id

    return keep


@pytest.fixture
def sweep(settings: Settings, database: Database, clients: Clouds) -> Sweep:
    """Sweeps the inputs as a run does, and ends the run."""

    def sweep(window: timedelta = timedelta(0)) -> Report:
        with database.transaction() as session:
            run = lifecycle.request(session, RunKind.COLLECTION, {}, "somebody", Actor.TOKEN).id
            lease = lifecycle.take(session, run, HOUR, list(RunKind))
        assert lease is not None
        work = RunWork(
            settings.model_copy(update={"retry_window": window}),
            database,
            clients,
            lease,
            {},
            {},
            {},
            LeaseKeeper(database, "the run", lambda _: None, HOUR),
            threading.Event(),
        )
        report = Report()
        try:
            sweep_inputs(work, report)
        finally:
            with database.transaction() as session:
                lifecycle.stop(session, run, "somebody")
        return report

    return sweep


def test_an_input_stays_while_anything_needs_it(
    registry: Registry,
    bucket: Bucket,
    keep: Keep,
    sweep: Sweep,
    api: TestClient,
) -> None:
    model = keep(b"of a model")
    registry.publish(model)
    keep(b"of an active build")
    failed = keep(b"of a build that is repeated")
    registry.fail(failed)
    assert api.post(f"/builds/{failed}/retry").status_code == 202
    registry.fail(keep(b"of a build that can be retried"))
    assert sweep(window=HOUR).inputs_freed == 0
    recent = keep(b"of a build that has failed")
    registry.fail(recent)
    registry.execute("UPDATE inputs SET upload_begun_at = now() WHERE size_bytes = 26")
    assert {read(bucket, key) for key, _ in bucket.list("inputs/")} == {
        b"of a model",
        b"of an active build",
        b"of a build that is repeated",
        b"of a build that can be retried",
        b"of a build that has failed",
    }
    registry.execute("UPDATE inputs SET upload_begun_at = NULL")
    assert sweep().inputs_freed == 2
    assert {read(bucket, key) for key, _ in bucket.list("inputs/")} == {
        b"of a model",
        b"of an active build",
        b"of a build that is repeated",
    }
    # An input that two models share goes with the last of them.
    registry.execute("UPDATE models SET state = 'marked', marked_at = now(), mark_reason = '{}'")
    assert sweep().inputs_freed == 0
    registry.execute("UPDATE models SET state = 'sweeping'")
    assert sweep().inputs_freed == 1
    assert bucket.head(keys.input_key(hashlib.sha256(b"of a model").hexdigest())) is None
    answer = api.get(f"/inputs/{hashlib.sha256(b'of a model').hexdigest()}").json()
    assert answer["collected_at"] is not None
    assert len(answer["items"]) == 1


def test_a_content_of_which_only_the_digest_is_known_is_never_collected(
    registry: Registry, sweep: Sweep
) -> None:
    build = registry.queue()
    registry.use(build, InputRecord(InputKind.TRANSFORMER, "minilm", "a" * 64))
    registry.fail(build)
    registry.execute("UPDATE inputs SET recorded_at = now() - interval '9 days'")
    assert sweep().inputs_freed == 0


def test_a_sweep_that_died_is_finished_by_the_next_one(
    registry: Registry,
    bucket: Bucket,
    keep: Keep,
    sweep: Sweep,
    cloud: SimCloud,
) -> None:
    registry.fail(keep())
    cloud.faults.add("s3", "DeleteObject", code="AccessDenied", status=403)
    with pytest.raises(CloudError):
        sweep()
    assert read(bucket, KEY) == CONTENT
    assert registry.value("SELECT sweeping_at IS NOT NULL AND collected_at IS NULL FROM inputs")
    cloud.faults.add("s3", "DeleteObject", lose="answer")
    with pytest.raises(CloudError):
        sweep()
    assert sweep().inputs_freed == 1
    assert bucket.head(KEY) is None
    assert sweep().inputs_freed == 0


def test_a_delete_that_comes_late_is_refused_by_s3(bucket: Bucket) -> None:
    overwrite(bucket, KEY, CONTENT)
    late = bucket.deleter.sign(ObjectVersion(KEY), timedelta(seconds=-5))
    with pytest.raises(CloudError, match="expired"):
        bucket.deleter.send(late)
    assert read(bucket, KEY) == CONTENT


def keep_again(flow: Flow, tmp_path: Path) -> None:
    local = tmp_path / "raw"
    local.write_bytes(CONTENT)
    keep_input(flow.view(), flow.work, USED, local, digest_of(local), content_type="application/zip")


def test_a_build_puts_a_swept_input_there_anew_once_no_delete_can_arrive_any_more(
    flow: Flow,
    tmp_path: Path,
    registry: Registry,
    bucket: Bucket,
    keep: Keep,
    sweep: Sweep,
    cloud: SimCloud,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    registry.fail(keep())
    # The sweep dies before it has deleted anything. Its object is there, and cannot be trusted.
    cloud.faults.add("s3", "DeleteObject", code="AccessDenied", status=403)
    with pytest.raises(CloudError):
        sweep()
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        # Meanwhile, another run finishes the sweep, and the time passes.
        if len(waits) == 1:
            assert sweep().inputs_freed == 1
            assert bucket.head(KEY) is None
        else:
            registry.execute("UPDATE inputs SET sweeping_at = sweeping_at - interval '3 minutes'")

    monkeypatch.setattr(flow.work, "sleep", sleep)
    keep_again(flow, tmp_path)
    assert [round(wait / 10) for wait in waits] == [18, 18]
    assert read(bucket, KEY) == CONTENT
    row = "SELECT stored_at IS NOT NULL AND sweeping_at IS NULL AND collected_at IS NULL FROM inputs"
    assert registry.value(row)
    assert sweep().inputs_freed == 0


@dataclass(frozen=True)
class Contest:
    """A build keeps an input at the moment at which it is swept."""

    registry: Registry
    bucket: Bucket
    keep: Keep
    sweep: Sweep
    new_flow: Callable[..., Flow]
    folder: Path

    def happen(self, number: int) -> None:
        """Whatever comes first: when the build has kept the input, it is there, and it stays there."""
        earlier = self.keep(build=self.registry.queue(f"1.0.{number}"))
        self.registry.fail(earlier)
        self._end_long_ago(earlier)
        flow = self.new_flow(f"0.1.{number}", hashlib.sha1(bytes([number])).hexdigest())
        with ThreadPoolExecutor(2) as threads:
            swept = threads.submit(self._sweep)
            kept = threads.submit(keep_again, flow, self.folder)
            swept.result()
            kept.result()
        assert read(self.bucket, KEY) == CONTENT
        assert self.sweep().inputs_freed == 0
        assert read(self.bucket, KEY) == CONTENT
        self._end_long_ago(flow.build_id)

    def _sweep(self) -> None:
        # On a machine that is slow at this moment, a delete may have expired when it is sent.
        with contextlib.suppress(CloudUnavailable):
            self.sweep()

    def _end_long_ago(self, build: UUID) -> None:
        self.registry.execute(
            "UPDATE builds SET state = 'cancelled', finished_at = now() - interval '1 day' WHERE id = :id",
            id=build,
        )


@pytest.fixture
def contest(
    registry: Registry,
    bucket: Bucket,
    keep: Keep,
    sweep: Sweep,
    new_flow: Callable[..., Flow],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Contest:
    """With short waits. S3 counts the seconds of a signature, so a delete is over after one of them."""
    monkeypatch.setattr(late_deletes, "EXPIRE_AFTER", timedelta(seconds=1))
    monkeypatch.setattr(late_deletes, "OVER_AFTER", timedelta(seconds=1.1))
    return Contest(registry, bucket, keep, sweep, new_flow, tmp_path)


def test_a_build_that_keeps_an_input_while_it_is_swept_does_not_lose_it(contest: Contest) -> None:
    for number in range(4):
        contest.happen(number)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_builds_that_keep_inputs_while_they_are_swept_never_lose_one(contest: Contest) -> None:
    for number in range(200):
        contest.happen(number)
