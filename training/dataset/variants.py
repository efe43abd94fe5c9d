"""Shorter forms of a description: some of its words, in their order.

What traders declare is cut off, and full of brands and model names. A network that has seen a description
lose words depends less on any one of them. Only noisy descriptions gain by it: clean terms lose their meaning
with a word (docs/experiments.md has the figures).
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Indices = npt.NDArray[np.int64]

# Of so many tries some repeat each other, or are texts of their own.
_TRIES = 4
_SHORTEST = 3


@dataclass(frozen=True)
class Variants:
    """The variants of all texts, in one table.

    texts are sorted and distinct; of text i they are texts[j], j in members[first[i] : first[i] + count[i]].
    """

    texts: list[str]
    first: Indices
    count: Indices
    members: Indices


def make_variants(texts: Sequence[str], wanted: Sequence[int], seed: int) -> Variants:
    """Up to wanted[i] variants of texts[i]. None is one of the texts: those have their own codes.

    A text's variants depend on itself, the texts and the seed alone, not on its place.
    """
    known = set(texts)
    of_text = [
        [variant for variant in _shortened(text, count, seed) if variant not in known] if count else []
        for text, count in zip(texts, wanted, strict=True)
    ]
    table = sorted({variant for variants in of_text for variant in variants})
    index = {variant: position for position, variant in enumerate(table)}
    count = np.array([len(variants) for variants in of_text], dtype=np.int64)
    members = [index[variant] for variants in of_text for variant in variants]
    return Variants(table, np.cumsum(count) - count, count, np.array(members, dtype=np.int64))


def _shortened(text: str, count: int, seed: int) -> list[str]:
    """Half of them a run of words, half of them words left out anywhere; at least half of the words stay."""
    words = text.split()
    if len(words) < 2:
        return []
    # Seeded by a string, it is the same whatever the hash seed.
    rng = random.Random(f"{seed}:{text}")  # noqa: S311
    found: dict[str, None] = {}
    for _ in range(_TRIES * count):
        if len(found) == count:
            break
        kept = rng.randint(max(1, len(words) // 2), len(words) - 1)
        if rng.random() < 0.5:
            start = rng.randint(0, len(words) - kept)
            chosen = words[start : start + kept]
        else:
            chosen = [words[position] for position in sorted(rng.sample(range(len(words)), kept))]
        variant = " ".join(chosen)
        if len(variant) >= _SHORTEST:
            found[variant] = None
    return list(found)


class VariantDraw:
    """Says for each epoch which text stands for a pair's: its own, or one of its variants."""

    def __init__(self, variants: Variants, text_of: Indices, texts: int, share: float) -> None:
        """`text_of` (pairs,); in the table of embeddings the variants come after the `texts`."""
        self._text_of = torch.from_numpy(text_of)
        self._first = torch.from_numpy(variants.first[text_of])
        self._count = torch.from_numpy(variants.count[text_of])
        self._members = torch.from_numpy(texts + variants.members)
        self._share = share

    def __call__(self, generator: torch.Generator) -> Tensor:
        """(pairs,): indices of the table. A pair with variants gives way to one of them by `share`."""
        if not len(self._members):
            return self._text_of
        pairs = len(self._text_of)
        gives_way = (torch.rand(pairs, generator=generator) < self._share) & (self._count > 0)
        one = (torch.rand(pairs, generator=generator, dtype=torch.float64) * self._count).long()
        variant = self._members[(self._first + one).clamp_max(len(self._members) - 1)]
        return torch.where(gives_way, variant, self._text_of)
