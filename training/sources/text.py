"""Reads the text of a file in whatever encoding it really has. What is not text is refused."""

import gzip
import io
import re
import zlib
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE, BOM_UTF32_BE, BOM_UTF32_LE
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from training.contents import api_error, stand_in
from training.errors import FailureCode, TrainingError
from training.sources.notes import Note, NoteKind

MOST_BYTES: Final = 8 << 30
"""How large a compressed file may be when it is unpacked."""

# UTF-32 first, because its mark begins with that of UTF-16.
_MARKS: Final = (
    (BOM_UTF32_LE, "utf-32-le"),
    (BOM_UTF32_BE, "utf-32-be"),
    (BOM_UTF16_LE, "utf-16-le"),
    (BOM_UTF16_BE, "utf-16-be"),
)
_GZIP: Final = b"\x1f\x8b"
_CONTROLS: Final = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")
# cp1252 has printable characters here, and latin-1 has controls that nobody writes.
_ONLY_CP1252: Final = re.compile(rb"[\x80-\x9f]")
_UTF16_SHARE: Final = 0.4
_CONTROLS_SHARE: Final = 0.01
# So many may be in a small file by accident.
_FEW_CONTROLS: Final = 4
_SAMPLE: Final = 1 << 16


@dataclass(frozen=True)
class Text:
    """The text, without a byte order mark, and what had to be guessed to read it."""

    text: str
    notes: tuple[Note, ...] = ()


def unreadable(path: Path, problem: str, line: int | None = None) -> TrainingError:
    where = path.name if line is None else f"{path.name}, line {line}"
    return TrainingError(FailureCode.UNREADABLE_SOURCE, f"{where}: {problem}")


def read_bytes(path: Path) -> bytes:
    """The content of a file; that of a gzip file is unpacked. Raises `unreadable_source`."""
    content = path.read_bytes()
    if not content.startswith(_GZIP):
        return content
    try:
        with gzip.open(io.BytesIO(content)) as unpacked:
            content = unpacked.read(MOST_BYTES + 1)
    except (OSError, EOFError, zlib.error) as exc:
        raise unreadable(path, f"the gzip file is damaged ({exc}). Copy or make it again.") from exc
    if len(content) > MOST_BYTES:
        raise unreadable(path, f"the file has more than {MOST_BYTES:,} bytes when unpacked. Split it.")
    return content


def read_text(path: Path, encoding: str) -> str:
    return decode(path, read_bytes(path), encoding).text


def decode(path: Path, content: bytes, encoding: str) -> Text:
    """Try a byte order mark and UTF-8 first, then the given encoding line by line.

    Raises `unreadable_source` for what is not text, and for lines that are in none of these encodings.
    """
    if instead := stand_in(content) or api_error(content):
        raise unreadable(path, f"the file {instead}")
    for mark, marked in _MARKS:
        if content.startswith(mark):
            try:
                return Text(content.removeprefix(mark).decode(marked))
            except UnicodeDecodeError as exc:
                problem = f"the file is cut off or is not {marked.upper()}. Save it as UTF-8."
                raise unreadable(path, problem) from exc
    content = content.removeprefix(BOM_UTF8)
    if wide := _utf16(content):
        note = Note(NoteKind.GUESSED, f"the file has no byte order mark and was read as {wide.upper()}")
        return Text(content.decode(wide, "replace"), (note,))
    start = content[:_SAMPLE]
    if b"\x00" in content or len(_CONTROLS.findall(start)) > max(_FEW_CONTROLS, _CONTROLS_SHARE * len(start)):
        position = max(content.find(b"\x00"), 0)
        problem = "the file is binary, not text. Save it as CSV in UTF-8."
        raise unreadable(path, problem, content.count(b"\n", 0, position) + 1)
    try:
        return Text(content.decode("utf-8"))
    except UnicodeDecodeError as exc:
        return _by_lines(path, content, encoding, exc)


def _by_lines(path: Path, content: bytes, encoding: str, error: UnicodeDecodeError) -> Text:
    """Files that were put together from several sources may have lines in both encodings."""
    if encoding == "utf-8":
        line = content.count(b"\n", 0, error.start) + 1
        raise unreadable(
            path,
            f"the file is not UTF-8 (byte {content[error.start]:#04x} at position {error.start}). Save it as "
            'UTF-8. If it was made by Excel on Windows, you can set encoding = "cp1252" for the source '
            "instead: lines that are not UTF-8 are then read as cp1252.",
            line,
        ) from error
    used = "cp1252" if encoding == "latin-1" and _ONLY_CP1252.search(_not_utf8(content)) else encoding
    lines: list[str] = []
    other = 0
    first: int | None = None
    for number, raw in enumerate(content.splitlines(keepends=True), start=1):
        try:
            lines.append(raw.decode("utf-8"))
        except UnicodeDecodeError:
            other += 1
            first = first or number
            try:
                lines.append(raw.decode(used))
            except UnicodeDecodeError as exc:
                problem = (
                    f"the line is neither UTF-8 nor {used} (byte {raw[exc.start]:#04x}). Save it as UTF-8."
                )
                raise unreadable(path, problem, number) from exc
    return Text("".join(lines), (Note(NoteKind.GUESSED, f"not UTF-8, read as {used}", other, first),))


def _not_utf8(content: bytes) -> bytes:
    """The lines that are not UTF-8, whose bytes say which other encoding they have."""
    return b"\n".join(raw for raw in content.splitlines() if not _is_utf8(raw))


def _is_utf8(content: bytes) -> bool:
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _utf16(content: bytes) -> str | None:
    """UTF-16 without a byte order mark: nearly every second byte of Western text is then zero."""
    start = content[:_SAMPLE]
    if b"\x00" not in start or len(start) < 4 or len(content) % 2:
        return None
    half = len(start) // 2
    even, odd = start[0::2].count(0) / half, start[1::2].count(0) / half
    if odd > _UTF16_SHARE and even == 0:
        return "utf-16-le"
    return "utf-16-be" if even > _UTF16_SHARE and odd == 0 else None
