"""The course of the tuning: epochs over the pairs, and checkpoints, from which it goes on."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from training.checkpoints import Part as CheckpointsOfPart
from training.checkpoints import State
from training.config import TuningConfig
from training.dataset.variants import VariantDraw
from training.distributed import Group
from training.errors import FailureCode, TrainingError
from training.network.member import warm_up_then_cosine
from training.network.standing import Epoch, Standing
from training.progress import Phase, Progress
from training.tuning.batches import batches, padded
from training.tuning.learner import PARTS, Learner, Part


@dataclass(frozen=True)
class Texts:
    """What is learned.

    tokens (texts and variants) and their lengths; draw decides which text stands for which pair. class_of and
    weight are (pairs,), and the weights have mean 1, as in the training of the network.
    """

    tokens: list[npt.NDArray[np.int32]]
    lengths: Tensor
    padding: int
    draw: VariantDraw
    class_of: Tensor
    weight: Tensor
    device: torch.device

    def __len__(self) -> int:
        return len(self.class_of)

    def part(self, pairs: Tensor, row_of: Tensor, of_batch: int) -> Part:
        """The pairs as a part of a batch of `of_batch` pairs. row_of (all pairs,) has the texts of pairs."""
        tokens = [self.tokens[row] for row in row_of[pairs].tolist()]
        ids, mask = padded(tokens, self.padding)
        weight = self.weight[pairs] / of_batch
        return Part(*(one.to(self.device) for one in (ids, mask, self.class_of[pairs], weight)))


class Course:
    """The epochs of the tuning, how far they are, and their checkpoints."""

    def __init__(
        self, learner: Learner, texts: Texts, seed: int, settings: TuningConfig, group: Group
    ) -> None:
        self._learner = learner
        self._texts = texts
        self._settings = settings
        self._group = group
        self._batches_of_an_epoch = math.ceil(len(texts) / settings.batch_size)
        steps = settings.epochs * self._batches_of_an_epoch
        self._factor = warm_up_then_cosine(steps, settings.warm_up_share)
        self._standing = Standing(seed, texts.device)
        # How many pairs of the epoch were learned from. The last batch may be in the middle, and is smaller.
        self._done = 0

    def run(self, part: CheckpointsOfPart, phase: Phase, progress: Progress) -> tuple[Epoch, ...]:
        """Learn to the end, from the checkpoint if there is one."""
        with part:
            if (state := part.load()) is not None:
                self._go_on_from(state, phase, progress)
            epochs = self._standing.epochs
            if len(epochs) < self._settings.epochs:
                while len(epochs) < self._settings.epochs:
                    self._run_epoch(part, phase, progress)
                # For a run that is ended while a later part is not done yet.
                part.save(self._result())
        return tuple(epochs)

    def _run_epoch(self, part: CheckpointsOfPart, phase: Phase, progress: Progress) -> None:
        standing = self._standing
        row_of = self._texts.draw(standing.order)
        drawn = batches(self._texts.lengths[row_of], self._settings.batch_size, standing.order)
        for batch in drawn[standing.batches :]:
            self._step(batch, row_of)
            standing.batches += 1
            self._done += len(batch)
            phase.advance(len(batch))
            if part.due():
                part.save(self._state(), standing.sums())
        self._report(standing.end_epoch(self._texts.weight, self._group), phase, progress)
        standing.start_epoch()
        self._done = 0

    def _step(self, whole: Tensor, row_of: Tensor) -> None:
        """Learn from one batch of pairs. Of several processes, each takes its part of it."""
        batch = self._group.part_of(whole)
        count = min(PARTS, len(batch)) if self._texts.device.type == "cpu" else min(1, len(batch))
        parts = [self._texts.part(batch[first::count], row_of, len(whole)) for first in range(count)]
        standing = self._standing
        steps = len(standing.epochs) * self._batches_of_an_epoch + standing.batches
        learned = self._learner.learn(parts, self._factor(steps))
        standing.loss += learned.loss * len(whole)
        standing.correct += learned.correct * len(whole)

    def _report(self, last: Epoch, phase: Phase, progress: Progress) -> None:
        settings, epoch = self._settings, len(self._standing.epochs)
        if not math.isfinite(last.loss):
            raise TrainingError(
                FailureCode.DIVERGED,
                f"the loss is {last.loss} in epoch {epoch} of the tuning. Lower tuning.learning_rate "
                f"({settings.learning_rate}) or tuning.scale ({settings.scale}).",
            )
        phase.advance(0, epoch=epoch, loss=last.loss, accuracy=last.accuracy)
        progress.say(
            f"tuning, epoch {epoch} of {settings.epochs}: loss {last.loss:.4f}, accuracy {last.accuracy:.4f}"
        )

    # Checkpoints

    def _result(self) -> State:
        return {**self._learner.weights(), **self._standing.figures()}

    def _state(self) -> State:
        return {
            **self._learner.state(),
            **self._standing.state(),
            "done": self._done,
        }

    def _go_on_from(self, state: State, phase: Phase, progress: Progress) -> None:
        standing = self._standing
        is_in_epoch = standing.go_on_from(state)
        self._learner.go_on_from(state)
        if is_in_epoch:
            self._done = state["done"]
            progress.say(
                f"the tuning goes on from a checkpoint in epoch {len(standing.epochs) + 1} of "
                f"{self._settings.epochs}, after {standing.batches} of {self._batches_of_an_epoch} batches"
            )
        else:
            progress.say("the transformer was tuned before, and is taken from its checkpoint")
        phase.resume(len(standing.epochs) * len(self._texts) + self._done)
