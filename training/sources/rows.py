"""Reads CSV files and lists of lines. Broken rows are counted and left out; unreadable files are errors."""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from training.errors import FailureCode, TrainingError

Header = Literal["auto", "yes", "no"]

# The first cell of a header, for files in which no code column tells the header from a row.
_HEADERS = frozenset({"description", "descriptions", "goods description", "gdsdesc", "term", "terms"})
_MEBIBYTES_OF_A_CELL = 4


@dataclass(frozen=True)
class BrokenRow:
    """A row that could not be used. Its line counts from 1."""

    line: int
    why: str


@dataclass
class Rows:
    """Complete rows with the lines in which they start (counted from 1), and broken rows."""

    rows: list[tuple[int, list[str]]] = field(default_factory=list)
    broken: list[BrokenRow] = field(default_factory=list)


def read_text(path: Path, encoding: str) -> str:
    """The text of a file, without a byte order mark. Raises `unreadable_source`."""
    content = path.read_bytes()
    try:
        return content.decode("utf-8-sig" if encoding == "utf-8" else encoding)
    except UnicodeDecodeError as exc:
        line = content.count(b"\n", 0, exc.start) + 1
        raise TrainingError(
            FailureCode.UNREADABLE_SOURCE,
            f"{path.name}, line {line}: the file is not {encoding} (byte {content[exc.start]:#04x} at "
            f"position {exc.start}). Save it as UTF-8, or set the source's encoding to latin-1 or cp1252.",
        ) from exc


def read_lines(path: Path) -> list[str]:
    """The lines that are not blank, unchanged: in lists of terms, leading spaces have a meaning."""
    return [line for line in read_text(path, "utf-8").replace("\r\n", "\n").split("\n") if line.strip()]


def read_csv(path: Path, encoding: str, *, columns: int, header: Header, code_column: int | None) -> Rows:
    """Rows with at least `columns` cells. Raises `unreadable_source` if there are rows and all are broken."""
    found = Rows()
    for line, row in _records(read_text(path, encoding), found.broken):
        if not any(cell.strip() for cell in row):
            continue
        if len(row) < columns:
            found.broken.append(BrokenRow(line, f"it has {len(row)} columns, but {columns} are needed"))
        else:
            found.rows.append((line, row))
    if found.broken and not found.rows:
        first = found.broken[0]
        raise TrainingError(
            FailureCode.UNREADABLE_SOURCE,
            f"{path.name}: no row is complete. Line {first.line}: {first.why}. "
            "Check the columns of the source.",
        )
    if found.rows and (header == "yes" or (header == "auto" and _is_header(found.rows[0][1], code_column))):
        del found.rows[0]
    found.broken.sort(key=lambda row: row.line)
    return found


def _is_header(row: Sequence[str], code_column: int | None) -> bool:
    """The code cell of a header does not start with a digit; the code cell of a row does."""
    if code_column is None:
        return row[0].strip().lower() in _HEADERS
    return not row[code_column].strip()[:1].isdigit()


def _records(text: str, broken: list[BrokenRow]) -> Iterator[tuple[int, list[str]]]:
    """The records of a CSV with their first lines. After a broken record, the next line is read."""
    lines = _physical_lines(text)
    start = 0
    csv.field_size_limit(_MEBIBYTES_OF_A_CELL << 20)
    while start < len(lines):
        reader = csv.reader((lines[number] for number in range(start, len(lines))), strict=True)
        before = 0
        try:
            for record in reader:
                yield start + before + 1, record
                before = reader.line_num
            return
        except csv.Error as exc:
            broken.append(BrokenRow(start + before + 1, str(exc)))
            start += before + 1


def _physical_lines(text: str) -> list[str]:
    """Lines as editors count them. str.splitlines would also split at separators inside a description."""
    return list(io.StringIO(text, newline=None))
