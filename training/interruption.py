"""SIGTERM: whoever ends the machine or the job asks the run to end, some time before it is killed.

A process has one handler for SIGTERM, so what it has noticed belongs to the process and not to an object.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupted(BaseException):
    """The run was asked to end.

    It is not an Exception, so that nothing goes on that would survive an error, such as a cache that fails.
    """


class _Noticed:
    """What this process has noticed, and what it is doing meanwhile."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.working = False
        # How many pieces of work, in any thread, end themselves at their next step.
        self.deferring = 0
        self.lock = threading.Lock()


_noticed = _Noticed()


def asked() -> bool:
    """Whether the run was asked to end."""
    return _noticed.asked.is_set()


@contextmanager
def noticed() -> Iterator[None]:
    """In this block, SIGTERM does not kill the process. It ends only what is `interruptible`."""
    _noticed.asked.clear()
    before = signal.signal(signal.SIGTERM, _notice)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def interruptible() -> Iterator[None]:
    """The work that SIGTERM ends, by `Interrupted`. What follows the block is done to its end."""
    _noticed.working = True
    try:
        yield
    finally:
        _noticed.working = False


@contextmanager
def deferred() -> Iterator[None]:
    """Work in any thread that looks at `asked` in each of its steps, and raises `Interrupted` itself."""
    with _noticed.lock:
        _noticed.deferring += 1
    try:
        yield
    finally:
        with _noticed.lock:
            _noticed.deferring -= 1


def _notice(_number: int, _frame: FrameType | None) -> None:
    # Only once. The supervisor and the machine may both send the signal.
    if _noticed.asked.is_set():
        return
    _noticed.asked.set()
    if _noticed.working and not _noticed.deferring:
        raise Interrupted
