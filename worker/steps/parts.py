"""The files inside an archive: their paths, digests, sizes and lines. Nothing is written to the disk."""

import hashlib
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from app.registry.inputs import Part

# The limits of the training, which refuses an archive beyond them. Text of tables shrinks to a tenth or so.
# An archive that claims to shrink more than this was made to fill disks.
MOST_PARTS = 100_000
MOST_GROWTH = 200
_ALWAYS_ALLOWED = 64 << 20

_BLOCK = 1 << 20
_TABLES = (".csv", ".tsv", ".txt")
# Far below what an index can hold.
_LONGEST_PATH_BYTES = 800
_UTF8_FLAG = 0x800


class UnknownParts(Exception):
    """The files in the archive cannot be told. The text says why."""


def parts_of(archive: Path, check: Callable[[], object]) -> list[Part]:
    """Every file in a zip, sorted by its path. Raises UnknownParts, and what `check` raises between blocks.

    It reads one block after the other, and of each file only as many bytes as the archive's directory claims.
    """
    try:
        with zipfile.ZipFile(archive) as content:
            members = _members(archive, content)
            return [_part(content, path, members[path], check) for path in sorted(members)]
    # What zipfile raises for archives that are broken, encrypted, or packed in a way that it does not know.
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as exc:
        message = f"The archive cannot be read as a zip: {exc}"
        raise UnknownParts(message) from exc


def _members(archive: Path, content: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    members = [member for member in content.infolist() if not member.is_dir()]
    if len(members) > MOST_PARTS:
        message = f"The archive has {len(members):,} files, and at most {MOST_PARTS:,} are recorded."
        raise UnknownParts(message)
    size, grown = archive.stat().st_size, sum(member.file_size for member in members)
    if grown > max(_ALWAYS_ALLOWED, MOST_GROWTH * size):
        message = f"The archive has {size:,} bytes and claims to hold {grown:,}, so it was not unpacked."
        raise UnknownParts(message)
    named = {_path(member): member for member in members}
    if len(named) < len(members):
        message = "The archive has several files of the same path."
        raise UnknownParts(message)
    if any(len(path.encode("utf-8", "surrogatepass")) > _LONGEST_PATH_BYTES for path in named):
        message = f"The archive has a path of more than {_LONGEST_PATH_BYTES:,} bytes."
        raise UnknownParts(message)
    return named


def _path(member: zipfile.ZipInfo) -> str:
    """Some programs write names in UTF-8 without saying so. zipfile then reads them as cp437."""
    name = member.filename
    if not member.flag_bits & _UTF8_FLAG:
        try:
            name = name.encode("cp437").decode("utf-8")
        except UnicodeError:
            name = member.filename
    return name.replace("\\", "/")


def _part(content: zipfile.ZipFile, path: str, member: zipfile.ZipInfo, check: Callable[[], object]) -> Part:
    digest, size, lines, last = hashlib.sha256(), 0, 0, b"\n"
    with content.open(member) as file:
        while block := file.read(_BLOCK):
            check()
            digest.update(block)
            size += len(block)
            lines += block.count(b"\n")
            last = block[-1:]
    # The last line need not end with a line feed.
    lines += last != b"\n"
    is_table = PurePosixPath(path).suffix.lower() in _TABLES
    return Part(path, digest.hexdigest(), size, lines if is_table else None)
