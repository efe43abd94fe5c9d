"""One network of the ensemble while it is trained, and its checkpoints."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from training.checkpoints import Part, State
from training.config import SearchConfig
from training.dataset.merge import Dataset
from training.dataset.variants import VariantDraw
from training.distributed import Embeddings, Group
from training.errors import FailureCode, TrainingError
from training.network.head import Network, choose_bfloat16
from training.network.loss import HierarchicalLoss
from training.network.standing import Epoch, Standing
from training.network.whitening import InputMap
from training.progress import Phase, Progress


@dataclass(frozen=True)
class Pairs:
    """The dataset on the device.

    table (texts and variants, dimension) holds the embeddings. A batch gathers its rows by index and maps
    them by inputs_of; draw decides which row stands for which pair. class_of and weight are (pairs,). The
    weights have mean 1, so that the learning rate has the same meaning whatever the weights of the sources.
    """

    table: Tensor
    inputs_of: InputMap
    draw: VariantDraw
    class_of: Tensor
    weight: Tensor

    @classmethod
    def of(cls, dataset: Dataset, embeddings: Embeddings, config: SearchConfig, device: torch.device) -> Self:
        table = torch.from_numpy(embeddings)
        return cls(
            table.to(device),
            InputMap.of(table, config, device),
            dataset.variant_draw(config.variant_share),
            torch.from_numpy(dataset.class_of).to(device),
            torch.from_numpy(dataset.relative_weight).to(device),
        )

    def __len__(self) -> int:
        return len(self.class_of)


class Member:
    """A network with its optimiser, and how far its training is."""

    def __init__(
        self,
        name: str,
        network: Network,
        pairs: Pairs,
        loss_of: HierarchicalLoss,
        config: SearchConfig,
        seed: int,
        group: Group,
    ) -> None:
        self.network = network
        self._name = name
        self._pairs = pairs
        self._loss_of = loss_of
        self._config = config
        self._group = group
        self._device = pairs.table.device
        self._bfloat16 = choose_bfloat16(config.precision, str(self._device))
        self._parallel = group.parallel(network)
        self._optimiser = torch.optim.AdamW(
            network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        self._batches_of_an_epoch = math.ceil(len(pairs) / config.model_batch_size)
        steps = config.max_epochs * self._batches_of_an_epoch
        self._schedule = torch.optim.lr_scheduler.LambdaLR(
            self._optimiser, warm_up_then_cosine(steps, config.warm_up_share)
        )
        self._standing = Standing(seed, self._device)

    def train(self, part: Part, phase: Phase, progress: Progress) -> list[Epoch]:
        """Train the network to its end, from its checkpoint if there is one."""
        with part:
            if (state := part.load()) is not None:
                self._go_on_from(state, phase, progress)
            epochs = self._standing.epochs
            if len(epochs) < self._config.max_epochs:
                while len(epochs) < self._config.max_epochs:
                    self._train_epoch(part, phase, progress)
                # For a run that is ended while other networks, or later parts, are not done yet.
                part.save(self._result())
        return epochs

    def _train_epoch(self, part: Part, phase: Phase, progress: Progress) -> None:
        standing = self._standing
        shuffled = torch.randperm(len(self._pairs), generator=standing.order).to(self._device)
        row_of = self._pairs.draw(standing.order).to(self._device)
        for batch in torch.split(shuffled, self._config.model_batch_size)[standing.batches :]:
            self._step(batch, row_of)
            standing.batches += 1
            phase.advance(len(batch))
            if part.due():
                part.save(self._state(), self._own_state())
        last = standing.end_epoch(self._pairs.weight, self._group)
        epoch, config = len(standing.epochs), self._config
        if not math.isfinite(last.loss):
            raise TrainingError(
                FailureCode.DIVERGED,
                f"the loss is {last.loss} in epoch {epoch}. Lower learning_rate ({config.learning_rate}) or "
                f"embedding_scale ({config.embedding_scale}).",
            )
        phase.advance(0, epoch=epoch, loss=last.loss, accuracy=last.accuracy)
        progress.say(
            f"epoch {epoch} of {config.max_epochs}: loss {last.loss:.4f}, accuracy {last.accuracy:.4f}"
        )
        standing.start_epoch()

    def _step(self, whole: Tensor, row_of: Tensor) -> None:
        """Learn from one batch (rows of the dataset). Of several processes, each takes its rows of it."""
        batch = self._group.part_of(whole)
        classes, weight = self._pairs.class_of[batch], self._pairs.weight[batch]
        # One batch at a time, because a second table would not fit into memory for millions of texts.
        inputs = self._pairs.inputs_of(self._pairs.table[row_of[batch]])
        logits = self._logits(inputs)
        # Gradients are averaged over the processes, so the mean is multiplied by their number.
        loss = (self._loss_of(logits, classes) * weight).sum() * (self._group.size / len(whole))
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimiser.step()
        self._schedule.step()
        self._standing.loss += loss.detach() * (len(whole) / self._group.size)
        # Not argmax, which takes four times as long on a CPU and would be a tenth of the training.
        best = logits.detach().max(dim=1).indices
        self._standing.correct += ((best == classes) * weight).sum()

    def _logits(self, inputs: Tensor) -> Tensor:
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._bfloat16):
            logits: Tensor = self._parallel(inputs)
        return logits

    # Checkpoints

    def _result(self) -> State:
        """What is needed of a network that has been trained."""
        return {"weights": self.network.state_dict(), **self._standing.figures()}

    def _state(self) -> State:
        """Everything that the next steps depend on, apart from what each process has of its own."""
        return {
            **self._result(),
            "optimiser": self._optimiser.state_dict(),
            "schedule": self._schedule.state_dict(),
            **self._standing.state(),
        }

    def _own_state(self) -> State:
        """The generator of the dropout, and the sums over the process's own rows in this epoch."""
        assert self.network.generator is not None  # noqa: S101 - set for every network that is trained
        return {"dropout": self.network.generator.get_state(), **self._standing.sums()}

    def _go_on_from(self, state: State, phase: Phase, progress: Progress) -> None:
        standing = self._standing
        is_in_epoch = standing.go_on_from(state)
        done = len(standing.epochs) * len(self._pairs)
        if is_in_epoch:
            self._restore(state)
            done += min(standing.batches * self._config.model_batch_size, len(self._pairs))
            progress.say(
                f"{self._name}: goes on from a checkpoint in epoch {len(standing.epochs) + 1} of "
                f"{self._config.max_epochs}, after {standing.batches} of {self._batches_of_an_epoch} batches"
            )
        else:
            progress.say(f"{self._name}: was trained before, and is taken from its checkpoint")
        self.network.load_state_dict(state["weights"])
        phase.resume(done)

    def _restore(self, state: State) -> None:
        if self._group.size > 1:
            # After its first step, torch arranges the gradients anew, and their sums over the processes
            # depend on the arrangement. So there is a first step here too, whose result is not used.
            sizes = self.network.sizes
            self._logits(torch.zeros(1, sizes.input_size, device=self._device)).sum().backward()  # type: ignore[no-untyped-call]
        self._optimiser.load_state_dict(state["optimiser"])
        self._schedule.load_state_dict(state["schedule"])
        assert self.network.generator is not None  # noqa: S101 - set for every network that is trained
        self.network.generator.set_state(state["dropout"])


def warm_up_then_cosine(steps: int, warm_up_share: float) -> Callable[[int], float]:
    """The factor of the learning rate by step: a linear rise over a share of the steps, then a cosine."""
    warm_up = math.ceil(steps * warm_up_share)

    def factor(step: int) -> float:
        if step < warm_up:
            return (step + 1) / warm_up
        through = (step - warm_up) / max(1, steps - warm_up)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, through)))

    return factor
