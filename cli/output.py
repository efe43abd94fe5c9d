"""Answers of the API as tables."""

from typing import Any

from rich.console import Console
from rich.table import Table


def show_metrics(console: Console, metrics: dict[str, dict[str, Any]]) -> None:
    """One row a benchmark; shares as percentages."""
    columns = sorted(
        {
            name
            for of in metrics.values()
            for name, value in of.items()
            if name != "count" and isinstance(value, int | float)
        },
        key=lambda name: (not name.startswith("top_"), name),
    )
    table = Table("benchmark", "descriptions", *(name.replace("_", " ") for name in columns))
    for benchmark, of in sorted(metrics.items()):
        cells = [f"{of[name]:.1%}" if isinstance(of.get(name), int | float) else "" for name in columns]
        table.add_row(benchmark, str(of.get("count", "")), *cells)
    console.print(table)


def show_latest(console: Console, stage: str, latest: dict[str, Any]) -> None:
    console.print(
        f"[bold]{latest['prefix']}[/] runs in {stage} since {latest['promoted_at']}", highlight=False
    )
    table = Table("artifact", "size", "sha256")
    for name, artifact in sorted(latest["artifacts"].items()):
        table.add_row(name, f"{artifact['size']:,}", artifact["sha256"])
    console.print(table)
