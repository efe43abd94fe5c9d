"""Follow a build on the terminal: its steps as they end, the job's progress bar, why it failed."""

import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn

from cli.client import ApiError, RegistryClient

_POLL_S = 0.5
_ENDED = ("succeeded", "failed", "cancelled")
_LOG_TAIL = 30
# A registry that is being deployed is away for a while; its builds go on.
_PATIENCE_S = 300.0


def follow(
    client: RegistryClient, build_id: str, console: Console, sleep: Callable[[float], None] = time.sleep
) -> dict[str, Any]:
    """Show the build until it ends; returns it as the API has it then. Raises ApiError."""
    shown: set[str] = set()
    unreachable_since: float | None = None
    with Progress(
        TextColumn("  {task.description:<20}"),
        BarColumn(bar_width=30),
        TaskProgressColumn(),
        TextColumn("{task.fields[eta]}"),
        console=console,
        transient=True,
    ) as bars:
        bar: TaskID | None = None
        printed = _Printed(console)
        while True:
            try:
                build = client.get(f"/builds/{build_id}")
                unreachable_since = None
            except ApiError as exc:
                now = time.monotonic()
                unreachable_since = unreachable_since or now
                if exc.status is not None or now - unreachable_since > _PATIENCE_S:
                    raise
                sleep(2)
                continue
            for step in build["steps"]:
                if step["name"] not in shown and step["state"] in ("succeeded", "failed"):
                    shown.add(step["name"])
                    _show_step(console, step)
            progress = build["progress"]
            if progress is not None:
                running = next((step["name"] for step in build["steps"] if step["state"] == "running"), "")
                label = f"{running}: {progress['phase']}"
                if bar is None:
                    bar = bars.add_task(label, total=100, eta="")
                eta = progress["eta_seconds"]
                bars.update(
                    bar,
                    description=label,
                    completed=progress["percent"],
                    eta="" if eta is None else f"{eta:.0f} s left",
                )
                printed.progress(label, progress["percent"])
            elif bar is not None:
                bars.remove_task(bar)
                bar = None
            if build["state"] in _ENDED:
                break
            sleep(_POLL_S)
    if build["state"] == "failed":
        show_failure(client, build, console)
    return build


def show_failure(client: RegistryClient, build: dict[str, Any], console: Console) -> None:
    failure = build["failure"]
    console.print(
        f"[red]Build {build['id']} of {build['prefix']} failed in {failure['step']}[/] ({failure['code']})"
    )
    console.print(failure["message"], markup=False, highlight=False)
    lines = client.text(f"/builds/{build['id']}/log").splitlines()
    console.print(f"[dim]The last lines of its log (GET /builds/{build['id']}/log has all):[/]")
    for line in lines[-_LOG_TAIL:]:
        console.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)


class _Printed:
    """Where no terminal shows the bar, a line for every quarter of a phase."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._seen: set[tuple[str, int]] = set()

    def progress(self, label: str, percent: float) -> None:
        quarter = (label, int(percent // 25))
        if self._console.is_terminal or quarter in self._seen:
            return
        self._seen.add(quarter)
        self._console.print(f"  {label:<20} {percent:.0f}%", highlight=False)


def _show_step(console: Console, step: dict[str, Any]) -> None:
    seconds = ""
    if step["started_at"] and step["finished_at"]:
        took = datetime.fromisoformat(step["finished_at"]) - datetime.fromisoformat(step["started_at"])
        seconds = f"{took.total_seconds():6.1f} s"
    mark = "[green]✓[/]" if step["state"] == "succeeded" else "[red]✗[/]"
    console.print(
        f"  {mark} {step['name']:<20} {seconds}  [dim]{_gist(step)}[/]", highlight=False, soft_wrap=True
    )


def _gist(step: dict[str, Any]) -> str:
    """The one thing of a step's output that a reader wants to see."""
    output = step["output"] or {}
    for key in ("name", "instance_id", "subnet_id", "address", "checks", "fingerprint", "commit", "verdict"):
        if key in output:
            return str(output[key])
    if "inputs" in output:
        return ", ".join(f"{name} {of['size_bytes'] / 1e6:.1f} MB" for name, of in output["inputs"].items())
    if output.get("counts"):
        return ", ".join(
            f"{name} {count:,}" for name, count in output["counts"].items() if isinstance(count, int)
        )
    return ""
