"""What the training texts that are most similar to a text say about its class."""

from dataclasses import dataclass, replace
from typing import Final, Self

import numpy as np
import torch
from torch import Tensor

from training.dataset.merge import Dataset
from training.distributed import Embeddings

# The names of the tensors in `model.pt`.
_NAMES: Final = ("vectors", "text_of", "class_of", "weight")


@dataclass(frozen=True)
class Neighbours:
    """The logit of a class is `weight` times the largest cosine of a text and any training text of the class.

    vectors (texts, dimension) have length 1. text_of and class_of (pairs,) int64 say which texts belong to
    which class. Of embeddings side by side, the last ones are compared.
    """

    vectors: Tensor
    text_of: Tensor
    class_of: Tensor
    weight: float

    @classmethod
    def of(cls, dataset: Dataset, embeddings: Embeddings, limit: int, weight: float) -> Self:
        """At most `limit` pairs, as many for each class as possible, the heaviest first.

        embeddings (at least the texts, dimension) begin with those of `dataset.texts`.
        """
        pairs = _chosen(dataset, limit)
        texts, text_of = np.unique(dataset.text_of[pairs], return_inverse=True)
        return cls(
            torch.from_numpy(embeddings[texts]),
            torch.from_numpy(text_of).long(),
            torch.from_numpy(dataset.class_of[pairs]).long(),
            weight,
        )

    def logits(self, embeddings: Tensor, classes: int) -> Tensor:
        """(rows, at least the dimension) → (rows, classes). A class without a text has the cosine −1."""
        cosines = embeddings[:, -self.vectors.shape[1] :] @ self.vectors.T
        of_pairs = cosines[:, self.text_of]
        nearest = torch.full((len(embeddings), classes), -1.0)
        nearest = nearest.scatter_reduce(1, self.class_of.expand_as(of_pairs), of_pairs, "amax")
        return self.weight * nearest

    def tensors(self, precision: torch.dtype) -> dict[str, Tensor]:
        stored = (
            self.vectors.to(precision),
            self.text_of.int(),
            self.class_of.int(),
            torch.tensor(self.weight),
        )
        return dict(zip(_NAMES, stored, strict=True))

    @classmethod
    def from_tensors(cls, stored: dict[str, Tensor]) -> Self:
        vectors, text_of, class_of, weight = (stored[name] for name in _NAMES)
        return cls(vectors.float(), text_of.long(), class_of.long(), weight.item())

    def at_temperature(self, temperature: float) -> Self:
        return replace(self, weight=self.weight / temperature)


def _chosen(dataset: Dataset, limit: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Indices of the pairs, in order: the heaviest of each class, then the second of each, and so on."""
    by_class = np.lexsort((-dataset.weight, dataset.class_of))
    classes = dataset.class_of[by_class]
    place = np.arange(len(classes)) - np.searchsorted(classes, classes)
    return np.sort(by_class[np.argsort(place, kind="stable")[:limit]])
