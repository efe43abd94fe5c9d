"""One step of the tuning: the gradients of a batch, and new weights for the transformer and the classes."""

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeVar

import torch
from torch import Tensor, nn

from training.checkpoints import State
from training.config import TuningConfig
from training.distributed import Group
from training.network.loss import HierarchicalLoss
from training.threads import one_thread
from training.tuning.layers import rates_of

Result = TypeVar("Result")

# A CPU computes each batch in so many parts, and so many shares of the weights are updated at a time, each on
# one thread. The number is fixed, so that the bytes of a model do not depend on the number of cores.
PARTS: Final = 2
_BETAS: Final = (0.9, 0.98)
# A gradient that is longer than this is shortened to it, so that no single batch moves the weights far.
_LONGEST_GRADIENT: Final = 1.0


@dataclass(frozen=True)
class Part:
    """Some pairs of a batch.

    ids and mask (pairs, length) int64, with 1 for real tokens in the mask; class_of (pairs,) int64; weight
    (pairs,) float32, divided by the number of pairs in the whole batch.
    """

    ids: Tensor
    mask: Tensor
    class_of: Tensor
    weight: Tensor


@dataclass(frozen=True)
class Learned:
    """The sums over pairs of weight times loss, and of the weights of the pairs that were right."""

    loss: Tensor
    correct: Tensor


class Learner:
    """The transformer with a vector for each class, and what is needed to improve both.

    The logit of a class is the cosine of its vector and the embedding, times `scale`.
    """

    def __init__(
        self,
        model: nn.Module,
        classes: nn.Parameter,
        loss_of: HierarchicalLoss,
        settings: TuningConfig,
        executor: Executor,
        group: Group,
        *,
        bfloat16: bool,
    ) -> None:
        """`classes` (classes, dimension)."""
        self.model = model
        self.classes = classes
        self._loss_of = loss_of
        self._scale = settings.scale
        self._executor = executor
        self._group = group
        self._bfloat16 = bfloat16
        self._parameters = list(self._learning())
        self._shares = _shares(self._parameters, PARTS if classes.device.type == "cpu" else 1)
        rates = {**rates_of(model, settings), classes: settings.head_learning_rate}
        self._optimisers = [
            torch.optim.AdamW(
                [
                    {
                        "params": [one],
                        "rate": rates[one],
                        # Biases and the scales of layers need not be small.
                        "weight_decay": settings.weight_decay if one.ndim > 1 else 0.0,
                    }
                    for one in (self._parameters[index] for index in share)
                ],
                betas=_BETAS,
                fused=True,
            )
            for share in self._shares
        ]

    def learn(self, parts: Sequence[Part], factor: float) -> Learned:
        """Improve the weights by one batch, at the learning rates times `factor`."""
        found = self._each(self._gradients, parts)
        gradients = [one for one, _ in found]
        self._each(partial(self._add_up, gradients), self._shares)
        if self._group.size > 1:
            self._add_up_processes()
        length = math.sqrt(sum(map(float, self._each(self._squared_length, self._shares))))
        shortened = min(1.0, _LONGEST_GRADIENT / max(length, _LONGEST_GRADIENT))
        self._each(partial(self._update, factor, shortened), self._optimisers)
        zero = self.classes.new_zeros((), dtype=torch.float64)
        return Learned(
            sum((one.loss for _, one in found), zero), sum((one.correct for _, one in found), zero)
        )

    def head(self) -> Tensor:
        """(classes, dimension): the weights that give the logits of embeddings of length 1."""
        with one_thread():
            return self._scale * nn.functional.normalize(self.classes.detach().cpu(), dim=1)

    def weights(self) -> State:
        """What has been learned."""
        return {"weights": [one.detach() for one in self._parameters]}

    def state(self) -> State:
        """What the next step depends on."""
        return {**self.weights(), "optimisers": [one.state_dict() for one in self._optimisers]}

    def go_on_from(self, state: State) -> None:
        with torch.no_grad():
            for parameter, value in zip(self._parameters, state["weights"], strict=True):
                parameter.copy_(value)
        for optimiser, content in zip(self._optimisers, state.get("optimisers", ()), strict=False):
            optimiser.load_state_dict(content)

    def _learning(self) -> Iterator[nn.Parameter]:
        """The parameters that learn: those that the embeddings depend on, if they are not frozen."""
        parameters = [*(one for one in self.model.parameters() if one.requires_grad), self.classes]
        text = torch.ones(1, 2, dtype=torch.int64, device=self.classes.device)
        total = self._logits(text, text).sum()
        gradients = torch.autograd.grad(total, parameters, allow_unused=True)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None:
                yield parameter

    def _logits(self, ids: Tensor, mask: Tensor) -> Tensor:
        """(pairs, classes)."""
        with torch.autocast(ids.device.type, torch.bfloat16, enabled=self._bfloat16):
            vectors = self.model({"input_ids": ids, "attention_mask": mask})["sentence_embedding"]
        embeddings = nn.functional.normalize(vectors.float(), dim=1)
        return self._scale * (embeddings @ nn.functional.normalize(self.classes, dim=1).T)

    def _gradients(self, part: Part) -> tuple[tuple[Tensor, ...], Learned]:
        logits = self._logits(part.ids, part.mask)
        loss = (self._loss_of(logits, part.class_of) * part.weight).sum()
        best = logits.detach().max(dim=1).indices
        correct = ((best == part.class_of) * part.weight).sum()
        return torch.autograd.grad(loss, self._parameters), Learned(loss.detach(), correct)

    def _each(self, work: Callable[[Any], Result], pieces: Sequence[Any]) -> list[Result]:
        """Do the work on each piece, on a CPU at the same time. The results are in order."""
        if self.classes.device.type == "cpu":
            return list(self._executor.map(work, pieces))
        return [work(piece) for piece in pieces]

    def _add_up(self, gradients: Sequence[Sequence[Tensor]], share: Sequence[int]) -> None:
        """Add up the gradients of the parts in their order, because sums of floats depend on it."""
        for index in share:
            parameter = self._parameters[index]
            total = gradients[0][index] if gradients else torch.zeros_like(parameter)
            for others in gradients[1:]:
                total = total.add_(others[index])
            parameter.grad = total

    def _add_up_processes(self) -> None:
        gradients = [one.grad for one in self._parameters if one.grad is not None]
        whole = self._group.add_up(torch.cat([one.flatten() for one in gradients]))
        parts = torch.split(whole, [one.numel() for one in gradients])
        for gradient, of_all in zip(gradients, parts, strict=True):
            gradient.copy_(of_all.view_as(gradient))

    def _squared_length(self, share: Sequence[int]) -> Tensor:
        """The squared length of the share's gradients."""
        found = (self._parameters[index].grad for index in share)
        lengths = [torch.linalg.vector_norm(one) for one in found if one is not None]
        return torch.stack(lengths).double().square().sum()

    @staticmethod
    def _update(factor: float, shortened: float, optimiser: torch.optim.Optimizer) -> None:
        for group in optimiser.param_groups:
            group["lr"] = group["rate"] * factor
            for parameter in group["params"]:
                parameter.grad.mul_(shortened)
        optimiser.step()


def _shares(parameters: Sequence[nn.Parameter], count: int) -> list[list[int]]:
    """Indices of the parameters in shares of about the same size."""
    shares: list[list[int]] = [[] for _ in range(count)]
    sizes = [0] * count
    for index in sorted(range(len(parameters)), key=lambda one: (-parameters[one].numel(), one)):
        smallest = sizes.index(min(sizes))
        shares[smallest].append(index)
        sizes[smallest] += parameters[index].numel()
    return shares
