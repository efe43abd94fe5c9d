"""Runs the pipeline in a child process, and writes `result.json` if that process was killed.

Linux lets a process allocate more memory than there is, and kills it when it uses that memory. The killed
process raises nothing and cannot write `result.json`. The supervisor needs little memory, so it survives.
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
# The commands that leave a result.json.
_COMMANDS: Final = ("train", "benchmark")


def supervise(arguments: Sequence[str]) -> int:
    """Run `training.cli` with the arguments. Returns its exit status, or the status that fits its signal."""
    command, folder = _of(arguments)
    if command is not None:
        # The result of an earlier attempt must not be taken for the result of this one.
        (folder / RESULT).unlink(missing_ok=True)
    # The child inherits open files, so that the job's lock is held for as long as either process lives.
    child = subprocess.Popen([sys.executable, "-m", "training.cli", *arguments], close_fds=False)

    def pass_on(number: int, _frame: FrameType | None) -> None:
        child.send_signal(number)

    signal.signal(signal.SIGTERM, pass_on)
    # Ctrl-C reaches both processes. The child ends because of it, and this process ends after the child.
    signal.signal(signal.SIGINT, lambda *_: None)
    status = child.wait()
    if status >= 0:
        return status
    if command is None or (folder / RESULT).exists():
        return 128 - status
    reason, message = why_ended(f"The {command} process", status)
    sys.stderr.write(f"{reason.code}: {message}\n")
    return write_failure(folder, command, reason, message)


def _of(arguments: Sequence[str]) -> tuple[str | None, Path]:
    """The command, if it is one that leaves a `result.json`, and the folder for that file."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--job", type=Path)
    parser.add_argument("--output", type=Path, default=DEFAULT_OUTPUT)
    command = arguments[0] if arguments and arguments[0] in _COMMANDS else None
    try:
        known, _ = parser.parse_known_args(arguments)
    except argparse.ArgumentError:
        # An option lacks its value. The command line reports that, and runs nothing.
        return None, DEFAULT_OUTPUT
    return command, folder_of(known.job, known.output)
