"""Files: digests, results that are written atomically, and what systems leave in folders."""

import errno
import fcntl
import hashlib
import os
import re
import secrets
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Final

from training.errors import FailureCode, TrainingError

TEMPORARY: Final = ".temporary-"

_TEMPORARY_FILE: Final = re.compile(r"\..*\.[0-9a-f]{16}\.tmp")
# Folders and files that systems and editors leave behind, in lower case.
_LEFTOVERS: Final = frozenset({"__macosx", "thumbs.db", "desktop.ini", "__pycache__", "$recycle.bin"})
# The earliest time that a zip can hold.
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)


def sha256_of_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class FileDigest:
    """A file in a folder, by its path there."""

    path: str
    sha256: str
    size_bytes: int


def digests_of_folder(folder: Path) -> tuple[FileDigest, ...]:
    """All files in a folder by their paths, except hidden files and Python's caches."""
    named = sorted((path.relative_to(folder).as_posix(), path) for path in folder.rglob("*"))
    return tuple(
        FileDigest(name, sha256_of_file(path), path.stat().st_size)
        for name, path in named
        if path.is_file()
        and not any(part.startswith(".") or part == "__pycache__" for part in PurePath(name).parts)
    )


def sha256_of_files(files: Iterable[FileDigest]) -> str:
    """Digest of the names and contents of files: of what `sha256sum` prints about them."""
    listing = "".join(f"{file.sha256}  {file.path}\n" for file in files)
    return hashlib.sha256(listing.encode()).hexdigest()


def is_leftover(path: PurePath) -> bool:
    """Whether a system or an editor left the file behind: hidden files, locks of Office, `__MACOSX`."""
    return any(
        (part.startswith((".", "~$")) and part not in {".", ".."}) or part.lower() in _LEFTOVERS
        for part in path.parts
    )


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Write a file atomically: the block writes to the yielded path, which replaces `path` if it succeeds."""
    # Named so that `output_folder` knows it.
    beside = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        yield beside
        with beside.open("rb+") as file:
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def write_zip(path: Path, files: Iterable[tuple[str, bytes]]) -> None:
    """Write a zip whose bytes depend only on the names and contents of the files.

    Times and permissions are fixed and names are sorted. Nothing is compressed, because weights hardly shrink
    and different builds of zlib give different bytes.
    """
    with written_whole(path) as beside, zipfile.ZipFile(beside, "w", zipfile.ZIP_STORED) as archive:
        for name, content in sorted(files):
            info = zipfile.ZipInfo(name, _ZIP_TIME)
            info.create_system = 3
            info.external_attr = (stat.S_IFREG | 0o644) << 16
            archive.writestr(info, content)


@contextmanager
def output_folder(path: Path) -> Iterator[Path]:
    """Make the folder, keep other runs out of it, and remove what a run that was killed has left in it.

    Results are written atomically, so only temporary files and folders can be incomplete: all of them start
    with a dot. Raises `invalid_job` if another run is using the folder.
    """
    path.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            # The lock is on the folder itself, so that no file is left, and it ends with the process.
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise TrainingError(
                FailureCode.INVALID_JOB,
                f"another run is writing to {path}. Wait for its end, or name another folder.",
            ) from exc
        for left in [*path.iterdir(), *path.glob("*/.*.tmp")]:
            if left.name.startswith(TEMPORARY) and left.is_dir() and not left.is_symlink():
                shutil.rmtree(left)
            elif _TEMPORARY_FILE.fullmatch(left.name):
                left.unlink()
        yield path
    finally:
        os.close(handle)


@contextmanager
def temporary_folder(output: Path, content: str) -> Iterator[Path]:
    """A folder in the output for the unpacked `content`, removed at the end of the block."""
    with tempfile.TemporaryDirectory(prefix=f"{TEMPORARY}{content}-", dir=output) as folder:
        yield Path(folder)


def disk_is_full(error: OSError) -> bool:
    return error.errno in (errno.ENOSPC, errno.EDQUOT)
