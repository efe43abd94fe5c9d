"""What the training report shows of a benchmark, as numbers and examples."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

from training.evaluation.classify import Result
from training.evaluation.measure import Measured
from training.storable import one_line

# With fewer descriptions, the accuracy of a chapter says little.
FEW: Final = 10
BINS: Final = 10
# So that a benchmark with very many descriptions does not make the page huge.
MOST_CELLS: Final = 2000
MOST_PAIRS: Final = 15
MOST_EXAMPLES: Final = 3
MOST_LISTED: Final = 20
LONGEST_SHOWN: Final = 120

_LEVEL: Final = 0.95


def counted(count: int, what: str) -> str:
    """`1 answer`, `2 answers`."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


@dataclass(frozen=True)
class Chapter:
    """The accuracy of a chapter (two digits); shares in [0, 1] of `count`."""

    chapter: str
    count: int
    top_1: float
    top_5: float

    @property
    def is_uncertain(self) -> bool:
        return self.count < FEW

    @property
    def interval(self) -> tuple[float, float]:
        """Where `top_1` would probably lie with many more descriptions: Wilson's score interval for 95%.

        E. B. Wilson, Probable inference, the law of succession, and statistical inference, 1927.
        """
        z = NormalDist().inv_cdf((1 + _LEVEL) / 2)
        share, count = self.top_1, self.count
        middle = (share + z * z / (2 * count)) / (1 + z * z / count)
        half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
        return max(0.0, middle - half), min(1.0, middle + half)


@dataclass(frozen=True)
class Bin:
    """First results with scores in (low, high]: how many, their mean score, and the share that is right."""

    low: float
    high: float
    count: int
    score: float
    right: float

    @property
    def range(self) -> str:
        return f"above {self.low:.0%} to {self.high:.0%}"


@dataclass(frozen=True)
class Calibration:
    """`error` is the expected calibration error, in [0, 1]."""

    bins: tuple[Bin, ...]
    error: float


@dataclass(frozen=True)
class Example:
    """A description, its code (empty if it has none), and the first result (empty if there is none)."""

    description: str
    code: str
    answer: str = ""
    score: float = 0.0


@dataclass(frozen=True)
class Cell:
    """How many descriptions of the chapter `right` were answered with the chapter `answered`.

    `answered` is empty for descriptions without an answer. `share` is the share of the chapter `right`.
    """

    right: str
    answered: str
    count: int
    share: float


@dataclass(frozen=True)
class Pair:
    """Two chapters that the model confuses, with those examples of which it was most certain."""

    cell: Cell
    examples: tuple[Example, ...]


@dataclass(frozen=True)
class Confusion:
    """The most frequent cells, sorted by chapters, and the most frequent of the pairs that are confused.

    `rarer` counts the cells that are not among them, and `confused` all pairs of different chapters.
    """

    cells: tuple[Cell, ...]
    rarer: int
    pairs: tuple[Pair, ...]
    confused: int


@dataclass(frozen=True)
class Coded:
    """What is shown of a benchmark whose descriptions have codes. Without answers there is no calibration."""

    chapters: tuple[Chapter, ...]
    calibration: Calibration | None
    confusion: Confusion


@dataclass(frozen=True)
class Answers:
    """Descriptions that were refused and not refused, and some of those that are mistakes.

    For descriptions that should get no answer, these are the answered ones; for others, the refused ones.
    """

    refused: int
    answered: int
    mistakes: tuple[Example, ...]
    scores: tuple[Bin, ...]


def coded(measured: Measured, codes: Sequence[str]) -> Coded:
    """The numbers of a benchmark whose descriptions have codes."""
    chapters = [
        Chapter(name, int(figures["count"]), figures["top_1"], figures["top_5"])
        for name, figures in measured.chapters.items()
    ]
    # The worst first, and those that say little at the end.
    chapters.sort(key=lambda one: (one.is_uncertain, one.top_1, one.top_5, one.chapter))
    return Coded(
        tuple(chapters),
        calibration(codes, measured.results),
        confusion(measured.benchmark.descriptions, codes, measured.results),
    )


def calibration(codes: Sequence[str], results: Sequence[Sequence[Result]]) -> Calibration | None:
    """How well scores of first results agree with the shares that are right. None if nothing was answered.

    The expected calibration error is the mean difference between the two over the bins, weighted by their
    counts: C. Guo et al., On Calibration of Modern Neural Networks, ICML 2017, equation 3.
    """
    answers = [
        (found[0].score, found[0].code == code) for code, found in zip(codes, results, strict=True) if found
    ]
    if not answers:
        return None
    bins = _bins(answers)
    error = sum(one.count * abs(one.right - one.score) for one in bins) / len(answers)
    return Calibration(bins, error)


def _bins(answers: Sequence[tuple[float, bool]]) -> tuple[Bin, ...]:
    """Bins of equal width for pairs of a score in (0, 1] and whether it belongs to a right answer."""
    by_bin: list[list[tuple[float, bool]]] = [[] for _ in range(BINS)]
    for score, right in answers:
        by_bin[min(BINS - 1, max(0, math.ceil(score * BINS) - 1))].append((score, right))
    return tuple(
        Bin(
            number / BINS,
            (number + 1) / BINS,
            len(inside),
            math.fsum(score for score, _ in inside) / max(1, len(inside)),
            sum(right for _, right in inside) / max(1, len(inside)),
        )
        for number, inside in enumerate(by_bin)
    )


def confusion(
    descriptions: Sequence[str], codes: Sequence[str], results: Sequence[Sequence[Result]]
) -> Confusion:
    """Which chapters first results are in, for each chapter of the right codes."""
    of_chapter = Counter(code[:2] for code in codes)
    found: dict[tuple[str, str], list[Example]] = {}
    for description, code, answer in zip(descriptions, codes, results, strict=True):
        example = _example(description, code, answer)
        found.setdefault((code[:2], example.answer[:2]), []).append(example)
    cells = {
        chapters: Cell(*chapters, len(examples), len(examples) / of_chapter[chapters[0]])
        for chapters, examples in sorted(found.items())
    }
    confused = [chapters for chapters in cells if chapters[1] and chapters[0] != chapters[1]]
    confused.sort(key=lambda chapters: (-cells[chapters].count, *chapters))
    pairs = tuple(
        Pair(cells[chapters], tuple(_most_certain(found[chapters], MOST_EXAMPLES)))
        for chapters in confused[:MOST_PAIRS]
    )
    frequent = sorted(cells, key=lambda chapters: (-cells[chapters].count, *chapters))[:MOST_CELLS]
    shown = tuple(cells[chapters] for chapters in sorted(frequent))
    return Confusion(shown, len(cells) - len(shown), pairs, len(confused))


def answers(measured: Measured) -> Answers:
    """How many descriptions of a benchmark were refused, and examples of those where that was wrong."""
    benchmark = measured.benchmark
    codes = benchmark.codes or [""] * len(benchmark.descriptions)
    examples = [_example(*row) for row in zip(benchmark.descriptions, codes, measured.results, strict=True)]
    answered = [one for one in examples if one.answer]
    refused = [one for one in examples if not one.answer]
    # Those that were refused have no scores. They are sorted, so that some from everywhere say more.
    spread = refused[:: math.ceil(len(refused) / MOST_LISTED) or 1]
    return Answers(
        len(refused),
        len(answered),
        tuple(_most_certain(answered, MOST_LISTED) if benchmark.codes is None else spread),
        _bins([(one.score, False) for one in answered]),
    )


def _example(description: str, code: str, results: Sequence[Result]) -> Example:
    answer = next(((result.code, result.score) for result in results[:1]), ("", 0.0))
    return Example(one_line(description, LONGEST_SHOWN), code, *answer)


def _most_certain(examples: Sequence[Example], limit: int) -> list[Example]:
    return sorted(examples, key=lambda one: (-one.score, one.description, one.code))[:limit]
