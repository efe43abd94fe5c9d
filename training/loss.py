"""What the network is trained to make small."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from training.config import SearchConfig


class HierarchicalLoss:
    """Cross-entropy of the codes and, by `hierarchy_weight`, of their chapters and headings.

    A chapter's probability is the sum of its codes': a wrong code of the right heading costs less than one of
    another chapter. The vague class is a chapter and a heading of its own.
    """

    def __init__(self, classes: Sequence[str], config: SearchConfig, device: torch.device) -> None:
        self._label_smoothing = config.label_smoothing
        self._weight = config.hierarchy_weight
        self._levels: list[tuple[Tensor, int]] = []
        for digits in (2, 4) if self._weight else ():
            above = sorted({code[:digits] for code in classes})
            index = {code: position for position, code in enumerate(above)}
            group_of = torch.tensor([index[code[:digits]] for code in classes], device=device)
            self._levels.append((group_of, len(above)))

    def __call__(self, logits: Tensor, class_of: Tensor) -> Tensor:
        """Logits (batch, classes) float32 and class_of (batch,) → the loss of each row (batch,)."""
        loss = nn.functional.cross_entropy(
            logits, class_of, reduction="none", label_smoothing=self._label_smoothing
        )
        if not self._levels:
            return loss
        chances = torch.softmax(logits, dim=1)
        for group_of, groups in self._levels:
            sums = chances.new_zeros(len(chances), groups).index_add(1, group_of, chances)
            right = sums.gather(1, group_of[class_of].unsqueeze(1)).squeeze(1)
            # A sum that underflowed to 0 has no logarithm: a chance of 1e-8 is as wrong.
            loss = loss - self._weight * torch.log(right.clamp_min(1e-8))
        return loss
