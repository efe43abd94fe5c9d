"""Whitens and scales the embeddings that the network is trained on.

Both are linear, so after training they are folded into the weights of the first layer. The packaged network
takes plain embeddings.
"""

from dataclasses import dataclass
from typing import Final, Self

import torch
from torch import Tensor

from training.config import SearchConfig
from training.threads import one_thread

# Directions with hardly any variance are noise, so this share of the mean variance is added to each of them.
_SHRINKAGE: Final = 0.01
_ROWS_AT_ONCE: Final = 8192


@dataclass(frozen=True)
class InputMap:
    """The map x ↦ (x − mean) @ matrix, with mean (dimension,) and a symmetric matrix, in float32."""

    mean: Tensor
    matrix: Tensor

    @classmethod
    def of(cls, embeddings: Tensor, config: SearchConfig, device: torch.device) -> Self:
        """Compute the map from the embeddings (texts, dimension), on the CPU.

        The mapped embeddings have a root mean square length of `embedding_scale`. The matrix is a multiple of
        C^(−p/2), where C is the covariance of the embeddings and p is `embedding_whitening`. With p = 1 this
        is ZCA whitening (Bell and Sejnowski, 1997); with p = 0 it only scales.
        """
        dimension = embeddings.shape[1]
        mean = torch.zeros(dimension)
        matrix = torch.eye(dimension) * config.embedding_scale
        if config.embedding_whitening:
            with one_thread():
                center, covariance = _moments(embeddings)
                if torch.trace(covariance) > 0:
                    mean = center
                    matrix = _power_of(covariance, -config.embedding_whitening / 2)
                    matrix *= config.embedding_scale / torch.sqrt(torch.trace(matrix @ covariance @ matrix))
        return cls(mean.float().to(device), matrix.float().to(device))

    def __call__(self, embeddings: Tensor) -> Tensor:
        """(batch, dimension) → (batch, dimension)."""
        return (embeddings - self.mean) @ self.matrix

    def fold(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Turn weights that were trained on mapped embeddings into weights for plain embeddings."""
        with one_thread():
            first = weights["fc1.weight"].double() @ self.matrix.double().cpu()
            bias = weights["fc1.bias"].double() - first @ self.mean.double().cpu()
        return weights | {"fc1.weight": first.float(), "fc1.bias": bias.float()}


def _power_of(covariance: Tensor, exponent: float) -> Tensor:
    variances, directions = torch.linalg.eigh(covariance)
    # Rounding can make a variance of 0 slightly negative.
    shrunk = variances.clamp_min(0) + _SHRINKAGE * variances.mean()
    power: Tensor = (directions * shrunk**exponent) @ directions.T
    return power


def _moments(embeddings: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (dimension,) and covariance (dimension, dimension) in float64, summed in parts."""
    dimension = embeddings.shape[1]
    total = torch.zeros(dimension, dtype=torch.float64)
    products = torch.zeros(dimension, dimension, dtype=torch.float64)
    for part in torch.split(embeddings, _ROWS_AT_ONCE):
        rows = part.double()
        total += rows.sum(dim=0)
        products += rows.T @ rows
    mean = total / len(embeddings)
    return mean, products / len(embeddings) - torch.outer(mean, mean)
