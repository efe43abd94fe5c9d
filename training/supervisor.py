"""Runs the pipeline in a process of its own, and writes down why it ended if it no longer can.

Linux lets a process have more memory than there is, and kills it once it uses that: nothing raises, and
nobody is left to write `result.json`. This process uses next to none, so it stays.
"""

import argparse
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Final

from training.errors import FailureCode
from training.result import RESULT, folder_of, write_failure

DEFAULT_OUTPUT: Final = Path("output")
# Those that leave a result.json.
_COMMANDS: Final = ("train", "benchmark")
_SECONDS_BETWEEN_LOOKS: Final = 1.0


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


def why_ended(status: int) -> tuple[FailureCode, str]:
    """What a process without a result most likely died of; a status below 0 is a signal's, as Popen's are."""
    if status >= 0:
        return FailureCode.CRASHED, f"ended with exit status {status}; the log says why"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    if name == "SIGKILL":
        return FailureCode.OUT_OF_MEMORY, (
            f"killed by {name}, as Linux does when memory runs out (unless somebody else did): lower "
            "model_batch_size, embedding_batch_size, hidden_size or processes, or take a larger instance"
        )
    return FailureCode.CRASHED, f"ended by {name}; the log may say why"


def end_with_parent() -> None:
    """From now on, this process ends itself after its parent: who is killed cannot stop what it started."""
    threading.Thread(target=_end_after, args=(os.getppid(),), daemon=True).start()


def _end_after(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    os._exit(1)


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
