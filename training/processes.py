"""Processes that start each other: why one ended, and how one ends with the process that started it."""

import os
import signal
import threading
import time
from typing import Final

from training.errors import FailureCode

_SECONDS_BETWEEN_LOOKS: Final = 1.0


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
