"""Child processes: why one ended, and how one ends when its parent does."""

import os
import signal
import threading
import time
from typing import Final

from training.errors import FailureCode

_SECONDS_BETWEEN_LOOKS: Final = 1.0


def why_ended(process: str, status: int) -> tuple[FailureCode, str]:
    """Why a process most likely ended without a result. A negative status is a signal, as in Popen."""
    if status >= 0:
        return FailureCode.CRASHED, f"{process} ended with exit status {status}. The log says why."
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    if name == "SIGKILL":
        return FailureCode.OUT_OF_MEMORY, (
            f"{process} was killed by {name}, most likely by Linux because memory ran out. Lower "
            "model_batch_size, embedding_batch_size, hidden_size or processes, or use a larger instance."
        )
    if name == "SIGTERM":
        return FailureCode.INTERRUPTED, f"{process} was ended by {name} before it could keep a checkpoint."
    return FailureCode.CRASHED, f"{process} was ended by {name}. The log may say why."


def end_with_parent() -> None:
    """From now on this process ends when its parent does: a killed parent cannot stop its children itself."""
    threading.Thread(target=_end_after, args=(os.getppid(),), daemon=True).start()


def _end_after(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    os._exit(1)
