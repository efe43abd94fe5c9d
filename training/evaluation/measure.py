"""Measures how good a model's answers to the descriptions of a benchmark are."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from training.config import Figure
from training.evaluation.benchmark import Benchmark
from training.evaluation.classify import Classifier, Result
from training.progress import Progress

# The version of the way in which figures are measured. It rises when the same model would get other figures,
# because only figures of the same version can be compared. With version 2, descriptions are cleaned as the
# deployed service does it, embeddings are in float32, and old codes are carried over to their successors.
MEASUREMENT: Final = 2
RANKS: Final = 5
# The levels of the nomenclature at which the first result can be right, by their digits.
_LEVELS: Final[tuple[tuple[Figure, int], ...]] = (("chapter", 2), ("heading", 4), ("subheading", 6))


@dataclass(frozen=True)
class Measured:
    """The figures are shares in [0, 1] of `count`. Each chapter (two digits) has its own figures too."""

    benchmark: Benchmark
    figures: dict[str, float]
    chapters: dict[str, dict[str, float]]
    results: list[list[Result]]

    @property
    def metrics(self) -> dict[str, float]:
        return {"count": len(self.results), **self.figures, "measurement": MEASUREMENT}


def measure(benchmark: Benchmark, classifier: Classifier, progress: Progress) -> Measured:
    results = classifier.classify_all(benchmark.descriptions, progress)
    if benchmark.codes is None:
        return Measured(benchmark, _refusals(results), {}, results)
    by_chapter: dict[str, list[int]] = {}
    for index, code in enumerate(benchmark.codes):
        by_chapter.setdefault(code[:2], []).append(index)
    chapters = {
        chapter: {
            "count": len(rows),
            **_figures([benchmark.codes[row] for row in rows], [results[row] for row in rows]),
        }
        for chapter, rows in sorted(by_chapter.items())
    }
    return Measured(benchmark, _figures(benchmark.codes, results), chapters, results)


def ranks(codes: Sequence[str], results: Sequence[Sequence[Result]]) -> list[int]:
    """The place of the right code among the results of each description, from 1; 0 if it is not there."""
    return [
        next((rank for rank, result in enumerate(found, start=1) if result.code == code), 0)
        for code, found in zip(codes, results, strict=True)
    ]


def right_at(digits: int, codes: Sequence[str], results: Sequence[Sequence[Result]]) -> int:
    """How many first results agree with the right code in its first digits."""
    return sum(
        bool(found) and found[0].code[:digits] == code[:digits]
        for code, found in zip(codes, results, strict=True)
    )


def _refusals(results: Sequence[Sequence[Result]]) -> dict[str, float]:
    return {"no_result": _share(sum(not found for found in results), len(results))}


def _figures(codes: Sequence[str], results: Sequence[Sequence[Result]]) -> dict[str, float]:
    """`top_3` is the share of codes among the first three results. Levels compare the first result only."""
    count, places = len(codes), ranks(codes, results)
    figures = {
        f"top_{limit}": _share(sum(0 < place <= limit for place in places), count)
        for limit in range(1, RANKS + 1)
    }
    figures["not_found"] = _share(sum(not 0 < place <= RANKS for place in places), count)
    figures |= _refusals(results)
    for level, digits in _LEVELS:
        figures[level] = _share(right_at(digits, codes, results), count)
    return figures


def _share(count: int, total: int) -> float:
    return round(count / total, 6)
