"""Reads the files of benchmarks as the raw data is read, and finds out in which of them there are codes."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Final

from training.errors import FailureCode, TrainingError
from training.lookup import FORMS, TABLES, passed_over_in, tables_in
from training.sources.codes import looks_like_a_code
from training.sources.rows import HEADER_NOTE, Layout, Record, Rows, read_table
from training.storable import one_line, xml_text

# A code behind another separator than a comma, or behind a comma within quotes.
_HIDDEN_CODE: Final = re.compile(r"([;\t|,])[\s\"']*[0-9][0-9 .]{3,}[\s\"']*")
_LONGEST_CODE: Final = 40
_SEPARATORS: Final = {";": "semicolons", "\t": "tabs", "|": "vertical bars", ",": "commas within quotes"}


@dataclass(frozen=True)
class Table:
    """One file. Its rows have a description, then a code if `has_codes`. `file` is its path in the zip."""

    name: str
    file: str
    has_codes: bool
    found: Rows


@dataclass(frozen=True)
class Tables:
    """The files of the benchmarks, and what to do about other files that are with them."""

    tables: tuple[Table, ...] = ()
    passed_over: str | None = None


NO_TABLES: Final = Tables()


def read_tables(folder: Path) -> Tables:
    """Read every table in the folder and its sub-folders, without judging single codes.

    Raises `missing_benchmark` if there is none, and `unreadable_source` for a file without rows, one whose
    columns are not what they should be, and two files that would give benchmarks of one name.
    """
    files = tables_in(folder)
    if not files:
        raise TrainingError(
            FailureCode.MISSING_BENCHMARK,
            f"benchmarking_data.zip has no tables ({FORMS} files). Add one for each benchmark, with the "
            "columns description and code, or with descriptions only if none of them should get an answer.",
        )
    names = [path.relative_to(folder) for path in files]
    return Tables(
        tuple(
            _read_table(path, file, name)
            for path, file, name in zip(files, names, _names(names), strict=True)
        ),
        passed_over_in(folder),
    )


def _names(files: Sequence[PurePath]) -> list[str]:
    """The names of the benchmarks: the names of their files, with their folders where these are needed."""
    stems = [_without_suffix(file.name) for file in files]
    counts = Counter(stems)
    # Names go into JSON and XML, which do not allow all characters.
    names = [
        xml_text(one_line(stem if counts[stem] == 1 else "-".join((*file.parts[:-1], stem))))
        for file, stem in zip(files, stems, strict=True)
    ]
    for name, count in Counter(names).items():
        if count > 1:
            same = [file.as_posix() for file, its in zip(files, names, strict=True) if its == name]
            raise TrainingError(
                FailureCode.UNREADABLE_SOURCE,
                f"{' and '.join(same[:3])} would all be the benchmark {name}. Rename or remove all but one.",
            )
    return names


def _without_suffix(name: str) -> str:
    suffix = next(suffix for suffix in TABLES if name.lower().endswith(suffix))
    return name[: -len(suffix)]


def _read_table(path: Path, file: PurePath, name: str) -> Table:
    if not path.is_file():
        # Reading a pipe would wait for ever.
        raise TrainingError(
            FailureCode.UNREADABLE_SOURCE, f"{file.as_posix()} is not a regular file. Replace it by one."
        )
    alone = read_table(path, "utf-8", Layout(columns=1))
    if not alone.rows:
        header = any(note.what == HEADER_NOTE for note in alone.notes)
        raise TrainingError(
            FailureCode.UNREADABLE_SOURCE,
            f"{file.as_posix()} has {'only a header' if header else 'no rows'}, so nothing can be measured "
            "with it. Add its rows, or remove it from benchmarking_data.zip.",
        )
    has_codes = _has_codes(file, alone.rows)
    # With codes it is read again, because rows, headers and quotes are told apart by them.
    layout = Layout(columns=2, code_column=1, description_column=0)
    found = read_table(path, "utf-8", layout) if has_codes else alone
    return Table(name, file.as_posix(), has_codes, found)


def _has_codes(file: PurePath, rows: Sequence[Record]) -> bool:
    """Whether the descriptions have codes. Raises `unreadable_source` if the file does not make that clear.

    A file whose codes are not found would count as one of descriptions that should get no answer, and every
    right answer as a mistake.
    """
    hidden = [(line, found[1]) for line, row in rows if (found := _hidden_code(row)) is not None]
    if _most(hidden, rows):
        line, separator = hidden[0]
        raise _unreadable(
            file,
            line,
            f"description and code are separated by {_SEPARATORS[separator]}. Save the file with commas "
            "between the columns, and put descriptions that contain a comma in double quotes.",
        )
    second = [(line, row) for line, row in rows if len(row) > 1 and row[1].strip()]
    if not second:
        return False
    coded = [(line, row) for line, row in second if looks_like_a_code(row[1])]
    if _most(coded, rows):
        return True
    swapped = [(line, row) for line, row in second if looks_like_a_code(row[0])]
    if _most(swapped, second):
        raise _unreadable(
            file,
            swapped[0][0],
            f"the code {swapped[0][1][0].strip()!r} is in the first column. Put descriptions into the first "
            "column and codes into the second.",
        )
    if not coded:
        raise _unreadable(
            file,
            second[0][0],
            f"the second column holds {_shown(second[0][1][1])}, which is not a code. Put codes into the "
            "second column. If the comma is part of the description, put the description in double quotes.",
        )
    lines = {line for line, _ in coded}
    without = next(line for line, _ in rows if line not in lines)
    raise _unreadable(
        file,
        without,
        f"it has no code, like most rows, but {len(coded)} of {len(rows)} rows have one. Put descriptions "
        "that should get no answer into a file of their own, with one column.",
    )


def _hidden_code(row: Sequence[str]) -> re.Match[str] | None:
    """A code at the end of the last cell, behind something that separates columns elsewhere."""
    cell = next((cell for cell in reversed(row) if cell.strip()), "")
    start = max(cell.rfind(separator) for separator in _SEPARATORS)
    is_short = len(cell) - start <= _LONGEST_CODE
    return _HIDDEN_CODE.fullmatch(cell, start) if start > 0 and is_short else None


def _most(some: Sequence[object], rows: Sequence[object]) -> bool:
    return 2 * len(some) > len(rows)


def _shown(text: str) -> str:
    text = one_line(text.strip())
    return repr(text if len(text) <= 60 else f"{text[:60]}…")


def _unreadable(file: PurePath, line: int, why: str) -> TrainingError:
    return TrainingError(FailureCode.UNREADABLE_SOURCE, f"{file.as_posix()}, line {line}: {why}")
