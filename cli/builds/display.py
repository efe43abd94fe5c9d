"""What happens to a build, on the terminal or as plain lines for the log of CI."""

from collections.abc import Mapping
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn
from rich.text import Text

from cli.answers import ApiError, read
from cli.answers import Progress as JobProgress
from cli.builds.happenings import Happening
from cli.output import lines, plain

# A line of the log that is longer is shown in pieces.
_LONGEST_LINE = 1 << 16


class Display:
    """Shows what happens: the steps as they end, notes, the lines of the log, and the job's progress."""

    def __init__(self, console: Console, *, log: bool) -> None:
        """`log`: whether the lines of the build's log are shown, too."""
        self._console = console
        self._log = log
        self._rest = ""
        self._bar = _Bar(console)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()
        self._finish_line()

    def show(self, happening: Happening) -> None:
        match happening.type:
            case "log":
                self._show_log(happening.text("text"))
            case "progress":
                self._bar.show(happening.data)
            case "step_started":
                self._bar.begin(happening.text("step"))
            case "step_succeeded" | "step_failed":
                self._bar.end()
                self._show_step(happening)
            case "state" if happening.text("state") == "running":
                self._say("The build is running.")
            case "rewound":
                self._bar.end()
                self._say(f"Back to {happening.text('step')}: {happening.text('reason')}", "yellow")
            case "launch_refused":
                refusal = f"{happening.text('zone')}: {happening.text('code')}: {happening.text('message')}"
                self._say(f"No instance in {refusal}", "yellow")
            case "cancel_requested":
                self._say(f"It is being cancelled, as {happening.text('by')} asked.", "yellow")
            case _ if "message" in happening.data:
                # A note, a promotion that was refused, or what only a newer registry knows.
                self._say(happening.text("message"), "yellow")

    def _show_log(self, text: str) -> None:
        if not self._log:
            return
        # The log comes in pieces that can end within a line.
        whole, newline, rest = (self._rest + text).rpartition("\n")
        self._rest = rest
        if newline:
            self._print_log(whole.replace("\r\n", "\n").removesuffix("\r").split("\n"))
        if len(rest) > _LONGEST_LINE:
            self._finish_line()

    def _finish_line(self) -> None:
        if self._rest:
            self._print_log([self._rest])
            self._rest = ""

    def _print_log(self, of_log: list[str]) -> None:
        # All lines at once, because a long log has very many.
        shown = "\n".join("    " + plain(line, keep="\t") for line in of_log)
        self._console.print(Text(shown, "dim"), soft_wrap=True)

    def _say(self, text: str, style: str = "") -> None:
        self._console.print(Text(f"  {lines(text)}", style), soft_wrap=True)

    def _show_step(self, happening: Happening) -> None:
        seconds = happening.data.get("seconds")
        took = f"{seconds:6.1f} s" if isinstance(seconds, int | float) else ""
        mark = ("✓", "green") if happening.type == "step_succeeded" else ("✗", "red")
        output = happening.data.get("output")
        gist = _gist(output) if isinstance(output, dict) else ""
        if happening.data.get("taken_over_from"):
            gist = f"taken over from the build {happening.text('taken_over_from')}"
        name = f" {plain(happening.text('step')):<20} {took}  "
        self._console.print(Text.assemble("  ", mark, name, (plain(gist), "dim")), soft_wrap=True)


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
        self._step = ""
        self._printed: set[tuple[str, int]] = set()

    def start(self) -> None:
        if self._console.is_terminal:
            self._bars.start()

    def stop(self) -> None:
        if self._console.is_terminal:
            self._bars.stop()

    def begin(self, step: str) -> None:
        """Show that the step runs. How far it is, only some steps can tell."""
        self.end()
        self._step = step
        self._bar = self._bars.add_task(plain(step), total=None, eta="")

    def end(self) -> None:
        if self._bar is not None:
            self._bars.remove_task(self._bar)
            self._bar = None

    def show(self, data: Mapping[str, Any]) -> None:
        try:
            progress = read(data, JobProgress.of)
        except ApiError:
            # Progress is only for display, so one that makes no sense is left out.
            return
        label = plain(f"{self._step}: {progress.phase}")
        eta = "" if progress.eta_seconds is None else f"{progress.eta_seconds:.0f} s left"
        if self._bar is None:
            self._bar = self._bars.add_task(label, total=None, eta="")
        self._bars.update(self._bar, description=label, total=100, completed=progress.percent, eta=eta)
        quarter = (label, int(progress.percent // 25))
        if not self._console.is_terminal and quarter not in self._printed:
            self._printed.add(quarter)
            self._console.print(Text(f"  {label:<20} {progress.percent:.0f}%"), soft_wrap=True)


def _gist(output: Mapping[str, Any]) -> str:
    """The one thing in a step's output that a reader wants to see."""
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
