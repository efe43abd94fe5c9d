"""Progress of long work: `progress.jsonl` for the worker, bars on a terminal, plain lines in a log."""

import json
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars

from training.storable import LONGEST_MESSAGE, one_line, storable, without_secrets

SECONDS_BETWEEN_LINES = 1.0


class Phase:
    """A part of the work with a known size, counted in whatever suits it: rows, texts or steps."""

    def __init__(self, progress: "Progress", name: str, total: int) -> None:
        self.name = name
        self.total = total
        self.done = 0
        # What an earlier run had done. It took no time in this one, so it does not count for the rate.
        self._done_before = 0
        self.metrics: dict[str, float] = {}
        # The networks of an ensemble advance the same phase from several threads.
        self._lock = threading.Lock()
        self._progress = progress
        self.started = progress.clock()
        self._task = progress.add_bar(self)

    def advance(self, count: int = 1, **metrics: float) -> None:
        with self._lock:
            self.done += count
            self.metrics |= metrics
            self._progress.report(self, self._task)

    def resume(self, count: int) -> None:
        """Count what an earlier run has done, before it was ended."""
        with self._lock:
            self.done += count
            self._done_before += count

    def finish(self) -> None:
        self._progress.report(self, self._task, last=True)

    def line(self, now: float) -> dict[str, object]:
        elapsed = now - self.started
        rate = (self.done - self._done_before) / elapsed if elapsed > 0 else 0.0
        eta = (self.total - self.done) / rate if rate > 0 else None
        return {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "phase": self.name,
            "done": self.done,
            "total": self.total,
            "rate": round(rate, 1),
            "eta_seconds": None if eta is None or not math.isfinite(eta) else round(max(eta, 0.0), 1),
            "metrics": {name: round(value, 6) for name, value in self.metrics.items()},
        }


class Progress:
    """Writes at most one line per second to `path`, and one line at the end of each phase."""

    def __init__(
        self,
        path: Path | None = None,
        *,
        log: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.clock = clock
        # The names of the phases that have ended, with their seconds.
        self.timings: list[tuple[str, float]] = []
        self._log = log or sys.stdout
        self._file = _open_for_lines(path) if path else None
        self._last_line = float("-inf")
        self._bars: Bars | None = None
        if self._log.isatty():
            self._bars = Bars(
                TextColumn("{task.description:<10}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[metrics]}"),
                console=Console(file=self._log),
            )
            self._bars.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars:
            self._bars.stop()
        if self._file:
            self._file.close()

    @contextmanager
    def phase(self, name: str, total: int) -> Iterator[Phase]:
        """A part of the work. Its last line is written even if the block raises."""
        phase = Phase(self, name, total)
        try:
            yield phase
        finally:
            phase.finish()
            self.timings.append((name, round(self.clock() - phase.started, 3)))

    def say(self, message: str) -> None:
        """Print a line for people: counts, warnings, and where the results are."""
        line = one_line(without_secrets(message), LONGEST_MESSAGE)
        if self._bars:
            self._bars.console.print(line, markup=False, highlight=False)
        else:
            print(line, file=self._log, flush=True)

    def add_bar(self, phase: Phase) -> TaskID | None:
        return self._bars.add_task(phase.name, total=phase.total, metrics="") if self._bars else None

    def report(self, phase: Phase, task: TaskID | None, *, last: bool = False) -> None:
        now = self.clock()
        if self._bars and task is not None:
            self._bars.update(
                task, completed=phase.done, total=phase.total, metrics=_short(phase.metrics), refresh=last
            )
        if not last and now - self._last_line < SECONDS_BETWEEN_LINES:
            return
        self._last_line = now
        line = phase.line(now)
        if self._file:
            self._file.write(json.dumps(storable(line), allow_nan=False) + "\n")
            self._file.flush()
        if last and not self._bars:
            self.say(f"{phase.name}: {phase.done} of {phase.total}, {line['rate']}/s {_short(phase.metrics)}")


def _open_for_lines(path: Path) -> TextIO:
    """Open the file to append to it. An earlier run that was killed may have left half a line."""
    with path.open("ab+") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read() != b"\n":
                file.write(b"\n")
    return path.open("a", encoding="utf-8")


def _short(metrics: Mapping[str, float]) -> str:
    return " ".join(f"{name} {value:.4g}" for name, value in metrics.items())
