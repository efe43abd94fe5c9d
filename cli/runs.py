"""Imports and reconciliations on the terminal: asked for, followed to their end, and listed."""

import json
import time
from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cli.answers import Run, read
from cli.builds.follow import PATIENCE_S
from cli.client import RegistryClient, path
from cli.output import lines, plain

_POLL_S = 0.5

# How many keys or prefixes are printed. GET /runs/{id} has more.
_SHOWN = 50


def run_to_end(
    client: RegistryClient,
    where: str,
    options: Mapping[str, bool | int | list[str]],
    console: Console,
    *,
    wait: bool,
    sleep: Callable[[float], object] = time.sleep,
) -> Run:
    """Ask for a run and show it until it ends, unless it is not to be waited for. Raises ApiError."""
    run = read(client.post(where, options), Run.of)
    return follow_run(client, run, console, wait=wait, sleep=sleep)


def follow_run(
    client: RegistryClient,
    run: Run,
    console: Console,
    *,
    wait: bool,
    sleep: Callable[[float], object] = time.sleep,
) -> Run:
    """Show a run until it ends, unless it is not to be waited for. Raises ApiError."""
    console.print(Text(f"The {plain(run.kind)} is run {plain(run.id)}."))
    if not wait:
        return run
    client.patience_s = PATIENCE_S
    shown, waits_for = "", ""
    while not run.ended:
        sleep(_POLL_S)
        run = read(client.get(path("runs", run.id)), Run.of)
        progress = _pairs(run.progress)
        if progress and progress != shown and console.is_terminal:
            console.print(Text(f"  {progress}", "dim"))
            shown = progress
        if run.waits_for and run.waits_for != waits_for:
            console.print(Text(f"  It waits: {plain(run.waits_for)}", "yellow"), soft_wrap=True)
            waits_for = run.waits_for
    show_run(console, run)
    return run


def show_run(console: Console, run: Run) -> None:
    """How a run stands, what it counted, and the first things that it names."""
    by = f" by {plain(run.stopped_by)}" if run.stopped_by else ""
    console.print(Text(f"The {plain(run.kind)} of {plain(run.created_at)}: {plain(run.state)}{by}"))
    if run.failure:
        console.print(Text(lines(run.failure), "red"), soft_wrap=True)
    for name, value in run.result.items():
        if isinstance(value, list):
            for item in value[:_SHOWN]:
                console.print(Text(f"  {_item(item)}"), soft_wrap=True)
            if len(value) > _SHOWN:
                console.print(Text(f"  and {len(value) - _SHOWN} more: see GET /runs/{plain(run.id)}"))
        else:
            shown = _pairs(value) if isinstance(value, dict) else plain(value)
            console.print(Text(f"  {plain(name).replace('_', ' ')}: {shown}"))


def show_runs(console: Console, runs: list[Run]) -> None:
    table = Table("run", "kind", "state", "asked for", "by")
    for run in runs:
        row = (run.id, run.kind, run.state, run.created_at, run.requested_by)
        table.add_row(*(Text(plain(value)) for value in row))
    console.print(table)


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{plain(name).replace('_', ' ')} {plain(value)}" for name, value in values.items())


def _item(item: object) -> str:
    """One thing that a result names: a prefix, or an object with a key or prefix and what is said of it."""
    if not isinstance(item, dict):
        return plain(item)
    if "difference" in item:
        done = " (repaired)" if item.get("repaired") else ""
        return plain(f"{item.get('key')}: {item['difference']}{done}. {item.get('detail', '')}")
    if "kept_because" in item:
        kept = item["kept_because"]
        ending = f". The rest is kept: {kept}" if kept else ""
        return plain(
            f"{item.get('prefix')}: {item.get('objects')} objects with {item.get('size_bytes')} bytes were "
            f"deleted{ending}"
        )
    if "reason" in item:
        return plain(f"{item.get('prefix')} was left out: {item['reason']}")
    return plain(json.dumps(item))
