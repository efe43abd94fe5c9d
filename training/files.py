"""Files: unpacking zips safely, finding the files that a configuration names, writing results atomically."""

import errno
import hashlib
import os
import secrets
import shutil
import stat
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from training.errors import FailureCode, TrainingError

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
    """Finds the files that a configuration names: first in the unpacked raw data, then in the checkout."""

    unpacked: Path
    checkout: Path

    def find(self, name: str, *, what: str) -> Path:
        """`what` names the key or source that asks for the file, for the error. Raises `missing_source`."""
        for candidate in self._candidates(name):
            if candidate.exists():
                return candidate
        raise TrainingError(
            FailureCode.MISSING_SOURCE,
            f"{what}: {name} is neither in the raw source data nor in the checkout ({self.checkout}). "
            "Add it to raw_source_data.zip, or remove its key from search-config.toml.",
        )

    def _candidates(self, name: str) -> Iterator[Path]:
        path = Path(name)
        yield self.unpacked / path
        # Depending on how the zip was made, its paths have one folder more or one folder less.
        if not path.is_absolute():
            for folder in sorted(self.unpacked.iterdir()):
                if folder.is_dir():
                    yield folder / path
            if len(path.parts) > 1:
                yield self.unpacked.joinpath(*path.parts[1:])
        yield self.checkout / path


def disk_is_full(error: OSError) -> bool:
    return error.errno in (errno.ENOSPC, errno.EDQUOT)
