"""Draws the figures of the training report as SVG that stands inside an HTML page.

matplotlib takes about a second to load, so only the report imports this module. The same numbers give the
same bytes: identifiers are made with a fixed salt, there is no date, and no settings of a user are read.
"""

import html
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from matplotlib.typing import RcKeyType

from training.evaluation.report.numbers import Bin, Calibration, Cell, Chapter, Confusion, counted
from training.network.standing import Epoch

# The colours stand for those of the page, which differ in its light and its dark form.
_INK: Final = "#000001"
_GRID: Final = "#000002"
_FIRST: Final = "#000003"
_SECOND: Final = "#000004"
_WRONG: Final = "#000005"
_VARIABLES: Final = {
    _INK: "var(--ink)",
    _GRID: "var(--grid)",
    _FIRST: "var(--first)",
    _SECOND: "var(--second)",
    _WRONG: "var(--wrong)",
}
_SETTINGS: Final[dict[RcKeyType, Any]] = {
    "axes.axisbelow": True,
    "axes.edgecolor": _INK,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.labelcolor": _INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": _INK,
    "axes.titlesize": 10,
    "figure.facecolor": "none",
    "font.size": 9,
    "grid.color": _GRID,
    "legend.frameon": False,
    "savefig.facecolor": "none",
    "svg.fonttype": "none",
    "svg.hashsalt": "training report",
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
}
# In inches.
_WIDTH: Final = 9.6
_NARROW: Final = 6.0
_BAR: Final = 0.17
_SMALLEST_CELL: Final = 0.13
_LARGEST_CELL: Final = 0.4
_UNCERTAIN: Final = 0.45
# So that a rare confusion can be seen.
_PALEST: Final = 0.2

# The corners of a rectangle.
_Box = tuple[tuple[float, float], tuple[float, float], tuple[float, float], tuple[float, float]]


@dataclass
class _Drawing:
    """A figure of matplotlib, and what is shown when the mouse rests on its marks, by their group."""

    figure: Figure
    titles: dict[str, Sequence[str]] = field(default_factory=dict)
    svg: str = ""

    def axes(self, left: float, bottom: float, width: float, height: float) -> Axes:
        """Axes at a fixed place, in shares of the figure, so that no font decides it."""
        return self.figure.add_axes((left, bottom, width, height))

    def boxes(
        self,
        axes: Axes,
        group: str,
        boxes: Sequence[_Box],
        colours: Sequence[tuple[str, float]],
        titles: Sequence[str],
    ) -> None:
        """Rectangles with colours and titles of their own. As one collection they are drawn much faster."""
        drawn = PolyCollection(boxes, facecolors=colours, linewidths=0)
        drawn.set_gid(group)
        axes.add_collection(drawn)
        self.titles[group] = titles


@contextmanager
def _drawing(name: str, height: float, width: float = _WIDTH) -> Iterator[_Drawing]:
    """A drawing whose SVG is there at the end of the block. `name` must be its own on the page."""
    with mpl.rc_context({**mpl.rcParamsDefault, **_SETTINGS}):
        drawing = _Drawing(Figure(figsize=(width, height)))
        yield drawing
        whole = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        drawing.figure.savefig(whole, format="svg", metadata=nothing)
        drawing.svg = _for_a_page(whole.getvalue(), name, drawing.titles)


def _for_a_page(svg: str, name: str, titles: Mapping[str, Sequence[str]]) -> str:
    """The SVG element alone, with the page's colours, identifiers of its own, and titles of its marks."""
    # The page says in words what the drawing shows.
    svg = f'<svg aria-hidden="true"{svg[svg.index("<svg") + len("<svg") :]}'
    svg = re.sub(r"\s*<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"\s*<style.*?</style>", "", svg, flags=re.DOTALL)
    # The height follows, when the page is narrower than the drawing.
    svg = re.sub(r' height="[^"]*"', "", svg, count=1)
    for group, texts in titles.items():
        svg = _titled(svg, group, texts)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, variable)
    svg = re.sub(r'( id="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    return re.sub(r"\s*\n\s*", "\n", svg)


def _titled(svg: str, group: str, texts: Sequence[str]) -> str:
    """The drawing with a text for each mark of a group, which browsers show when the mouse rests on it."""
    left = iter(texts)
    start = svg.index(f'<g id="{group}">')
    end = svg.index("</g>", start)
    marks = re.sub(
        r"<path ([^>]*)/>",
        lambda path: f"<path {path[1]}><title>{html.escape(next(left))}</title></path>",
        svg[start:end],
    )
    return svg[:start] + marks + svg[end:]


def epochs(name: str, of: Sequence[Epoch]) -> str:
    """Loss and accuracy by epoch, side by side."""
    with _drawing(name, 2.6) as drawing:
        numbers = range(1, len(of) + 1)
        marker = "o" if len(of) <= 50 else ""
        loss = drawing.axes(0.08, 0.18, 0.39, 0.7)
        loss.plot(numbers, [epoch.loss for epoch in of], color=_FIRST, marker=marker, markersize=4)
        loss.set_title("mean loss")
        loss.set_ylim(bottom=0)
        accuracy = drawing.axes(0.58, 0.18, 0.39, 0.7)
        accuracy.plot(numbers, [epoch.accuracy for epoch in of], color=_SECOND, marker=marker, markersize=4)
        accuracy.set_title("accuracy on the training pairs")
        _share_axis(accuracy, "y")
        for axes in (loss, accuracy):
            axes.set_xlabel("epoch")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    return drawing.svg


def chapters(name: str, of: Sequence[Chapter]) -> str:
    """One bar for each chapter, from the top: the first part is top 1, the second what top 5 adds."""
    height = _BAR * len(of) + 0.9
    with _drawing(name, height) as drawing:
        axes = drawing.axes(0.1, 0.45 / height, 0.86, _BAR * len(of) / height)
        alphas = [_UNCERTAIN if one.is_uncertain else 1.0 for one in of]
        texts = [
            f"chapter {one.chapter}, {counted(one.count, 'description')}: "
            f"top 1 {one.top_1:.1%}, top 5 {one.top_5:.1%}"
            for one in of
        ]
        for group, colour, starts, ends in (
            ("top1", _FIRST, [0.0] * len(of), [one.top_1 for one in of]),
            ("top5", _SECOND, [one.top_1 for one in of], [one.top_5 for one in of]),
        ):
            boxes = [
                _box(start, end, place - 0.4, place + 0.4)
                for place, (start, end) in enumerate(zip(starts, ends, strict=True))
            ]
            drawing.boxes(axes, group, boxes, [(colour, alpha) for alpha in alphas], texts)
        low, high = zip(*(one.interval for one in of), strict=True)
        axes.hlines(range(len(of)), low, high, colors=[(_INK, alpha) for alpha in alphas], linewidths=1)
        axes.set_yticks(
            range(len(of)), [f"{one.chapter}{'?' if one.is_uncertain else ''} ({one.count})" for one in of]
        )
        axes.tick_params("y", length=0)
        axes.tick_params("x", top=True, labeltop=True)
        axes.set_ylim(len(of) - 0.5, -0.5)
        axes.grid(visible=False, axis="y")
        _share_axis(axes, "x")
    return drawing.svg


def calibration(name: str, of: Calibration) -> str:
    """The share that is right by the score, above how many answers had such a score."""
    with _drawing(name, 4.6, _NARROW) as drawing:
        axes = drawing.axes(0.13, 0.4, 0.8, 0.57)
        used = [one for one in of.bins if one.count]
        texts = [
            f"scores {one.range}: {counted(one.count, 'answer')}, "
            f"mean score {one.score:.1%}, right {one.right:.1%}"
            for one in used
        ]
        boxes = [_box(*_sides(one), 0, one.right) for one in used]
        drawing.boxes(axes, "bins", boxes, [(_FIRST, 1.0)] * len(used), texts)
        axes.plot((0, 1), (0, 1), color=_INK, linewidth=1, linestyle="--")
        mean_scores, right = [one.score for one in used], [one.right for one in used]
        axes.plot(mean_scores, right, "o", color=_INK, markersize=4)
        axes.set_ylabel("share that is right")
        _share_axis(axes, "x")
        _share_axis(axes, "y")
        axes.tick_params("x", labelbottom=False)
        _counts(drawing, drawing.axes(0.13, 0.12, 0.8, 0.22), of.bins)
    return drawing.svg


def scores(name: str, bins: Sequence[Bin]) -> str:
    """How many answers had which score."""
    with _drawing(name, 2.4, _NARROW) as drawing:
        _counts(drawing, drawing.axes(0.13, 0.22, 0.8, 0.7), bins)
    return drawing.svg


def _counts(drawing: _Drawing, axes: Axes, bins: Sequence[Bin]) -> None:
    texts = [f"scores {one.range}: {counted(one.count, 'answer')}" for one in bins]
    boxes = [_box(*_sides(one), 0, one.count) for one in bins]
    drawing.boxes(axes, "counts", boxes, [(_SECOND, 1.0)] * len(bins), texts)
    axes.set_xlabel("score of the first result")
    axes.set_ylabel("answers")
    axes.set_ylim(0, 1.05 * max(one.count for one in bins))
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    _share_axis(axes, "x")


def confusion(name: str, of: Confusion) -> str:
    """A row for each chapter of the right codes, and a column for each chapter of the answers."""
    rows = sorted({cell.right for cell in of.cells})
    answered = sorted({cell.answered for cell in of.cells} - {""} | set(rows))
    columns = [*answered, ""]
    size = min(_LARGEST_CELL, max(_SMALLEST_CELL, (_WIDTH - 0.9) / len(columns)))
    height, width = size * len(rows) + 0.9, max(size * len(columns) + 0.9, 3.0)
    with _drawing(name, height, width) as drawing:
        axes = drawing.axes(0.6 / width, 0.2 / height, 1 - 0.8 / width, 1 - 0.9 / height)
        places = [(columns.index(cell.answered), rows.index(cell.right)) for cell in of.cells]
        boxes = [_box(column - 0.5, column + 0.5, row - 0.5, row + 0.5) for column, row in places]
        texts = [_sentence(cell) for cell in of.cells]
        drawing.boxes(axes, "cells", boxes, [_colour(cell) for cell in of.cells], texts)
        # Ticks would take most of the time of the whole report.
        axes.set_axis_off()
        for place, chapter in enumerate([*answered, "none"]):
            axes.text(place, -0.7, chapter, rotation=90, fontsize=7, ha="center", va="bottom")
        for place, chapter in enumerate(rows):
            axes.text(-0.7, place, chapter, fontsize=7, ha="right", va="center")
        axes.hlines(range(len(rows)), -0.5, len(columns) - 0.5, colors=_GRID, linewidths=0.8, zorder=0)
        axes.vlines(range(len(columns)), -0.5, len(rows) - 0.5, colors=_GRID, linewidths=0.8, zorder=0)
        drawing.figure.text(0.5, 1 - 0.15 / height, "chapter of the first result", ha="center", va="top")
        drawing.figure.text(0.1 / width, 0.5, "chapter of the right code", rotation=90, va="center")
        axes.set_xlim(-0.5, len(columns) - 0.5)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_aspect("equal")
    return drawing.svg


def _colour(cell: Cell) -> tuple[str, float]:
    colour = _FIRST if cell.answered == cell.right else _WRONG if cell.answered else _SECOND
    return colour, _PALEST + (1 - _PALEST) * cell.share


def _sentence(cell: Cell) -> str:
    answer = f"answered with chapter {cell.answered}" if cell.answered else "without an answer"
    return f"chapter {cell.right}, {answer}: {cell.count} ({cell.share:.1%} of the chapter)"


def _box(left: float, right: float, top: float, bottom: float) -> _Box:
    return (left, top), (right, top), (right, bottom), (left, bottom)


def _sides(one: Bin) -> tuple[float, float]:
    gap = 0.04 * (one.high - one.low)
    return one.low + gap, one.high - gap


def _share_axis(axes: Axes, which: str) -> None:
    axis = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xlim if which == "x" else axes.set_ylim)(0, 1)
    axis.set_major_formatter(PercentFormatter(1, decimals=0))
