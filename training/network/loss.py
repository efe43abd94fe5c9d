"""The loss that training minimises."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final, Protocol

import torch
from torch import Tensor

# A sum of probabilities that underflows to 0 has no logarithm. A probability of 1e-8 is just as wrong.
_LEAST: Final = 1e-8


class LossSettings(Protocol):
    """What the loss reads of a configuration: that of the network, or that of the tuning."""

    @property
    def label_smoothing(self) -> float: ...
    @property
    def hierarchy_weight(self) -> float: ...


@dataclass(frozen=True)
class _Level:
    """Groups of classes that share their first digits.

    group_of (classes,) gives the group of each class. members (groups, largest) lists the classes of each
    group, padded with its last class; is_member (groups, largest) is 1.0, and 0.0 for padding.
    """

    group_of: Tensor
    members: Tensor
    is_member: Tensor


class HierarchicalLoss:
    """Cross-entropy of the codes, plus that of their chapters and headings times `hierarchy_weight`.

    The probability of a chapter is the sum over its codes, so a wrong code in the right heading costs less
    than one in another chapter. The vague class counts as a chapter and a heading of its own.
    """

    def __init__(self, classes: Sequence[str], config: LossSettings, device: torch.device) -> None:
        """Classes are sorted."""
        self._label_smoothing = config.label_smoothing
        self._weight = config.hierarchy_weight
        self._levels = [_level(classes, digits, device) for digits in (2, 4)] if self._weight else []

    def __call__(self, logits: Tensor, class_of: Tensor) -> Tensor:
        """Logits (batch, classes) and class_of (batch,) → the loss of each row (batch,), float32."""
        losses: Tensor = _Losses.apply(  # type: ignore[no-untyped-call]
            logits, class_of, self._levels, self._weight, self._label_smoothing
        )
        return losses


class _Losses(torch.autograd.Function):
    """The losses and their gradient, computed together without automatic differentiation.

    Let s = softmax(logits), y the right class, G its groups (chapter, heading), and w their weight. Then
    loss = −log s_y − w Σ_G log Σ_{c∈G} s_c, and its gradient with respect to the logits is
    s (1 + w |G|) − 1_y − w Σ_G s 1_G / Σ_{c∈G} s_c.
    Label smoothing ε replaces 1_y by (1 − ε) 1_y + ε / classes.

    After the softmax, only the classes of the right groups are visited again. Automatic differentiation
    visits all classes several times, which took two fifths of the training's time.
    """

    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        class_of: Tensor,
        levels: list[_Level],
        hierarchy_weight: float,
        label_smoothing: float,
    ) -> Tensor:
        right = class_of.unsqueeze(1)
        log_chances = torch.log_softmax(logits, dim=1, dtype=torch.float32)
        losses = -log_chances.gather(1, right).squeeze(1)
        if label_smoothing:
            losses = (1 - label_smoothing) * losses - label_smoothing * log_chances.mean(dim=1)
        chances = log_chances.exp_()
        corrections = [(right, chances.new_full(right.shape, label_smoothing - 1))]
        for level in levels:
            group = level.group_of[class_of]
            members = level.members[group]
            of_group = chances.gather(1, members) * level.is_member[group]
            total = of_group.sum(dim=1, keepdim=True).clamp_min(_LEAST)
            losses = losses - hierarchy_weight * torch.log(total).squeeze(1)
            corrections.append((members, of_group * (-hierarchy_weight / total)))
        gradient = chances.mul_(1 + hierarchy_weight * len(levels))
        if label_smoothing:
            gradient.sub_(label_smoothing / gradient.shape[1])
        for classes, correction in corrections:
            gradient.scatter_add_(1, classes, correction)
        ctx.save_for_backward(gradient)
        ctx.dtype = logits.dtype
        return losses

    @staticmethod
    def backward(ctx: Any, *of_losses: Tensor) -> tuple[Tensor, None, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return (gradient * of_losses[0].unsqueeze(1)).to(ctx.dtype), None, None, None, None


def _level(classes: Sequence[str], digits: int, device: torch.device) -> _Level:
    groups = [
        [index for index, _ in members]
        for _, members in groupby(enumerate(classes), key=lambda one: one[1][:digits])
    ]
    largest = max(map(len, groups))
    group_of = torch.empty(len(classes), dtype=torch.int64)
    for group, members in enumerate(groups):
        group_of[members] = group
    filled = [members + [members[-1]] * (largest - len(members)) for members in groups]
    sizes = torch.tensor([len(members) for members in groups])
    is_member = (torch.arange(largest) < sizes.unsqueeze(1)).float()
    return _Level(group_of.to(device), torch.tensor(filled).to(device), is_member.to(device))
