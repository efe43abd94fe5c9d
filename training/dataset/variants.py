"""Variants: shorter forms of a description, made of some of its words in their order.

Descriptions by traders are often cut off, and full of brands and model names. A network that has seen
descriptions with words left out depends less on any single word. This helps only with noisy descriptions,
because clean terms lose their meaning when a word is left out (see the figures in docs/experiments.md).
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Indices = npt.NDArray[np.int64]

# Draws for each variant, because some draws repeat each other or are descriptions of their own.
_TRIES = 4
_SHORTEST = 3


@dataclass(frozen=True)
class Variants:
    """The variants of all texts, in one table.

    texts are sorted and distinct. The variants of text i are texts[j] for each j in
    members[first[i] : first[i] + count[i]].
    """

    texts: list[str]
    first: Indices
    count: Indices
    members: Indices


def make_variants(texts: Sequence[str], wanted: Sequence[int], seed: int) -> Variants:
    """Make up to wanted[i] variants of texts[i]. A variant that is itself one of the texts is left out.

    The variants of a text depend only on the text, the set of texts and the seed, not on the order of texts.
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
    """Keep a run of words, or words chosen anywhere, with equal chance; at least half of the words stay."""
    words = text.split()
    if len(words) < 2:
        return []
    # Seeded by a string, so that the draw does not depend on Python's hash seed.
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
    """Draws for each epoch which text stands for a pair: its own text, or one of its variants."""

    def __init__(self, variants: Variants, text_of: Indices, texts: int, share: float) -> None:
        """`text_of` (pairs,). In the table of embeddings, the variants follow the `texts` texts."""
        self._text_of = torch.from_numpy(text_of)
        self._first = torch.from_numpy(variants.first[text_of])
        self._count = torch.from_numpy(variants.count[text_of])
        self._members = torch.from_numpy(texts + variants.members)
        self._share = share

    def __call__(self, generator: torch.Generator) -> Tensor:
        """(pairs,): rows of the table. A pair with variants uses one of them with probability `share`."""
        if not len(self._members):
            return self._text_of
        pairs = len(self._text_of)
        gives_way = (torch.rand(pairs, generator=generator) < self._share) & (self._count > 0)
        one = (torch.rand(pairs, generator=generator, dtype=torch.float64) * self._count).long()
        variant = self._members[(self._first + one).clamp_max(len(self._members) - 1)]
        return torch.where(gives_way, variant, self._text_of)
