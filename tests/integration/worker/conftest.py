"""Steps of a build, one at a time, against the simulated AWS."""

import hashlib
import io
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from pydantic import SecretStr
from sqlalchemy import text

from app.db.session import Database
from app.registry import inputs
from app.registry.builds import requests, steps
from app.registry.builds.lease import Lease, take
from app.registry.builds.requests import BuildRequest
from app.registry.builds.steps import BuildView
from app.registry.runs import lifecycle
from app.settings import Settings
from app.storage import keys
from app.words import Actor, RunKind, StepName
from local import signing
from local.simcloud.server import SimCloud
from worker.clouds import Clouds
from worker.flows import FLOWS
from worker.heartbeat import Heartbeat
from worker.runner import Runner
from worker.runs.carrying import RunCarrier
from worker.steps.job import JobState
from worker.steps.reported import JobInput
from worker.steps.result import FileRef
from worker.steps.step import Step
from worker.workbench import Workbench

# So that their failed assertions say as much as those of tests.
pytest.register_assert_rewrite(
    *(f"tests.integration.worker.collection_{name}" for name in ("history", "machine", "tale"))
)

OUTPUT = {
    keys.MODEL_ZIP: b"weights",
    keys.BENCHMARK_XML: b"<testsuites/>",
    keys.BENCHMARK_ZIP: b"figures",
    keys.TRAINING_REPORT: b"<!doctype html>",
}
SNAPSHOT = b'{"data": []}'
FIGURES = {"known": {"count": 10, "top_1": 0.5}}

CONFIG = 'name = "small"\nversion = "{version}"\ndigits = 6\ncn_data_file = "cn.csv"\n'


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def a_zip() -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("cn.csv", "CNKEY,CN_CODE,NAME_EN\n")
    return packed.getvalue()


@dataclass
class Flow:
    """Carries one build step by step, as the runner does, and lets a test stop anywhere."""

    settings: Settings
    database: Database
    clouds: Clouds
    lease: Lease
    work: Workbench

    def view(self) -> BuildView:
        with self.database.transaction() as session:
            return steps.view(session, self.lease)

    def begin(self, name: StepName) -> Step[Any]:
        step = next(step for step in FLOWS[self.view().kind] if step.name == name)
        with self.database.transaction() as session:
            steps.start(session, self.lease, name)
        self.work.begin(name, step.deadline)
        return step

    def act(self, name: StepName) -> Any:
        """The step's side effects, without storing its output: a death right after them."""
        return self.begin(name).act(self.view(), self.work)

    def do(self, name: StepName) -> Any:
        step = self.begin(name)
        output = step.act(self.view(), self.work)
        with self.database.transaction() as session:
            step.apply(session, self.lease, output)
        return output

    def do_until(self, name: StepName) -> None:
        """Every step before the named one."""
        for step in FLOWS[self.view().kind]:
            if step.name == name:
                return
            if step.name not in self.view().done:
                self.do(step.name)

    @property
    def build_id(self) -> UUID:
        return self.lease.build_id


SIGNING_KEY = signing.new_key()


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """With a key, so that every model that a test publishes is signed."""
    return settings.model_copy(update={"signing_key": SecretStr(SIGNING_KEY)})


@pytest.fixture
def clients(settings: Settings) -> Clouds:
    return Clouds(settings)


@pytest.fixture
def filled_bucket(clients: Clouds, cloud: SimCloud, tmp_path: Any) -> Clouds:
    for key in ("raw_source_data.zip", "benchmarking_data.zip"):
        clients.bucket._client.put_object(Bucket=cloud.bucket, Key=key, Body=a_zip())
    return clients


@pytest.fixture
def post(database: Database, head: str) -> Callable[..., UUID]:
    # Forced, because the checkout has another search-config.toml than the small one here.
    def post(
        version: str = "0.0.2",
        sha: str = head,
        *,
        config: str = CONFIG,
        force: bool = True,
        job: bool = True,
    ) -> UUID:
        """Without a job, the queue has lost it."""
        with database.transaction() as session:
            search_config = config.replace("{version}", version)
            answer = requests.request(session, BuildRequest(sha, "main", search_config, force=force))
            assert answer.build is not None
            if not job:
                lost = text("DELETE FROM procrastinate_jobs WHERE args ->> 'build_id' = :id")
                session.execute(lost, {"id": str(answer.build.id)})
            return answer.build.id

    return post


@pytest.fixture
def carrier(settings: Settings, database: Database, clients: Clouds) -> RunCarrier:
    """Carries runs. Its lease outlasts whatever else the machine is busy with."""
    patient = settings.model_copy(update={"lease": timedelta(minutes=5)})
    return RunCarrier(Runner(patient, database, clients, "a worker", threading.Event()))


@pytest.fixture
def reconcile(database: Database, carrier: RunCarrier) -> Callable[..., dict[str, Any]]:
    def reconcile(**options: bool) -> dict[str, Any]:
        """What a reconciliation found."""
        with database.transaction() as session:
            run_id = lifecycle.request(session, RunKind.RECONCILIATION, options, "somebody", Actor.TOKEN).id
        carrier.carry(run_id)
        with database.transaction() as session:
            run = lifecycle.get(session, run_id)
            assert (run.state, run.last_error) == ("succeeded", None)
            assert run.result is not None
            return run.result

    return reconcile


@pytest.fixture
def new_runner(
    settings: Settings, database: Database, filled_bucket: Clouds
) -> Iterator[Callable[[], Runner]]:
    stops: list[threading.Event] = []

    def make() -> Runner:
        stops.append(threading.Event())
        return Runner(settings, database, filled_bucket, f"worker-{len(stops)}", stops[-1])

    yield make
    for stop in stops:
        stop.set()


@pytest.fixture
def flow_of(
    settings: Settings, database: Database, filled_bucket: Clouds
) -> Iterator[Callable[[UUID], Flow]]:
    """Takes a build."""
    with ExitStack() as closing:

        def make(build_id: UUID) -> Flow:
            with database.transaction() as session:
                lease = take(session, build_id, "the test", settings.lease)
            assert lease is not None
            heartbeat = closing.enter_context(Heartbeat(database, lease, settings.lease))
            work = Workbench(settings, database, filled_bucket, lease, heartbeat, threading.Event())
            closing.callback(work.close)
            return Flow(settings, database, filled_bucket, lease, work)

        yield make


@pytest.fixture
def new_flow(post: Callable[..., UUID], flow_of: Callable[[UUID], Flow]) -> Callable[..., Flow]:
    """Posts a build, with the arguments of `post`, and takes it."""

    def make(*arguments: Any, **named: Any) -> Flow:
        return flow_of(post(*arguments, **named))

    return make


@pytest.fixture
def flow(new_flow: Callable[..., Flow]) -> Flow:
    return new_flow()


@pytest.fixture
def trained(flow: Flow, cloud: SimCloud) -> Flow:
    """A build whose jobs have ended, with their files on the machine."""
    return end_jobs(flow, cloud)


def end_jobs(
    flow: Flow,
    cloud: SimCloud,
    made: Mapping[str, bytes] = OUTPUT,
    figures: Mapping[str, Any] = FIGURES,
    fetched: bytes = SNAPSHOT,
) -> Flow:
    """Put the files of both jobs on the machine, as if they had run.

    The training has fetched the additional source, unless it was given a snapshot, which it then uses.
    """
    flow.do_until(StepName.TRAIN)
    [instance] = cloud.instances()
    folder = instance.home / "builds" / str(flow.build_id)
    output, given = folder / "output", folder / "inputs" / "snapshots" / "references.json"
    for name, content in made.items():
        (output / name).write_bytes(content)
    if given.exists():
        fetched = given.read_bytes()
    else:
        (output / "snapshots").mkdir()
        (output / "snapshots" / "references.json").write_bytes(fetched)
    files = {name: FileRef(sha256=sha256(of), size_bytes=len(of)) for name, of in made.items()}
    snapshot = JobInput(
        kind="additional_source",
        name="search_references",
        sha256=sha256(fetched),
        url="https://example.org/references",
        file="snapshots/references.json",
    )
    train = JobState(files={keys.MODEL_ZIP: files.pop(keys.MODEL_ZIP)}, snapshots=[snapshot])
    benchmark = JobState(files=files, metrics=dict(figures))
    record = snapshot.as_record()
    assert record is not None
    for name, state in ((StepName.TRAIN, train), (StepName.BENCHMARK, benchmark)):
        with flow.database.transaction() as session:
            inputs.record(session, flow.lease, [record])
            steps.start(session, flow.lease, name)
            steps.finish(session, flow.lease, name, state.model_dump(mode="json"))
    return flow
