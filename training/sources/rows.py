"""Reads tables and lists of lines. Broken rows are counted and left out; unreadable files are errors."""

import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from training.contents import is_json
from training.sources.codes import SHORTEST, looks_like_a_code
from training.sources.notes import Note, NoteKind
from training.sources.sheets import is_workbook, read_sheet
from training.sources.text import decode, read_bytes, read_text, unreadable

Header = Literal["auto", "yes", "no"]
Delimiter = Literal[",", ";", "\t", "|"]
Record = tuple[int, list[str]]

HEADER_NOTE: Final = "taken for the header"

# The first cell of a header, for files in which no code column tells the header from a row.
_HEADERS: Final = frozenset(
    {"description", "descriptions", "goods description", "gdsdesc", "term", "terms", "vague term",
     "vague terms", "goods descriptions", "description of goods", "text"}
)  # fmt: skip
_MEBIBYTES_OF_A_CELL: Final = 4
# A description with more line breaks than this has swallowed the rows after an unclosed quote.
_MOST_BREAKS: Final = 5
_DIGITS: Final = re.compile(r"[0-9]")
_SEP: Final = re.compile(r"\ufeff?\"?sep=(.)\"?\s*", re.IGNORECASE)
_SHOWN: Final = 80


@dataclass(frozen=True)
class BrokenRow:
    """A row that could not be used. Its line counts from 1."""

    line: int
    why: str


@dataclass(frozen=True)
class Layout:
    """How the cells of a table are found. Columns are counted from 0; `columns` is how many a row needs."""

    columns: int
    header: Header = "auto"
    code_column: int | None = None
    description_column: int | None = None
    delimiter: Delimiter = ","


@dataclass
class Rows:
    """Complete rows with the lines in which they start (counted from 1), broken rows, and notes."""

    rows: list[Record] = field(default_factory=list)
    broken: list[BrokenRow] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)


def read_lines(path: Path) -> list[str]:
    """The lines that are not blank, unchanged: in lists of terms, leading spaces have a meaning."""
    text = read_text(path, "utf-8")
    if is_json(text):
        raise unreadable(path, "the file is JSON, not a list with one term on each line. Save it as such.")
    return [line for line in text.replace("\r\n", "\n").split("\n") if line.strip()]


def read_csv(path: Path, encoding: str, *, columns: int, header: Header, code_column: int | None) -> Rows:
    """Rows with at least `columns` cells, separated by commas."""
    return read_table(path, encoding, Layout(columns, header, code_column))


def read_table(path: Path, encoding: str, layout: Layout) -> Rows:
    """The rows of a CSV file or a workbook, which may be compressed with gzip.

    Raises `unreadable_source` if there are rows and all are broken.
    """
    found = Rows()
    complete = [
        (line, row)
        for line, row in _records(path, encoding, layout, found)
        if any(cell.strip() for cell in row)
    ]
    for line, row in complete:
        if len(row) < layout.columns:
            why = f"it has {len(row)} columns, but {layout.columns} are needed"
            found.broken.append(BrokenRow(line, why))
        else:
            found.rows.append((line, row))
    found.broken.sort(key=lambda row: row.line)
    if found.broken and not found.rows:
        raise unreadable(path, _why_all_are_broken(complete, found, layout))
    first = _take_header(found, layout)
    _join_split_descriptions(found, layout, first)
    return found


def _records(path: Path, encoding: str, layout: Layout, found: Rows) -> Iterator[Record]:
    content = read_bytes(path)
    if is_workbook(content):
        rows, notes = read_sheet(path, content)
        what = "a workbook was read as what it is, although its name does not end in .xlsx"
        if path.suffix.lower() not in {".xlsx", ".xls", ".xlsm", ".xlsb", ".ods"}:
            notes.append(Note(NoteKind.GUESSED, what, len(rows)))
        found.notes += notes
        yield from enumerate(rows, start=1)
        return
    decoded = decode(path, content, encoding)
    if is_json(decoded.text):
        raise unreadable(path, "the file is JSON, not a table. Fetch or save the data as CSV.")
    found.notes += decoded.notes
    lines = _physical_lines(decoded.text)
    start, delimiter = 0, str(layout.delimiter)
    if lines and (sep := _SEP.fullmatch(lines[0])):
        # What Excel writes to tell other copies of Excel the separator.
        start, delimiter = 1, sep[1]
        found.notes.append(Note(NoteKind.GUESSED, f"the first line says that cells end at {delimiter!r}"))
    yield from _csv_records(lines, start, delimiter, layout, found)


def _csv_records(
    lines: Sequence[str], start: int, delimiter: str, layout: Layout, found: Rows
) -> Iterator[Record]:
    """The records of a CSV with their first lines. After a broken record, the next line is read."""
    csv.field_size_limit(_MEBIBYTES_OF_A_CELL << 20)
    while start < len(lines):
        reader = csv.reader(
            (lines[number] for number in range(start, len(lines))), strict=True, delimiter=delimiter
        )
        before = 0
        try:
            for record in reader:
                if reader.line_num > before + 1:
                    inner = lines[start + before + 1 : start + reader.line_num]
                    if _has_swallowed(inner, delimiter, layout):
                        rows = len(inner)
                        why = f"its quote closes only {rows} lines later, so it would swallow these rows"
                        found.broken.append(BrokenRow(start + before + 1, why))
                        note = "rows after a quote that was not closed were read on their own"
                        found.notes.append(Note(NoteKind.REPAIRED, note, rows, start + before + 2))
                        break
                yield start + before + 1, record
                before = reader.line_num
            else:
                return
        except csv.Error as exc:
            found.broken.append(BrokenRow(start + before + 1, str(exc)))
        start += before + 1


def _has_swallowed(inner: Sequence[str], delimiter: str, layout: Layout) -> bool:
    """Whether the further lines of a record are rows of their own: they have a code, or are too many."""
    if len(inner) > _MOST_BREAKS:
        return True
    if layout.code_column is None:
        return False
    for row in csv.reader(inner, delimiter=delimiter):
        if len(row) >= layout.columns and looks_like_a_code(row[layout.code_column]):
            return True
    return False


def _take_header(found: Rows, layout: Layout) -> list[str] | None:
    """Remove the header from the rows and return it. What was taken for it is noted."""
    if not found.rows or layout.header == "no":
        return None
    line, row = found.rows[0]
    if layout.header == "yes":
        if layout.code_column is not None and looks_like_a_code(row[layout.code_column]):
            what = "the header that the configuration promises looks like a row, and was left out"
            found.notes.append(Note(NoteKind.IGNORED, what, 1, line, _shown(row)))
    elif not _is_header(row, layout.code_column):
        return None
    else:
        found.notes.append(Note(NoteKind.GUESSED, HEADER_NOTE, 1, line, _shown(row)))
    del found.rows[0]
    return row


def _is_header(row: Sequence[str], code_column: int | None) -> bool:
    """The code cell of a header is a name, not a code that was mistyped or is missing."""
    if code_column is None:
        return " ".join(row[0].replace("_", " ").lower().split()) in _HEADERS
    cell = row[code_column].strip()
    is_name = len(_DIGITS.findall(cell)) < SHORTEST and any(map(str.isalpha, cell))
    return is_name and not looks_like_a_code(cell)


def _join_split_descriptions(found: Rows, layout: Layout, header: Sequence[str] | None) -> None:
    """Restore descriptions that were split at commas, because their file has no quotes around them.

    This is certain only for the last column of the table, in a row with more cells than the other rows.
    """
    width = len(header or ()) or _usual_width(row for _, row in found.rows)
    last = layout.description_column
    if last is None or last != width - 1:
        return
    joined: list[Record] = []
    for index, (line, row) in enumerate(found.rows):
        if len(row) > width and any(cell.strip() for cell in row[width:]):
            found.rows[index] = (line, [*row[:last], layout.delimiter.join(row[last:])])
            joined.append(found.rows[index])
    if joined:
        note = "a description with a comma but without quotes was joined again"
        found.notes.append(Note(NoteKind.REPAIRED, note, len(joined), joined[0][0], _shown(joined[0][1])))


def _usual_width(rows: Iterable[Sequence[str]]) -> int:
    widths = Counter(map(len, rows))
    # The smaller of two that are equally frequent, so that the answer does not depend on the order of rows.
    return min(widths, key=lambda width: (-widths[width], width), default=0)


def _why_all_are_broken(complete: Sequence[Record], found: Rows, layout: Layout) -> str:
    first = found.broken[0]
    why = f"no row is complete. Line {first.line}: {first.why}."
    row = complete[0][1] if complete else []
    for other in (";", "\t", "|", ","):
        if other != layout.delimiter and len(layout.delimiter.join(row).split(other)) >= layout.columns:
            return (
                f"{why} Its cells seem to end at {other!r}: set delimiter = {toml(other)} for the source, "
                "or save the file with commas."
            )
    return f"{why} Check the columns of the source."


def toml(delimiter: str) -> str:
    """The delimiter as it is written in a configuration."""
    return '"\\t"' if delimiter == "\t" else f'"{delimiter}"'


def _shown(row: Sequence[str]) -> str:
    text = ", ".join(row)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _physical_lines(text: str) -> list[str]:
    """Lines as editors count them. str.splitlines would also split at separators inside a description."""
    return list(io.StringIO(text, newline=None))
