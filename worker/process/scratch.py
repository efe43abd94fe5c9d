"""Scratch folders of builds, and the removal of those that dead workers left behind.

Each process has one folder, and holds a lock on a file in it for as long as it is alive. A process that gets
the lock of another folder knows that the owner is gone, even if a new process has the owner's process id.
"""

import fcntl
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path

_LOCK = "in-use"


def folder() -> Path:
    """This process's own folder."""
    return _claim(_base())


def remove_abandoned() -> int:
    """Remove the folders whose process is gone; returns how many."""
    base = _base()
    with (base / _LOCK).open("a") as making:
        # A folder that is just being made has no lock yet.
        fcntl.flock(making, fcntl.LOCK_EX)
        return sum(_remove(found) for found in base.iterdir() if found.is_dir())


def _base() -> Path:
    # Not shared with other users, who might put links there.
    base = Path(tempfile.gettempdir()) / f"tariff-registry-{os.getuid()}"
    base.mkdir(mode=0o700, exist_ok=True)
    if base.is_symlink() or base.stat().st_uid != os.getuid():
        message = f"{base} belongs to somebody else. Remove it, or set TMPDIR to a folder of your own."
        raise PermissionError(message)
    return base


@cache
def _claim(base: Path) -> Path:
    with (base / _LOCK).open("a") as making:
        fcntl.flock(making, fcntl.LOCK_EX)
        own = Path(tempfile.mkdtemp(prefix=f"worker-{os.getpid()}-", dir=base))
        # The file stays open, and so locked, until the process ends.
        fcntl.flock(os.open(own / _LOCK, os.O_CREAT | os.O_RDWR), fcntl.LOCK_EX)
    return own


def _remove(found: Path) -> bool:
    try:
        lock = os.open(found / _LOCK, os.O_RDWR | os.O_CREAT)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    else:
        shutil.rmtree(found, ignore_errors=True)
        return True
    finally:
        os.close(lock)
