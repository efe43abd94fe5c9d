"""Batches of pairs whose texts have about the same length, so that hardly any text is padded."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

# Pairs are sorted by length within this many batches, so that each epoch still has other batches.
_BATCHES_SORTED_TOGETHER = 8


def batches(lengths: Tensor, size: int, generator: torch.Generator) -> list[Tensor]:
    """Indices of the pairs, whose texts have `lengths` (pairs,), in batches (size,) in a random order."""
    order = torch.randperm(len(lengths), generator=generator)
    found: list[Tensor] = []
    for together in torch.split(order, size * _BATCHES_SORTED_TOGETHER):
        by_length = together[torch.argsort(lengths[together], stable=True)]
        found += torch.split(by_length, size)
    return [found[index] for index in torch.randperm(len(found), generator=generator).tolist()]


def padded(tokens: Sequence[npt.NDArray[np.int32]], padding: int) -> tuple[Tensor, Tensor]:
    """Tokens of each text → ids and mask (texts, longest) int64; the mask is 1 for real tokens."""
    longest = max(map(len, tokens))
    ids = np.full((len(tokens), longest), padding, dtype=np.int64)
    mask = np.zeros((len(tokens), longest), dtype=np.int64)
    for row, of_text in enumerate(tokens):
        ids[row, : len(of_text)] = of_text
        mask[row, : len(of_text)] = 1
    return torch.from_numpy(ids), torch.from_numpy(mask)
