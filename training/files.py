"""Files: unpacking zips safely, finding the files that a configuration names, writing results atomically."""

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
from pathlib import Path, PurePosixPath
from typing import Final

from training.errors import FailureCode, TrainingError

TEMPORARY: Final = ".temporary-"

_TEMPORARY_FILE: Final = re.compile(r"\..*\.[0-9a-f]{16}\.tmp")
_CHUNK = 1 << 20
# The earliest time that a zip can hold.
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)


def sha256_of_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_folder(folder: Path) -> str:
    """Digest of the names and contents of all files in a folder, except hidden files and Python's caches."""
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*"), key=lambda path: path.relative_to(folder).as_posix()):
        name = path.relative_to(folder)
        if path.is_file() and not any(part.startswith(".") or part == "__pycache__" for part in name.parts):
            total.update(f"{sha256_of_file(path)}  {name.as_posix()}\n".encode())
    return total.hexdigest()


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


def unpack(archive: Path, target: Path, *, missing: FailureCode) -> Path:
    """Unpack a zip into `target` and return the folder; a folder is returned as it is.

    Links, and names that lead outside `target`, are refused: others write to the bucket the zip comes from.
    """
    if archive.is_dir():
        return archive
    if not archive.is_file():
        raise TrainingError(missing, f"{archive} does not exist")
    try:
        with zipfile.ZipFile(archive) as content:
            members = [member for member in content.infolist() if not member.is_dir()]
            for member in members:
                name = PurePosixPath(member.filename.replace("\\", "/"))
                is_link = stat.S_ISLNK(member.external_attr >> 16)
                if name.is_absolute() or ".." in name.parts or ":" in member.filename or is_link:
                    raise TrainingError(
                        FailureCode.UNREADABLE_SOURCE,
                        f"{archive.name} contains {member.filename!r}, which would be unpacked outside its "
                        "folder. Make the zip again with plain relative names.",
                    )
            needed = sum(member.file_size for member in members)
            target.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(target).free
            if needed > free:
                raise TrainingError(
                    FailureCode.OUT_OF_DISK,
                    f"{archive.name} needs {needed:,} bytes when unpacked, but {target} has only {free:,} "
                    "bytes left. Use an instance with a larger disk.",
                )
            for member in members:
                path = target / PurePosixPath(member.filename.replace("\\", "/"))
                path.parent.mkdir(parents=True, exist_ok=True)
                with content.open(member) as packed, path.open("wb") as unpacked:
                    shutil.copyfileobj(packed, unpacked, _CHUNK)
    except (zipfile.BadZipFile, EOFError, NotImplementedError) as exc:
        raise TrainingError(
            FailureCode.UNREADABLE_SOURCE,
            f"{archive.name} is not a complete zip file ({exc}). Upload it again.",
        ) from exc
    return target


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


@dataclass(frozen=True)
class Lookup:
    """Finds the files that a configuration names: first in the unpacked raw data, then in the checkout.

    What is found lies within one of the two, also after links have been followed, and is not hidden there. A
    configuration must not be able to read other files of the machine into a model that many may download.
    """

    unpacked: Path
    checkout: Path

    def find(self, name: str, *, what: str) -> Path:
        """`what` names the key or source that asks for the file, for the error.

        Raises `missing_source` if there is nothing, and `invalid_config` if it is not within the two folders.
        """
        for root, candidate in self._candidates(name):
            if candidate.exists():
                self._require_within(root, candidate, what)
                return candidate
        raise TrainingError(
            FailureCode.MISSING_SOURCE,
            f"{what}: {name} is neither in the raw source data nor in the checkout ({self.checkout}). "
            "Add it to raw_source_data.zip, or remove its key from search-config.toml.",
        )

    def find_file(self, name: str, *, what: str) -> Path:
        """Like `find`. Raises `invalid_config` for anything but a regular file."""
        path = self.find(name, what=what)
        if path.is_dir():
            raise TrainingError(FailureCode.INVALID_CONFIG, f"{what}: {name} is a folder. Name a file.")
        _require_regular(path, what)
        return path

    def find_csv_files(self, folder: str, *, what: str) -> list[Path]:
        """The `*.csv` files of a folder, sorted. Raises `invalid_config` for anything but regular files."""
        path = self.find(folder, what=what)
        if not path.is_dir():
            raise TrainingError(
                FailureCode.INVALID_CONFIG, f"{what}: {folder} is not a folder. Name a folder."
            )
        root = self.unpacked if path.is_relative_to(self.unpacked) else self.checkout
        files = sorted(file for file in path.glob("*.csv") if not file.name.startswith("."))
        for file in files:
            self._require_within(root, file, what)
            _require_regular(file, what)
        return files

    def _candidates(self, name: str) -> Iterator[tuple[Path, Path]]:
        """Each with the folder that it must lie in."""
        path = Path(name)
        yield self.unpacked, self.unpacked / path
        # Depending on how the zip was made, its paths have one folder more or one folder less.
        if not path.is_absolute():
            for folder in sorted(self.unpacked.iterdir()):
                if folder.is_dir():
                    yield self.unpacked, folder / path
            if len(path.parts) > 1:
                yield self.unpacked, self.unpacked.joinpath(*path.parts[1:])
        yield self.checkout, self.checkout / path

    @staticmethod
    def _require_within(root: Path, path: Path, what: str) -> None:
        root, real = root.resolve(), path.resolve()
        if real.is_relative_to(root):
            parts = real.relative_to(root).parts
            if not any(part.startswith(".") for part in parts):
                return
        raise TrainingError(
            FailureCode.INVALID_CONFIG,
            f"{what}: {path.name} is hidden, or leads outside the raw source data and the checkout. "
            "Name a file within them.",
        )


def _require_regular(path: Path, what: str) -> None:
    """Reading a pipe would wait for ever, and a device may never end."""
    if not path.is_file():
        raise TrainingError(
            FailureCode.INVALID_CONFIG, f"{what}: {path.name} is not a regular file. Name a regular file."
        )


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
                f"another run is writing to {path}. Wait for its end, or name another output folder.",
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
