"""Compares two models on the same descriptions: the difference of their shares of right answers.

The interval is a bootstrap over descriptions. Each draw takes the same descriptions for both models, because
most descriptions are right with both or wrong with both, so the difference varies much less than each share.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

Answers = npt.NDArray[np.bool_]

_DRAWS: Final = 10_000
_ROWS_AT_ONCE: Final = 1_000
_TOGETHER: Final = "mean of the sets"


@dataclass(frozen=True)
class Difference:
    """How much larger the share of right answers is, and the bounds that hold 95% of the draws."""

    name: str
    share: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.name} {100 * self.share:+.1f} [{100 * self.low:+.1f}, {100 * self.high:+.1f}]"


def differences(model: Mapping[str, Answers], other: Mapping[str, Answers]) -> Iterator[Difference]:
    """`model` minus `other` on each set, and the mean of these differences over the sets.

    Both map the name of a set to whether each of its descriptions was answered rightly, in the same order.
    """
    generator = np.random.default_rng(0)
    shares, draws = [], []
    for name, right in model.items():
        by_row = right.astype(np.float64) - other[name]
        shares.append(float(by_row.mean()))
        draws.append(_means(by_row, generator))
        yield _difference(name, shares[-1], draws[-1])
    yield _difference(_TOGETHER, float(np.mean(shares)), np.mean(draws, axis=0))


def _means(by_row: npt.NDArray[np.float64], generator: np.random.Generator) -> npt.NDArray[np.float64]:
    """The means of as many draws of rows, with replacement."""
    return np.concatenate(
        [
            by_row[generator.integers(0, len(by_row), (_ROWS_AT_ONCE, len(by_row)))].mean(axis=1)
            for _ in range(_DRAWS // _ROWS_AT_ONCE)
        ]
    )


def _difference(name: str, share: float, draws: npt.NDArray[np.float64]) -> Difference:
    low, high = np.quantile(draws, (0.025, 0.975))
    return Difference(name, share, float(low), float(high))
