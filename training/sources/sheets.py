"""Reads the first sheet of an Excel workbook as rows of text."""

import io
import zipfile
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from training.sources.notes import Note, NoteKind
from training.sources.text import unreadable

if TYPE_CHECKING:
    from python_calamine import CalamineSheet

_ZIP: Final = b"PK\x03\x04"
# The container of .xls files and of workbooks with a password.
_OLE: Final = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
# A sheet of Excel has about a million rows of 16,384 cells; a million long cells take less than this.
_MOST_BYTES: Final = 2 << 30

Cell = int | float | str | bool | time | date | datetime | timedelta


def is_workbook(content: bytes) -> bool:
    return content.startswith((_ZIP, _OLE))


def read_sheet(path: Path, content: bytes) -> tuple[list[list[str]], list[Note]]:
    """The rows of the only sheet with content, or of the first of several, with notes on the others.

    A number loses the decimals that Excel does not show. The row with index i is row i + 1 of the sheet.
    Raises `unreadable_source`.
    """
    # Imported here, because few sources are workbooks.
    from python_calamine import CalamineError, CalamineWorkbook  # noqa: PLC0415

    _require_workbook(path, content)
    try:
        book = CalamineWorkbook.from_filelike(io.BytesIO(content))
        sheets = [book.get_sheet_by_index(index) for index in range(len(book.sheet_names))]
        filled = [sheet for sheet in sheets if sheet.height]
        if not filled:
            return [], []
        rows = _rows(filled[0])
    except CalamineError as exc:
        raise unreadable(
            path, f"the workbook cannot be read ({exc}). Save it again without a password, or as CSV."
        ) from exc
    others = [
        Note(NoteKind.IGNORED, "only the first sheet of a workbook is read", sheet.height, example=sheet.name)
        for sheet in filled[1:]
    ]
    return rows, others


def _rows(sheet: "CalamineSheet") -> list[list[str]]:
    return [[_text(cell) for cell in row] for row in sheet.to_python(skip_empty_area=False)]


def _require_workbook(path: Path, content: bytes) -> None:
    """A zip that is not a workbook, or that would fill the memory, is refused."""
    if not content.startswith(_ZIP):
        return
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = archive.infolist()
    except zipfile.BadZipFile as exc:
        raise unreadable(path, f"the workbook is damaged ({exc}). Copy or save it again.") from exc
    if not any(member.filename.startswith("xl/") or member.filename == "mimetype" for member in members):
        raise unreadable(path, "the file is a zip, not a table. Unpack it, and add the files in it.")
    if sum(member.file_size for member in members) > _MOST_BYTES:
        raise unreadable(path, f"the workbook has more than {_MOST_BYTES:,} bytes when unpacked. Split it.")


def _text(cell: Cell) -> str:
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return str(cell)
