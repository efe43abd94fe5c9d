"""Ends a stack's processes when the stack itself was killed and could not end them.

Run as a program, it reads one line for each process from its standard input: the process id, and the signal
that asks it to end. When the input closes, the stack has ended, for whatever reason. What still runs then is
ended, the last one first. It uses only the standard library, so that it starts in milliseconds.
"""

import os
import signal
import sys
import time
from pathlib import Path

_PATIENCE_S = 5.0


def _started(pid: int) -> str | None:
    """When the process started, which tells it from a later one with the same id. None if it has ended."""
    try:
        # The program's name is in parentheses and may hold anything. The fields follow the last one.
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="latin-1").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]


def _end(pid: int, started: str, ask: int) -> None:
    for number in (ask, signal.SIGKILL):
        if _started(pid) != started:
            return
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return
        ends = time.monotonic() + _PATIENCE_S
        while _started(pid) == started and time.monotonic() < ends:
            time.sleep(0.02)


def main() -> None:
    held: list[tuple[int, str, int]] = []
    for line in sys.stdin:
        pid, ask = map(int, line.split())
        if started := _started(pid):
            held.append((pid, started, ask))
    for pid, started, ask in reversed(held):
        _end(pid, started, ask)


if __name__ == "__main__":
    main()
