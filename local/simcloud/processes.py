"""Finds and ends every process that carries a mark in its environment.

A program on an instance may have detached itself (setsid, nohup, double fork), so neither its process group
nor its parent leads to it. It is found by the environment that it was started with, which children inherit.

Run as a program, this module is a guard: it waits until its standard input closes, which happens when the
process that started it ends for any reason, and then ends what is left. It uses only the standard library, so
that it starts in milliseconds.
"""

import os
import signal
import sys
import time
from pathlib import Path


def carrying(mark: str) -> set[int]:
    """The ids of the processes with `mark` ("NAME=value") in their environment, and of their descendants."""
    wanted = mark.encode()
    found: set[int] = set()
    children: dict[int, list[int]] = {}
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        pid = int(entry.name)
        try:
            # The program's name is in parentheses and may hold anything. The fields follow the last one.
            parent = int(Path(entry.path, "stat").read_bytes().rpartition(b")")[2].split()[1])
            children.setdefault(parent, []).append(pid)
            if wanted in Path(entry.path, "environ").read_bytes().split(b"\0"):
                found.add(pid)
        except (OSError, IndexError):
            continue  # it has ended, or belongs to another user
    found.discard(os.getpid())
    # A program may have emptied its environment (`env -i`), but it cannot hide its parent.
    queue = list(found)
    while queue:
        for child in children.get(queue.pop(), ()):
            if child not in found:
                found.add(child)
                queue.append(child)
    found.discard(os.getpid())
    return found


def _ended(pid: int) -> bool:
    """Whether the process is gone, or a zombie that its parent has not collected yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] == b"Z"
    except (OSError, IndexError):
        return True


def end(mark: str, timeout_s: float = 5.0) -> int:
    """Kill every process that carries `mark`, and return how many there were.

    It looks until it has found none twice, because a process may start another one between the look and the
    kill, and because a process that is just starting a program shows no environment.
    """
    killed: set[int] = set()
    deadline = time.monotonic() + timeout_s
    empty_looks = 0
    while empty_looks < 2 and time.monotonic() < deadline:
        alive = {pid for pid in carrying(mark) if not _ended(pid)}
        empty_looks = 0 if alive else empty_looks + 1
        for pid in alive:
            try:
                os.kill(pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                continue
            killed.add(pid)
        time.sleep(0.005)
    return len(killed)


def _guard(mark: str) -> None:
    while sys.stdin.buffer.read(4096):
        pass
    end(mark)


if __name__ == "__main__":
    _guard(sys.argv[1])
