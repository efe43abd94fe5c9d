"""Unpacks zips that others have made: nothing is written outside the folder, and nothing fills the disk."""

import errno
import re
import shutil
import stat
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Final

from training.contents import stand_in
from training.errors import FailureCode, TrainingError
from training.files import disk_is_full, is_leftover

MOST_MEMBERS: Final = 100_000
# Text of tables shrinks to a tenth or so. A larger share than this is a zip made to fill a disk.
MOST_GROWTH: Final = 200
_ALWAYS_ALLOWED: Final = 64 << 20
_CHUNK: Final = 1 << 20
_DRIVE: Final = re.compile(r"[A-Za-z]:([/\\]|$)")
_LONGEST_PART: Final = 255
_UTF8_FLAG: Final = 0x800
_ENCRYPTED_FLAG: Final = 0x1


def unpack(archive: Path, target: Path, *, missing: FailureCode, only: str = "") -> Path:
    """Unpack a zip into `target` and return the folder; a folder is returned as it is.

    With `only`, what is not in the folder of this name in the zip is left out.

    Links, and names that lead outside `target`, are refused: others write to the bucket the zip comes from.
    What systems leave in zips, such as `__MACOSX/`, is not unpacked.
    """
    if archive.is_dir():
        return archive
    if not archive.is_file():
        raise TrainingError(missing, f"{archive} does not exist")
    try:
        with zipfile.ZipFile(archive) as content:
            members = _checked(archive, content)
            if only:
                members = {name: of for name, of in members.items() if name.is_relative_to(only)}
            target.mkdir(parents=True, exist_ok=True)
            _require_space(archive, members.values(), target)
            for name, member in members.items():
                _write(content, member, target / name)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as exc:
        with archive.open("rb") as file:
            instead = stand_in(file.read(4096))
        problem = f"is not a complete zip file ({exc}). Upload it again."
        raise _refused(archive, instead or problem) from exc
    except OSError as exc:
        if disk_is_full(exc) or exc.errno not in {errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ}:
            raise
        raise _refused(archive, f"has a name that cannot be written ({exc.strerror}). Shorten it.") from exc
    return target


def _refused(archive: Path, problem: str) -> TrainingError:
    return TrainingError(FailureCode.UNREADABLE_SOURCE, f"{archive.name} {problem}")


def _checked(archive: Path, content: zipfile.ZipFile) -> dict[PurePosixPath, zipfile.ZipInfo]:
    """The files to unpack, by their paths. Raises `unreadable_source`, before anything is written."""
    members = [member for member in content.infolist() if not member.is_dir()]
    if len(members) > MOST_MEMBERS:
        problem = f"has {len(members):,} files, but at most {MOST_MEMBERS:,} are allowed. Put them together."
        raise _refused(archive, problem)
    size = archive.stat().st_size
    grown = sum(member.file_size for member in members)
    if grown > max(_ALWAYS_ALLOWED, MOST_GROWTH * size) or sum(m.compress_size for m in members) > size:
        raise _refused(
            archive,
            f"has {size:,} bytes and claims to hold {grown:,}, which no real data does. Make the zip again.",
        )
    named: dict[PurePosixPath, zipfile.ZipInfo] = {}
    for member in members:
        name = PurePosixPath(_name(member).replace("\\", "/"))
        if is_leftover(name):
            continue
        _require_safe(archive, member, name)
        if name in named:
            raise _refused(archive, f"contains {str(name)!r} twice. Make the zip again.")
        named[name] = member
    for name in named:
        if folder := next((parent for parent in name.parents if parent in named), None):
            raise _refused(
                archive, f"contains {str(folder)!r} as a file and as a folder. Make the zip again."
            )
    return named


def _name(member: zipfile.ZipInfo) -> str:
    """Some programs write names in UTF-8 without saying so. zipfile then reads them as cp437."""
    if member.flag_bits & _UTF8_FLAG:
        return member.filename
    try:
        return member.filename.encode("cp437").decode("utf-8")
    except UnicodeError:
        return member.filename


def _require_safe(archive: Path, member: zipfile.ZipInfo, name: PurePosixPath) -> None:
    shown = repr(member.filename[:200])
    if name.is_absolute() or ".." in name.parts or _DRIVE.match(str(name)) or not name.parts:
        raise _refused(
            archive,
            f"contains {shown}, which would be unpacked outside its folder. Make the zip again with plain "
            "relative names.",
        )
    if stat.S_IFMT(member.external_attr >> 16) not in {0, stat.S_IFREG}:
        raise _refused(
            archive,
            f"contains {shown}, which is a link or a device and could lead outside its folder. Make the zip "
            "again with plain files.",
        )
    if any(len(part.encode("utf-8", "surrogatepass")) > _LONGEST_PART for part in name.parts):
        raise _refused(archive, f"contains {shown}…, a name of more than {_LONGEST_PART} bytes. Shorten it.")
    if member.flag_bits & _ENCRYPTED_FLAG:
        raise _refused(archive, f"has a password: {shown} is encrypted. Make the zip again without one.")


def _require_space(archive: Path, members: Iterable[zipfile.ZipInfo], target: Path) -> None:
    needed, free = sum(member.file_size for member in members), shutil.disk_usage(target).free
    if needed > free:
        raise TrainingError(
            FailureCode.OUT_OF_DISK,
            f"{archive.name} needs {needed:,} bytes when unpacked, but {target} has only {free:,} left. "
            "Use an instance with a larger disk.",
        )


def _write(content: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with content.open(member) as packed, path.open("wb") as unpacked:
        shutil.copyfileobj(packed, unpacked, _CHUNK)
