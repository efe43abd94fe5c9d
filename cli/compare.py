"""Show which of two models is better, and at which descriptions."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cli.lineage.differences import MadeFrom, show_made_from
from cli.output import plain

# Figures that are not shares.
_COUNTS = ("count",)


@dataclass(frozen=True)
class Figure:
    """A figure of both models. None where one lacks it, or where a difference would mean nothing."""

    name: str
    this: float | None
    other: float | None
    difference: float | None

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        values = (document[name] for name in ("this", "other", "difference"))
        return cls(str(document["figure"]), *(None if value is None else float(value) for value in values))


@dataclass(frozen=True)
class Moved:
    """A description, its right codes, and their places in both models. None if they are not there."""

    description: str
    codes: tuple[str, ...]
    place: int | None
    other_place: int | None

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        return cls(
            str(document["description"]),
            tuple(map(str, document["codes"])),
            document["place"],
            document["other_place"],
        )


@dataclass(frozen=True)
class Benchmark:
    """One benchmark of both models."""

    name: str
    comparable: bool
    figures: tuple[Figure, ...]
    compared: int
    better: int
    worse: int
    first_better: tuple[Moved, ...]
    first_worse: tuple[Moved, ...]

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        better, worse = document["better"], document["worse"]
        return cls(
            name=str(document["benchmark"] or document["other_benchmark"]),
            comparable=bool(document["comparable"]),
            figures=tuple(map(Figure.of, document["figures"])),
            compared=int(document["compared"]),
            better=int(better["total"]),
            worse=int(worse["total"]),
            first_better=tuple(map(Moved.of, better["first"])),
            first_worse=tuple(map(Moved.of, worse["first"])),
        )


@dataclass(frozen=True)
class Comparison:
    """Two models side by side."""

    prefix: str
    other: str
    benchmarks: tuple[Benchmark, ...]
    problems: tuple[str, ...]
    # A registry of an earlier release does not tell.
    made_from: MadeFrom | None

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        made_from = document.get("made_from")
        return cls(
            str(document["prefix"]),
            str(document["other"]),
            tuple(map(Benchmark.of, document["benchmarks"])),
            tuple(map(str, document["problems"])),
            None if made_from is None else MadeFrom.of(made_from),
        )


def show_comparison(console: Console, found: Comparison) -> None:
    table = Table("benchmark", "figure")
    for header in (plain(found.prefix), plain(found.other), "difference"):
        table.add_column(Text(header), justify="right")
    for benchmark in found.benchmarks:
        for number, figure in enumerate(benchmark.figures):
            name = Text("" if number else plain(benchmark.name))
            shown = (shown_value(figure.name, value) for value in (figure.this, figure.other))
            table.add_row(name, Text(plain(figure.name)), *shown, shown_difference(figure))
    console.print(table)
    for benchmark in found.benchmarks:
        _show_descriptions(console, found, benchmark)
    if found.made_from is not None:
        show_made_from(console, found.made_from)
    for problem in found.problems:
        console.print(Text(plain(problem), "yellow"), soft_wrap=True)


def _show_descriptions(console: Console, found: Comparison, benchmark: Benchmark) -> None:
    name, prefix = plain(benchmark.name), plain(found.prefix)
    if not benchmark.comparable:
        why = "only one of the models has it, or they were measured in different ways"
        console.print(Text(f"{name}: the figures cannot be compared ({why})", "yellow"), soft_wrap=True)
    if benchmark.compared:
        said = f"{name}: of {benchmark.compared} descriptions, {prefix} answers {benchmark.better} better"
        console.print(Text(f"{said} and {benchmark.worse} worse"), soft_wrap=True)
    for word, moved in (("better", benchmark.first_better), ("worse", benchmark.first_worse)):
        for one in moved:
            codes = plain(", ".join(one.codes)) or "no answer"
            places = f"{_place(one.other_place)} → {_place(one.place)}"
            console.print(Text(f"  {word}  {places}  {codes}  {plain(one.description)}"), soft_wrap=True)


def _place(place: int | None) -> str:
    return "–" if place is None else plain(place)


def shown_value(figure: str, value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.0f}" if figure in _COUNTS else f"{value:.1%}"


def shown_difference(figure: Figure) -> str:
    if figure.difference is None:
        return ""
    return f"{figure.difference:+.0f}" if figure.name in _COUNTS else f"{100 * figure.difference:+.1f} points"
