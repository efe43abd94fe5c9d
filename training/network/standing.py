"""How far a training is: the epochs that are done, and the sums of the one that it is in."""

from dataclasses import dataclass

import torch
from torch import Tensor

from training.checkpoints import State
from training.distributed import Group


@dataclass(frozen=True)
class Epoch:
    """The mean loss, and the share of pairs that were right by their weights, while an epoch was trained."""

    loss: float
    accuracy: float


class Standing:
    """The epochs that are done, and of the current one its order, its batches so far and their sums.

    `order` draws the order of the pairs and their variants, once for each epoch. `loss` and `correct` are the
    sums over those pairs that this process has learned from.
    """

    def __init__(self, seed: int, device: torch.device) -> None:
        self._device = device
        self.order = torch.Generator().manual_seed(seed)
        self.epochs: list[Epoch] = []
        self.start_epoch()

    def start_epoch(self) -> None:
        # With the generator as it was, an epoch that was ended draws the same order again.
        self._order_before = self.order.get_state()
        self.batches = 0
        self.loss = torch.zeros((), dtype=torch.float64, device=self._device)
        self.correct = torch.zeros((), dtype=torch.float64, device=self._device)

    def end_epoch(self, weight: Tensor, group: Group) -> Epoch:
        """Add the epoch, whose sums are added up over the processes. weight (pairs,)."""
        loss, correct = group.total(self.loss), group.total(self.correct)
        self.epochs.append(Epoch(loss / len(weight), correct / float(weight.sum(dtype=torch.float64))))
        return self.epochs[-1]

    # Checkpoints

    def figures(self) -> State:
        """The figures of the epochs, which are also needed of a training that is done."""
        return {"epochs": [[epoch.loss, epoch.accuracy] for epoch in self.epochs]}

    def state(self) -> State:
        """Where the training is, without the sums, of which each process has its own."""
        return {**self.figures(), "order": self._order_before, "batches": self.batches}

    def sums(self) -> State:
        return {"loss": self.loss, "correct": self.correct}

    def go_on_from(self, state: State) -> bool:
        """Take over the state of a checkpoint. Returns whether that training was in an epoch."""
        self.epochs = [Epoch(loss, accuracy) for loss, accuracy in state["epochs"]]
        if "order" not in state:
            return False
        self.order.set_state(state["order"])
        self.start_epoch()
        self.batches = state["batches"]
        self.loss += state["loss"].to(self._device)
        self.correct += state["correct"].to(self._device)
        return True
