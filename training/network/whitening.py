"""What the network sees of an embedding while it is trained: whitened and scaled.

Both are linear, so both are folded into the first layer's weights afterwards: the packed network takes the
embeddings as they are.
"""

from dataclasses import dataclass
from typing import Final, Self

import torch
from torch import Tensor

from training.config import SearchConfig
from training.threads import one_thread

# Directions that hardly vary are noise: this share of the mean variance is added before dividing by it.
_SHRINKAGE: Final = 0.01
_ROWS_AT_ONCE: Final = 8192


@dataclass(frozen=True)
class InputMap:
    """x ↦ (x − mean) @ matrix; mean (dimension,), matrix (dimension, dimension), symmetric; float32."""

    mean: Tensor
    matrix: Tensor

    @classmethod
    def of(cls, embeddings: Tensor, config: SearchConfig, device: torch.device) -> Self:
        """From embeddings (texts, dimension), on the CPU.

        Inputs have a root mean square length of `embedding_scale`. With C the embeddings' covariance, the
        matrix is a multiple of C^(−p/2), p being `embedding_whitening`: ZCA whitening (Bell and Sejnowski,
        1997) at 1, and at 0 the scale alone.
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
        """Weights that were trained on inputs → weights that take embeddings."""
        with one_thread():
            first = weights["fc1.weight"].double() @ self.matrix.double().cpu()
            bias = weights["fc1.bias"].double() - first @ self.mean.double().cpu()
        return weights | {"fc1.weight": first.float(), "fc1.bias": bias.float()}


def _power_of(covariance: Tensor, exponent: float) -> Tensor:
    variances, directions = torch.linalg.eigh(covariance)
    # Rounding makes small negative numbers of variances that are 0.
    shrunk = variances.clamp_min(0) + _SHRINKAGE * variances.mean()
    power: Tensor = (directions * shrunk**exponent) @ directions.T
    return power


def _moments(embeddings: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (dimension,) and covariance (dimension, dimension), in float64, summed part by part."""
    dimension = embeddings.shape[1]
    total = torch.zeros(dimension, dtype=torch.float64)
    products = torch.zeros(dimension, dimension, dtype=torch.float64)
    for part in torch.split(embeddings, _ROWS_AT_ONCE):
        rows = part.double()
        total += rows.sum(dim=0)
        products += rows.T @ rows
    mean = total / len(embeddings)
    return mean, products / len(embeddings) - torch.outer(mean, mean)
