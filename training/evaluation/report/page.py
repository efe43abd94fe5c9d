"""Puts the training report together: texts, tables and drawings, in one HTML page that loads nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from training.config import SearchConfig
from training.evaluation.measure import Measured
from training.evaluation.report import drawing
from training.evaluation.report.numbers import (
    BINS,
    FEW,
    Answers,
    Calibration,
    Chapter,
    Confusion,
    Example,
    Pair,
    answers,
    coded,
    counted,
)
from training.network.standing import Epoch

_TEMPLATE: Final = "page.html.jinja"
# Each has up to three drawings. The figures of all others are in the results.
MOST_BENCHMARKS: Final = 20
_MEANINGS: Final = {
    "top_1": "the right code is the first result",
    **{f"top_{place}": f"the right code is among the first {place} results" for place in range(2, 6)},
    "not_found": "the right code is not among the first 5 results",
    "no_result": "there is no answer: right for descriptions that should get none, otherwise a mistake",
    "chapter": "the first result is in the right chapter (2 digits)",
    "heading": "the first result is in the right heading (4 digits)",
    "subheading": "the first result is in the right subheading (6 digits)",
}


@dataclass(frozen=True)
class _Table:
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class _Image:
    """`alternative` says in words what the drawing shows, for those who cannot see it."""

    svg: str
    alternative: str


@dataclass(frozen=True)
class _Shown:
    """A drawing, and its numbers as a table."""

    drawing: _Image
    table: _Table


@dataclass(frozen=True)
class _Section:
    """What the page shows of one benchmark. The first group is only there if its descriptions have codes."""

    anchor: str
    name: str
    summary: str
    refusals: str
    mistakes: Sequence[Example]
    mistakes_summary: str
    chapters: _Shown | None = None
    calibration: _Shown | None = None
    calibration_error: float = 0.0
    confusion: _Shown | None = None
    rarer: int = 0
    pairs: Sequence[Pair] = ()
    pairs_summary: str = ""
    scores: _Shown | None = None


def page(
    measured: Sequence[Measured],
    config: SearchConfig,
    epochs: Sequence[Epoch],
    tuning: Sequence[Epoch] = (),
) -> str:
    """The page as text, which follows only from what is given."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["share"] = _share
    shown = measured[:MOST_BENCHMARKS]
    return environment.get_template(_TEMPLATE).render(
        title=f"Training report of {config.name} {config.version}",
        facts=[
            ("version", config.version),
            ("digits", config.digits),
            ("seed", config.seed),
            ("transformer", config.transformer),
            ("hidden size", config.hidden_size),
            ("epochs", len(epochs) or "unknown"),
        ],
        figures=_figures(shown, config),
        not_shown=_not_shown(len(measured)),
        epochs=_epochs("epochs", epochs) if epochs else None,
        tuning=_epochs("tuning", tuning) if tuning else None,
        benchmarks=[_section(number, one) for number, one in enumerate(shown, 1)],
        few=FEW,
        bins=BINS,
    )


def _figures(measured: Sequence[Measured], config: SearchConfig) -> _Table:
    rows = [["descriptions", *(f"{len(one.results):,}" for one in measured), "that were measured"]]
    for figure, meaning in _MEANINGS.items():
        cells = [_cell(one, figure, config) for one in measured]
        if any(cells):
            rows.append([figure, *cells, meaning])
    return _Table(["figure", *(one.benchmark.name for one in measured), "meaning"], rows)


def _cell(one: Measured, figure: str, config: SearchConfig) -> str:
    if figure not in one.figures:
        return ""
    share, floor = one.figures[figure], config.floor(one.benchmark.name, figure)
    return _share(share) + (f" (below its floor of {_share(floor)})" if share < floor else "")


def _not_shown(count: int) -> str:
    left = count - MOST_BENCHMARKS
    if left <= 0:
        return ""
    return f"Only the first {MOST_BENCHMARKS} benchmarks are shown. benchmark_results.zip has {left} more."


def _epochs(name: str, of: Sequence[Epoch]) -> _Shown:
    first, last = of[0], of[-1]
    return _Shown(
        _Image(
            drawing.epochs(name, of),
            f"Over {counted(len(of), 'epoch')}, the loss went from {first.loss:.3f} to {last.loss:.3f}, "
            f"and the accuracy from {_share(first.accuracy)} to {_share(last.accuracy)}.",
        ),
        _Table(
            ["epoch", "mean loss", "accuracy"],
            [
                [str(number), f"{epoch.loss:.4f}", _share(epoch.accuracy)]
                for number, epoch in enumerate(of, 1)
            ],
        ),
    )


def _section(number: int, measured: Measured) -> _Section:
    benchmark, found = measured.benchmark, answers(measured)
    anchor = f"benchmark-{number}"
    summary = f"Measured: {counted(len(benchmark.descriptions), 'description')}."
    if benchmark.left_out:
        reasons = ", ".join(f"{rows:,} ({reason})" for reason, rows in sorted(benchmark.left_out.items()))
        summary += f" Left out: {reasons}."
    if benchmark.codes is None:
        return _Section(
            anchor,
            benchmark.name,
            f"{summary} None of them should get an answer.",
            f"{_of(found.refused, found)} were rightly refused. {_of(found.answered, found)} were answered.",
            found.mistakes,
            f"Answers of which the model was most certain ({len(found.mistakes)} of {found.answered:,})",
            scores=_scores(anchor, found) if found.answered else None,
        )
    numbers = coded(measured, benchmark.codes)
    confusion = numbers.confusion
    return _Section(
        anchor,
        benchmark.name,
        f"{summary} All of them have a code.",
        f"{_of(found.refused, found)} got no answer, although they have a code.",
        found.mistakes,
        f"Descriptions that got no answer ({len(found.mistakes)} of {found.refused:,})",
        _chapters(anchor, numbers.chapters),
        None if numbers.calibration is None else _calibration(anchor, numbers.calibration),
        0.0 if numbers.calibration is None else numbers.calibration.error,
        _confusion(anchor, confusion),
        confusion.rarer,
        confusion.pairs,
        f"The most frequent confusions, {len(confusion.pairs)} of {confusion.confused}, each with the "
        "mistakes of which the model was most certain:",
    )


def _of(count: int, found: Answers) -> str:
    total = found.refused + found.answered
    return f"{count:,} of {total:,} ({_share(count / total)})"


def _chapters(anchor: str, of: Sequence[Chapter]) -> _Shown:
    certain = sum(not one.is_uncertain for one in of)
    return _Shown(
        _Image(
            drawing.chapters(f"{anchor}-chapters", of),
            f"Bars with the top 1 and top 5 accuracy of {counted(len(of), 'chapter')}, of which {certain} "
            f"have at least {FEW} descriptions. The table that follows has the numbers.",
        ),
        _Table(
            ["chapter", "descriptions", "top 1", "95% interval of top 1", "top 5", "note"],
            [
                [
                    one.chapter,
                    f"{one.count:,}",
                    _share(one.top_1),
                    " to ".join(map(_share, one.interval)),
                    _share(one.top_5),
                    "few descriptions" if one.is_uncertain else "",
                ]
                for one in of
            ],
        ),
    )


def _calibration(anchor: str, of: Calibration) -> _Shown:
    return _Shown(
        _Image(
            drawing.calibration(f"{anchor}-calibration", of),
            "The share of first results that are right by their score, and the number of answers by their "
            f"score. The expected calibration error is {_share(of.error)}.",
        ),
        _Table(
            ["score", "answers", "mean score", "right"],
            [
                [one.range, f"{one.count:,}", _share(one.score), _share(one.right)]
                for one in of.bins
                if one.count
            ],
        ),
    )


def _scores(anchor: str, found: Answers) -> _Shown:
    return _Shown(
        _Image(
            drawing.scores(f"{anchor}-scores", found.scores),
            f"The scores of {counted(found.answered, 'answer')}, none of which should have been given.",
        ),
        _Table(["score", "answers"], [[one.range, f"{one.count:,}"] for one in found.scores if one.count]),
    )


def _confusion(anchor: str, of: Confusion) -> _Shown:
    return _Shown(
        _Image(
            drawing.confusion(f"{anchor}-confusion", of),
            f"A grid with {counted(len(of.cells), 'pair')} of right chapter and chapter of the first result. "
            "The list and the table that follow have the numbers.",
        ),
        _Table(
            ["right chapter", "chapter of the first result", "descriptions", "share of the chapter"],
            [
                [cell.right, cell.answered or "no answer", f"{cell.count:,}", _share(cell.share)]
                for cell in of.cells
            ],
        ),
    )


def _share(share: float) -> str:
    return f"{share:.1%}"
