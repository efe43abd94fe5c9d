"""Follow a build on the terminal: its steps as they end, the job's progress bar, and why it failed."""

import time
from collections.abc import Callable

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn
from rich.text import Text

from cli.answers import ApiError, Build, Step, read
from cli.client import RegistryClient, path
from cli.output import lines, plain

_POLL_S = 0.5
_LOG_TAIL = 30
# A registry that is being deployed is away for a while, and its builds go on.
PATIENCE_S = 300.0


def follow(
    client: RegistryClient,
    build_id: str,
    console: Console,
    sleep: Callable[[float], object] = time.sleep,
) -> Build:
    """Show the build until it ends, and return it as it is then. Raises ApiError."""
    client.patience_s = PATIENCE_S
    shown: set[str] = set()
    with _Bar(console) as bar:
        while True:
            build = read(client.get(path("builds", build_id)), Build.of)
            for step in build.steps:
                if step.name not in shown and step.state in ("succeeded", "failed"):
                    shown.add(step.name)
                    _show_step(console, step)
            bar.show(build)
            if build.ended:
                break
            sleep(_POLL_S)
    if build.state == "failed":
        show_failure(client, build, console)
    return build


def show_failure(client: RegistryClient, build: Build, console: Console) -> None:
    failure = build.failure
    what = f"Build {plain(build.id)} of {plain(build.prefix)} failed in {plain(failure.get('step'))}"
    console.print(Text.assemble((what, "red"), f" ({plain(failure.get('code'))})"))
    console.print(Text(lines(failure.get("message", ""))))
    try:
        log = client.end_of_log(path("builds", build.id, "log")).splitlines()
    except ApiError as exc:
        # The build failed, whether or not its log can be had.
        console.print(Text(f"Its log cannot be shown. {plain(exc)}"))
        return
    where = f"The last lines of its log (GET /builds/{plain(build.id)}/log has all of it):"
    console.print(Text(where, "dim"))
    for line in log[-_LOG_TAIL:]:
        console.print(Text(f"  {plain(line)}"), soft_wrap=True)


class _Bar:
    """The running job's progress: a bar on a terminal, elsewhere a line for every quarter of a phase."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars = Progress(
            TextColumn("  {task.description:<20}", markup=False),
            BarColumn(bar_width=30),
            TaskProgressColumn(),
            TextColumn("{task.fields[eta]}", markup=False),
            console=console,
            transient=True,
        )
        self._bar: TaskID | None = None
        self._printed: set[tuple[str, int]] = set()

    def __enter__(self) -> "_Bar":
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def show(self, build: Build) -> None:
        progress = build.progress
        if progress is None:
            if self._bar is not None:
                self._bars.remove_task(self._bar)
                self._bar = None
            return
        label = plain(f"{build.running_step}: {progress.phase}")
        eta = "" if progress.eta_seconds is None else f"{progress.eta_seconds:.0f} s left"
        if self._bar is None:
            self._bar = self._bars.add_task(label, total=100, eta="")
        self._bars.update(self._bar, description=label, completed=progress.percent, eta=eta)
        quarter = (label, int(progress.percent // 25))
        if not self._console.is_terminal and quarter not in self._printed:
            self._printed.add(quarter)
            self._console.print(Text(f"  {label:<20} {progress.percent:.0f}%"))


def _show_step(console: Console, step: Step) -> None:
    took = "" if step.seconds is None else f"{step.seconds:6.1f} s"
    mark = ("✓", "green") if step.state == "succeeded" else ("✗", "red")
    line = Text.assemble("  ", mark, f" {plain(step.name):<20} {took}  ", (plain(_gist(step)), "dim"))
    console.print(line, soft_wrap=True)


def _gist(step: Step) -> str:
    """The one thing in a step's output that a reader wants to see."""
    output = step.output
    for key in ("name", "instance_id", "zone", "checks", "fingerprint", "commit", "verdict"):
        if key in output:
            return str(output[key])
    inputs, counts = output.get("inputs"), output.get("counts")
    if isinstance(inputs, dict):
        sizes = {name: of.get("size_bytes") for name, of in inputs.items() if isinstance(of, dict)}
        return ", ".join(
            f"{name} {size / 1e6:.1f} MB" for name, size in sizes.items() if isinstance(size, int)
        )
    if isinstance(counts, dict):
        return ", ".join(f"{name} {count:,}" for name, count in counts.items() if isinstance(count, int))
    return ""
