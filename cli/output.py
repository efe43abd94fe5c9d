"""What the command line prints.

Names, messages and figures come from other machines, so they are printed as they are: never as markup, and
never as control characters for the terminal.
"""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cli.answers import Latest, Promotion, Stages

# The figures that say most about a model. GET /models/{prefix} has all of them.
_FIGURES = {
    "top_1": "top 1",
    "top_5": "top 5",
    "chapter": "chapter",
    "heading": "heading",
    "no_result": "no result",
}


def plain(value: object, keep: str = "") -> str:
    """The text with its control characters written as escapes, except those to keep."""
    text = str(value)
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() or each in keep else each.encode("unicode_escape").decode("ascii")
        for each in text
    )


def lines(value: object) -> str:
    """A text of several lines."""
    return plain(value, keep="\n\t")


def counted(number: int, noun: str) -> str:
    """The number with its noun: "1 model", "1,204 models"."""
    return f"{number:,} {noun if number == 1 else f'{noun}s'}"


def show_metrics(console: Console, metrics: Mapping[str, Mapping[str, Any]]) -> None:
    """One row for each benchmark, with shares as percentages."""
    table = Table("benchmark", "count", *_FIGURES.values())
    for benchmark, of in sorted(metrics.items()):
        shares = [f"{of[name]:.1%}" if isinstance(of.get(name), int | float) else "" for name in _FIGURES]
        table.add_row(Text(plain(benchmark)), Text(plain(of.get("count", ""))), *shares)
    console.print(table)


def show_latest(console: Console, stage: str, latest: Latest) -> None:
    since = f" runs in {stage} since {plain(latest.promoted_at)}"
    console.print(Text.assemble((plain(latest.prefix), "bold"), since))
    for artifact in latest.artifacts:
        # On one line, however narrow the terminal is, because digests are there to be copied.
        digest = plain(artifact.sha256) if artifact.sha256 is not None else "no digest yet"
        line = f"  {plain(artifact.name):<22} {artifact.size_bytes:>12,} bytes  {digest}"
        console.print(Text(line), soft_wrap=True)


def show_promotion(console: Console, promotion: Promotion) -> None:
    since = f"since {plain(promotion.promoted_at)}, by {plain(promotion.promoted_by)}"
    console.print(
        Text.assemble((plain(promotion.prefix), "bold"), f" runs in {plain(promotion.stage)} {since}")
    )


def show_stages(console: Console, stages: Stages) -> None:
    for stage, promotion in stages.running.items():
        if promotion is None:
            console.print(Text(f"nothing runs in {plain(stage)}"))
        else:
            show_promotion(console, promotion)
