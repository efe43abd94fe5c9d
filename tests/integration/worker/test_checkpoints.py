"""Builds whose instance ends: another one goes on with the training, from what the bucket has of it."""

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from typer.testing import CliRunner

from app.db.session import Database
from app.db.tables import Build
from app.registry.builds import listing, log, retries
from app.registry.builds.lease import release
from app.settings import Settings
from app.storage import keys
from app.storage.bucket import digest_of
from app.words import Actor, StepName
from local.simcloud import processes
from local.simcloud.server import SimCloud
from tests.e2e.service import small_benchmarks, small_raw_data
from tests.integration.objects import overwrite, read
from tests.integration.worker.conftest import Flow, sha256
from training.cli import app
from worker import unpublished
from worker.clouds import Clouds
from worker.errors import StepFailed
from worker.machine.folders import Machine
from worker.machine.job import Job
from worker.runner import Runner
from worker.steps import checkpoints
from worker.steps.checkpoints import CheckpointCopier
from worker.steps.connection import connect, workspace

# Two networks, because each of them is trained on one thread, wherever it is trained.
CONFIG = """\
name = "small"
version = "{version}"
cn_data_file = "reference_data/cn_self_text.csv"
device = "cpu"
hidden_size = 64
ensemble_size = 2
model_batch_size = 8
max_epochs = 40
checkpoint_minutes = 0.003
"""


@pytest.fixture
def settings(settings: Settings) -> Settings:
    changes = {"checkpoint_copy_every": timedelta(milliseconds=100), "lease": timedelta(seconds=10)}
    return settings.model_copy(update=changes)


def build_of(database: Database, build_id: UUID) -> Build:
    with database.transaction() as session:
        return listing.get(session, build_id)


def log_of(database: Database, build_id: UUID) -> str:
    with database.transaction() as session:
        return log.read(session, build_id, 0, 1 << 20)[0].decode()


def model_of_an_undisturbed_training(folder: Path) -> str:
    (folder / "raw_source_data.zip").write_bytes(small_raw_data())
    (folder / "search-config.toml").write_text(CONFIG.format(version="0.0.2"))
    options = {"config": "search-config.toml", "raw-source-data": "raw_source_data.zip", "output": "output"}
    arguments = [text for name, path in options.items() for text in (f"--{name}", str(folder / path))]
    done = CliRunner().invoke(app, ["train", *arguments])
    assert done.exit_code == 0, done.output
    return digest_of(folder / "output" / "model.zip").sha256


def pause_the_training(instance_id: str) -> None:
    for pid in processes.carrying(f"SIMCLOUD_INSTANCE_ID={instance_id}"):
        # Not what carries the connections.
        with suppress(OSError):
            if b"training.cli" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                os.kill(pid, signal.SIGSTOP)


def test_a_training_goes_on_from_its_checkpoint_on_the_next_instance_and_makes_the_same_model(
    post: Callable[..., UUID],
    new_runner: Callable[[], Runner],
    clients: Clouds,
    cloud: SimCloud,
    database: Database,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    overwrite(clients.bucket, keys.RAW_SOURCE_DATA, small_raw_data())
    overwrite(clients.bucket, keys.BENCHMARKING_DATA, small_benchmarks())
    build_id = post(config=CONFIG)
    # The model is looked at where the benchmark would begin.
    trained: list[str] = []

    def benchmark(_self: object, build: Any, _work: object) -> None:
        trained.append(build.outputs[StepName.TRAIN]["files"][keys.MODEL_ZIP]["sha256"])
        raise StepFailed("crashed", "for the test")

    monkeypatch.setattr("worker.steps.job.Benchmark.act", benchmark)
    carrying = threading.Thread(target=new_runner().carry, args=(build_id,))
    carrying.start()

    def wait(until: Callable[[], object]) -> None:
        while not until():
            assert carrying.is_alive(), log_of(database, build_id)
            time.sleep(0.005)

    wait(lambda: [path for one in cloud.instances() for path in one.home.glob("builds/*/checkpoints/*.pt")])
    [instance] = cloud.instances()
    # So it can neither come to its end nor delete the checkpoint before that is copied.
    pause_the_training(instance.id)
    wait(lambda: list(clients.bucket.list(keys.checkpoints_folder(build_id))))
    # What is in the bucket's root does not concern the build any more.
    overwrite(clients.bucket, keys.RAW_SOURCE_DATA, small_raw_data(60))
    cloud.kill_instance(instance.id)
    carrying.join()

    said = log_of(database, build_id)
    assert "instance_lost" in said
    assert "goes on from a checkpoint in epoch" in said, said
    assert trained == [model_of_an_undisturbed_training(tmp_path)]
    build = build_of(database, build_id)
    assert [launch.state for launch in build.launches] == ["terminated", "terminated"]
    assert cloud.instances() == []


def put_checkpoint(flow: Flow, name: str, content: bytes) -> str:
    overwrite(flow.clouds.bucket, keys.checkpoint_key(flow.build_id, name), content)
    return name


def test_only_the_newest_whole_checkpoint_of_each_part_is_put_onto_the_instance(
    flow: Flow, cloud: SimCloud
) -> None:
    flow.do_until(StepName.TRAIN)
    old, new, other = b"old", b"new", b"other"
    put_checkpoint(flow, f"network-1.00000001.{sha256(old)}.pt", old)
    wanted = put_checkpoint(flow, f"network-1.00000002.{sha256(new)}.pt", new)
    put_checkpoint(flow, f"network-2.00000007.{sha256(other)}.pt", b"damaged")
    put_checkpoint(flow, "notes.txt", b"not a checkpoint")
    view = flow.view()
    [instance] = cloud.instances()
    folder = instance.home / "builds" / str(flow.build_id) / "checkpoints"
    space = workspace(view, flow.work)
    checkpoints.restore(view, flow.work, space, Machine(str(instance.home)).build(flow.build_id))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {wanted: new}
    assert "is damaged in the bucket" in log_of(flow.database, flow.build_id)


def test_a_training_that_was_asked_to_end_is_continued_on_another_instance(
    flow: Flow, new_runner: Callable[[], Runner], cloud: SimCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    flow.do_until(StepName.TRAIN)
    [first] = cloud.instances()
    content = b"state"
    name = f"network-1.00000003.{sha256(content)}.pt"
    folder = first.home / "builds" / str(flow.build_id)
    # What a training leaves that SIGTERM has ended.
    result = {"outcome": "failed", "code": "interrupted", "message": "asked"}
    for path, left in {
        "checkpoints/" + name: content,
        "train/started": b"boot",
        "train/log": b"interrupted\n",
        "train/result.json": json.dumps(result).encode(),
        "train/exit": b"6\n",
    }.items():
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_bytes(left)
    there: list[list[str]] = []

    def start(job: Job, order: dict[str, Any], *_: str) -> None:
        if not job.was_started():
            there.append(job.remote.names(order["checkpoints"]))
            raise StepFailed("crashed", "for the test")

    monkeypatch.setattr(Job, "start", start)
    with flow.database.transaction() as session:
        release(session, flow.lease)
    new_runner().carry(flow.build_id)
    assert there == [[name]]
    assert read(flow.clouds.bucket, keys.checkpoint_key(flow.build_id, name)) == content
    build = build_of(flow.database, flow.build_id)
    assert (build.state, build.failure_code, len(build.launches)) == ("failed", "crashed", 2)
    assert cloud.instances() == []
    # Nothing but the instance was at fault, so a retry goes on from there too.
    with flow.database.transaction() as session:
        again, _ = retries.retry(session, flow.build_id, "an engineer", Actor.TOKEN)
        retried = again.id
    new_runner().carry(retried)
    assert there == [[name], [name]]
    # They go with the other files of a build that has ended.
    unpublished.sweep(flow.database, flow.clouds.bucket, timedelta(0), lambda: None)
    assert list(flow.clouds.bucket.list(keys.checkpoints_folder(flow.build_id))) == []


def test_an_older_checkpoint_is_deleted_only_after_the_newer_one_is_kept(flow: Flow, cloud: SimCloud) -> None:
    flow.do_until(StepName.TRAIN)
    [instance] = cloud.instances()
    folder = instance.home / "builds" / str(flow.build_id) / "checkpoints"
    folder.mkdir()
    old = put_checkpoint(flow, f"network-1.00000001.{sha256(b'old')}.pt", b"old")
    other = put_checkpoint(flow, f"network-2.00000001.{sha256(b'2')}.pt", b"2")

    def kept() -> set[str]:
        prefix = keys.checkpoints_folder(flow.build_id)
        return {key.removeprefix(prefix) for key, _ in flow.clouds.bucket.list(prefix)}

    view = flow.view()
    copier = CheckpointCopier(view, flow.work, Machine(str(instance.home)).build(flow.build_id))
    # One that does not have the digest in its name is not taken for a checkpoint.
    damaged = folder / f"network-1.00000002.{sha256(b'new')}.pt"
    damaged.write_bytes(b"damaged")
    with copier:
        copier.copy_last(connect(view, flow.work))
    assert kept() == {old, other}
    damaged.write_bytes(b"new")
    with CheckpointCopier(view, flow.work, Machine(str(instance.home)).build(flow.build_id)):
        while damaged.name not in kept() or old in kept():
            time.sleep(0.02)
    assert kept() == {damaged.name, other}
