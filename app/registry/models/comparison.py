"""Two models side by side: their figures, and which descriptions one of them answers better."""

from collections.abc import Iterator
from dataclasses import dataclass

from app.registry.errors import NotFound
from app.registry.models.benchmarks import Known, Measured
from app.registry.models.predictions import Answer
from app.registry.models.thresholds import counterpart, same_benchmark

# Stands for the place of a right code that is not among the answers: worse than every place.
_NOWHERE = 1_000


@dataclass(frozen=True)
class FigurePair:
    """One figure of both models; None if a model lacks it. The difference is None if it means nothing."""

    figure: str
    this: float | None
    other: float | None
    difference: float | None


@dataclass(frozen=True)
class Pair:
    """A description with both models' answers."""

    this: Answer
    other: Answer

    @property
    def gain(self) -> int:
        """By how many places this model is better. Below 0, the other one is."""
        return (self.other.place or _NOWHERE) - (self.this.place or _NOWHERE)


@dataclass(frozen=True)
class Compared:
    """One benchmark of two models; `this` or `other` is None if that model lacks it.

    `compared` counts the descriptions with the same right codes that both were asked. `better` and `worse`
    are those of them whose right code has another place, with the largest changes first.
    """

    this: Measured | None
    other: Measured | None
    figures: tuple[FigurePair, ...]
    compared: int
    better: tuple[Pair, ...]
    worse: tuple[Pair, ...]

    @property
    def comparable(self) -> bool:
        """Whether both models have the benchmark, measured in the same way."""
        return (
            self.this is not None
            and self.other is not None
            and self.this.measurement == self.other.measurement
        )


def compare(this: Known, other: Known, benchmark: str | None = None) -> list[Compared]:
    """Each benchmark that one of the models has, or the one with this name. Raises NotFound without one."""
    found = [
        _compare(mine, theirs)
        for mine, theirs in _pairs(this, other)
        if benchmark is None
        or any(one is not None and same_benchmark(one.name, benchmark) for one in (mine, theirs))
    ]
    if benchmark is not None and not found:
        names = ", ".join(sorted({*this.benchmarks, *other.benchmarks})) or "none"
        message = f"Neither model has a benchmark {benchmark!r}. Their benchmarks are: {names}."
        raise NotFound(message)
    return found


def _pairs(this: Known, other: Known) -> Iterator[tuple[Measured | None, Measured | None]]:
    """The benchmarks that belong together. An imported model may know one by the team's name."""
    open_ = dict(other.benchmarks)
    for name, mine in sorted(this.benchmarks.items()):
        theirs = counterpart(name, open_)
        yield mine, None if theirs is None else open_.pop(theirs)
    for _, theirs_alone in sorted(open_.items()):
        yield None, theirs_alone


def _compare(this: Measured | None, other: Measured | None) -> Compared:
    answers = {answer.description: answer for answer in other.answers} if other is not None else {}
    pairs = [
        Pair(answer, answers[answer.description])
        for answer in (this.answers if this is not None else ())
        if answer.description in answers and set(answer.codes) == set(answers[answer.description].codes)
    ]
    moved = sorted(
        (pair for pair in pairs if pair.gain), key=lambda pair: (-abs(pair.gain), pair.this.description)
    )
    return Compared(
        this,
        other,
        tuple(_figures(this, other)),
        len(pairs),
        tuple(pair for pair in moved if pair.gain > 0),
        tuple(pair for pair in moved if pair.gain < 0),
    )


def _figures(this: Measured | None, other: Measured | None) -> Iterator[FigurePair]:
    mine = this.figures if this is not None else {}
    theirs = other.figures if other is not None else {}
    alike = this is not None and other is not None and this.measurement == other.measurement
    for figure in dict.fromkeys([*mine, *theirs]):
        was, now = theirs.get(figure), mine.get(figure)
        difference = None if not alike or was is None or now is None else round(now - was, 6)
        yield FigurePair(figure, now, was, difference)
