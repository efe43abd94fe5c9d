"""Answers of the API as tables."""

from typing import Any

from rich.console import Console
from rich.table import Table

# The figures that tell a model at a glance; GET /models/{prefix} has all.
_FIGURES = {
    "top_1": "top 1",
    "top_5": "top 5",
    "chapter": "chapter",
    "heading": "heading",
    "no_result": "no result",
}


def show_metrics(console: Console, metrics: dict[str, dict[str, Any]]) -> None:
    """One row a benchmark; shares as percentages."""
    table = Table("benchmark", "count", *_FIGURES.values())
    for benchmark, of in sorted(metrics.items()):
        cells = [f"{of[name]:.1%}" if isinstance(of.get(name), int | float) else "" for name in _FIGURES]
        table.add_row(benchmark, str(of.get("count", "")), *cells)
    console.print(table)


def show_latest(console: Console, stage: str, latest: dict[str, Any]) -> None:
    console.print(
        f"[bold]{latest['prefix']}[/] runs in {stage} since {latest['promoted_at']}", highlight=False
    )
    for name, artifact in sorted(latest["artifacts"].items()):
        # Whole on one line, however narrow the terminal: digests are there to be copied.
        console.print(
            f"  {name:<22} {artifact['size']:>12,} bytes  {artifact['sha256']}",
            highlight=False,
            soft_wrap=True,
        )
