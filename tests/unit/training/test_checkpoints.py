"""Trainings that are ended at some step, and go on from a checkpoint."""

import io
import os
import signal
from pathlib import Path

import pytest
import torch

from tests.unit.training.test_train import clusters, config
from training import interruption
from training.checkpoints import Checkpoints, identity_of_run
from training.config import SearchConfig
from training.distributed import ALONE
from training.errors import FailureCode, TrainingError
from training.interruption import Interrupted
from training.network.train import Trained, train_network
from training.progress import Phase, Progress


class Killed(Exception):
    """The process of the training is gone."""


class Mortal(Progress):
    """Kills the training before the given step is counted."""

    def __init__(self, dies_at: int | None = None) -> None:
        self.said = io.StringIO()
        super().__init__(log=self.said)
        self._left = dies_at

    def report(self, phase: Phase, task: object, *, last: bool = False) -> None:
        if self._left is not None and not last:
            self._left -= 1
            if self._left == 0:
                raise Killed


def trained(
    folder: Path | None, settings: SearchConfig, progress: Progress | None = None, interval_s: float = 0
) -> Trained:
    progress = progress or Mortal()
    data, embeddings = clusters()
    run = identity_of_run(settings.model_dump(), "cpu", ALONE)
    checkpoints = Checkpoints(folder, interval_s, run, progress.say)
    return train_network(data, embeddings, settings, "cpu", progress, ALONE, checkpoints)


def same(one: Trained, other: Trained) -> bool:
    return one.epochs == other.epochs and all(
        torch.equal(one.weights[name], other.weights[name]) for name in one.weights
    )


# Six batches and one line are counted in each epoch of each network.
@pytest.mark.parametrize(("members", "steps"), [(1, (1, 2, 6, 7, 8, 15, 20)), (2, (11, 21, 23, 40))])
def test_a_training_that_is_killed_at_some_step_goes_on_to_the_same_model(
    tmp_path: Path, members: int, steps: tuple[int, ...]
) -> None:
    settings = config(max_epochs=3, ensemble_size=members)
    undisturbed = trained(None, settings)
    for step in steps:
        folder = tmp_path / str(step)
        folder.mkdir()
        with pytest.raises(Killed):
            trained(folder, settings, Mortal(step))
        # Another kill, so that a state that was loaded is saved again.
        again = Mortal(4)
        try:
            trained(folder, settings, again)
        except Killed:
            again = Mortal()
            assert same(trained(folder, settings, again), undisturbed), step
        assert step == 1 or "goes on from a checkpoint" in again.said.getvalue()


def test_a_damaged_a_cut_off_and_a_foreign_checkpoint_are_ignored(tmp_path: Path) -> None:
    settings = config(max_epochs=3)
    undisturbed = trained(None, settings)

    def left() -> Path:
        """The checkpoint of a training that was killed in its second epoch."""
        with pytest.raises(Killed):
            trained(tmp_path, settings, Mortal(10))
        (path,) = tmp_path.iterdir()
        return path

    path = left()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    for damaged in (bytes(content), path.read_bytes()[:-100], b""):
        path.write_bytes(damaged)
        progress = Mortal()
        assert same(trained(tmp_path, settings, progress), undisturbed)
        assert f"checkpoint {path.name} is ignored, because it is damaged" in progress.said.getvalue()
        for file in tmp_path.iterdir():
            file.unlink()
        path = left()
    progress = Mortal()
    other = settings.model_copy(update={"learning_rate": 0.02})
    assert same(trained(tmp_path, other, progress), trained(None, other))
    assert "it belongs to a run with other inputs, code or hardware" in progress.said.getvalue()


def test_a_checkpoint_that_cannot_be_written_costs_only_a_line_in_the_log(tmp_path: Path) -> None:
    settings = config(max_epochs=2)
    progress = Mortal()
    # A folder that does not exist fails like a full disk.
    assert same(trained(tmp_path / "gone", settings, progress), trained(None, settings))
    assert "the checkpoint of network-1 cannot be written" in progress.said.getvalue()


def test_the_interval_decides_how_often_a_checkpoint_is_written(tmp_path: Path) -> None:
    trained(tmp_path, config(max_epochs=2), interval_s=3600)
    # Only the one at the end.
    assert [path.name.split(".")[:2] for path in tmp_path.iterdir()] == [["network-1", "00000001"]]


def test_on_sigterm_every_network_keeps_its_state_and_ends(tmp_path: Path) -> None:
    class Ends(Mortal):
        """Sends SIGTERM when a step is counted, as a machine does that is shut down, and once more."""

        def report(self, phase: Phase, task: object, *, last: bool = False) -> None:
            if phase.done and not last:
                os.kill(os.getpid(), signal.SIGTERM)
                os.kill(os.getpid(), signal.SIGTERM)

    settings = config(max_epochs=3, ensemble_size=2)
    with interruption.noticed(), pytest.raises(Interrupted), interruption.interruptible():
        trained(tmp_path, settings, Ends(), interval_s=3600)
    assert {path.name.split(".")[0] for path in tmp_path.iterdir()} == {"network-1"}
    with interruption.noticed():
        progress = Mortal()
        assert same(trained(tmp_path, settings, progress), trained(None, settings))
    assert "network 1 of 2: goes on from a checkpoint in epoch 1 of 3" in progress.said.getvalue()


def test_a_folder_is_used_by_one_run_at_a_time_and_is_emptied_of_checkpoints_only(tmp_path: Path) -> None:
    one, other = (Checkpoints(tmp_path, 0, "", print) for _ in range(2))
    (tmp_path / "notes.txt").write_text("mine")
    with one.opened():
        with pytest.raises(TrainingError) as caught, other.opened():
            pass
        assert caught.value.reason is FailureCode.INVALID_JOB
        with one.part("a") as part:
            part.save({"step": 1})
        assert len(list(tmp_path.iterdir())) == 2
        one.clear()
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
