"""What the network is trained to make small."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final

import torch
from torch import Tensor

from training.config import SearchConfig

# A sum of chances that underflowed to 0 has no logarithm: a chance of 1e-8 is as wrong.
_LEAST: Final = 1e-8


@dataclass(frozen=True)
class _Level:
    """The classes that share their first digits.

    group_of (classes,) is the group of a class, members (groups, largest) the classes of a group, filled up
    with its last one, and is_member (groups, largest) 1.0, or 0.0 for what was filled up.
    """

    group_of: Tensor
    members: Tensor
    is_member: Tensor


class HierarchicalLoss:
    """Cross-entropy of the codes and, by `hierarchy_weight`, of their chapters and headings.

    A chapter's probability is the sum of its codes': a wrong code of the right heading costs less than one of
    another chapter. The vague class is a chapter and a heading of its own.
    """

    def __init__(self, classes: Sequence[str], config: SearchConfig, device: torch.device) -> None:
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
    """The losses and their gradient, both by hand, at once.

    With s = softmax(logits), y the right class and G its groups (chapter, heading), w their weight:
    loss = −log s_y − w Σ_G log Σ_{c∈G} s_c; by the logits: s (1 + w |G|) − 1_y − w Σ_G s 1_G / Σ_{c∈G} s_c.
    Label smoothing ε makes (1 − ε) 1_y + ε / classes of 1_y.

    Only the classes of the right groups are touched again. Automatic differentiation goes over all classes
    several times, which took two fifths of the whole training's time.
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
