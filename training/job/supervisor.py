"""Runs the pipeline in a process of its own, and writes down why it ended if it no longer can.

Linux lets a process have more memory than there is, and kills it once it uses that: nothing raises, and
nobody is left to write `result.json`. This process uses next to none, so it stays.
"""

import argparse
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Final

from training.job.result import RESULT, folder_of, write_failure
from training.processes import why_ended

DEFAULT_OUTPUT: Final = Path("output")
# Those that leave a result.json.
_COMMANDS: Final = ("train", "benchmark")


def supervise(arguments: Sequence[str]) -> int:
    """Run `training.cli` with the arguments. Returns its exit status, or that of what killed it."""
    command, folder = _of(arguments)
    if command is not None:
        # That of an earlier try says nothing of this one.
        (folder / RESULT).unlink(missing_ok=True)
    # With the files that this process was given: a lock is then held for as long as either lives.
    child = subprocess.Popen([sys.executable, "-m", "training.cli", *arguments], close_fds=False)

    def pass_on(number: int, _frame: FrameType | None) -> None:
        child.send_signal(number)

    signal.signal(signal.SIGTERM, pass_on)
    # Ctrl-C goes to all processes of a terminal: the other one ends by it, and this one after it.
    signal.signal(signal.SIGINT, lambda *_: None)
    status = child.wait()
    if status >= 0:
        return status
    if command is None or (folder / RESULT).exists():
        return 128 - status
    reason, message = why_ended(status)
    sys.stderr.write(f"{reason.code}: {message}\n")
    return write_failure(folder, command, reason, message)


def _of(arguments: Sequence[str]) -> tuple[str | None, Path]:
    """The command, if it is one that leaves a `result.json`, and the folder for that."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--job", type=Path)
    parser.add_argument("--output", type=Path, default=DEFAULT_OUTPUT)
    command = arguments[0] if arguments and arguments[0] in _COMMANDS else None
    try:
        known, _ = parser.parse_known_args(arguments)
    except argparse.ArgumentError:
        # An option without its value: the command line says so, and runs nothing.
        return None, DEFAULT_OUTPUT
    return command, folder_of(known.job, known.output)
