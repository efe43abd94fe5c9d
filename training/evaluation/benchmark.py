"""Reads benchmarks: descriptions with known codes, or descriptions that should get no answer."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import polars as pl

from training.cleaning.cleaner import Cleaner, clean
from training.cleaning.codes import Nomenclature, code_changes, code_cleaners, code_shape, cut
from training.cleaning.text import DROP_EMPTY, LOWER, STRIP, drop_short
from training.errors import FailureCode, TrainingError
from training.sources.codes import looks_like_a_code
from training.sources.rows import read_csv
from training.storable import one_line

# Of descriptions with a code. The team's benchmark leaves out the same ones.
SHORTEST_DROPPED: Final = 2

# A code behind another separator than a comma, or behind a comma within quotes.
_HIDDEN_CODE: Final = re.compile(r"([;\t|,])[\s\"']*[0-9][0-9 .]{3,}[\s\"']*")
_LONGEST_CODE: Final = 40
_SEPARATORS: Final = {";": "semicolons", "\t": "tabs", "|": "vertical bars", ",": "commas within quotes"}

Row = tuple[int, list[str]]


@dataclass(frozen=True)
class Benchmark:
    """Descriptions with their codes, cut to the configured digits. codes is None if none should be answered.

    `left_out` counts the rows that are not measured, by reason.
    """

    name: str
    descriptions: list[str]
    codes: list[str] | None
    left_out: dict[str, int]


def read_benchmarks(
    folder: Path, digits: int, deployed: Sequence[Cleaner] = (), limit: int | None = None
) -> list[Benchmark]:
    """Read every CSV in the folder and its subfolders. Raises `missing_benchmark` if there is none.

    `deployed` are the cleaners of the deployed service.
    """
    files = sorted(folder.rglob("*.csv"), key=lambda path: path.relative_to(folder).as_posix())
    if not files:
        raise TrainingError(
            FailureCode.MISSING_BENCHMARK,
            "benchmarking_data.zip has no *.csv file. Add one for each benchmark, with the columns "
            "description and code, or with descriptions only if none of them should get an answer.",
        )
    stems = [path.stem for path in files]
    return [
        read_benchmark(
            path,
            # Names go into JSON and XML, which have no control characters.
            one_line(
                path.stem
                if stems.count(path.stem) == 1
                else "-".join(path.relative_to(folder).with_suffix("").parts)
            ),
            digits,
            deployed,
            limit,
        )
        for path in files
    ]


def read_benchmark(
    path: Path, name: str, digits: int, deployed: Sequence[Cleaner] = (), limit: int | None = None
) -> Benchmark:
    """Read one benchmark. Raises `unreadable_source` if its columns are not what they should be.

    Rows that say nothing about the model are left out and counted: descriptions with several codes or with a
    code that is not one, and descriptions with a code that the deployed service refuses before it asks the
    model. Of descriptions that should get no answer, such a refusal is right, so these stay.
    """
    found = read_csv(path, "utf-8", columns=1, header="auto", code_column=None)
    has_codes = _has_codes(path, found.rows)
    rows = [row for _, row in found.rows if len(row) > 1 or not has_codes]
    broken = len(found.broken) + len(found.rows) - len(rows)
    frame = pl.DataFrame(
        {
            "code": [row[1].strip() if has_codes else "" for row in rows],
            "description": [row[0] for row in rows],
        },
        schema={"code": pl.String, "description": pl.String},
    )
    if limit is not None:
        frame = frame.head(limit)
    cleaners: list[Cleaner] = [LOWER, STRIP, DROP_EMPTY]
    if has_codes:
        cleaners += [
            drop_short(SHORTEST_DROPPED),
            # A code that has lost a zero or was rounded is not guessed here: its row is left out.
            *code_cleaners(Nomenclature(), digits),
            code_shape(digits),
            *deployed,
            # As in training: the model answers with the codes of the current nomenclature.
            code_changes(),
            cut(digits),
        ]
    cleaned = clean(frame, cleaners)
    left_out = dict(cleaned.reasons)
    if broken:
        left_out["broken row"] = broken
    distinct = cleaned.kept.unique().sort("description", "code")
    ambiguous = distinct.filter(pl.len().over("description") > 1)
    if ambiguous.height:
        left_out["ambiguous"] = ambiguous["description"].n_unique()
    distinct = distinct.join(ambiguous, on="description", how="anti").sort("description")
    if repeated := cleaned.kept.height - distinct.height - ambiguous.height:
        left_out["repeated"] = repeated
    if not distinct.height:
        raise TrainingError(
            FailureCode.MISSING_BENCHMARK,
            f"{path.name} has no row that can be measured. Left out, by reason: {left_out}",
        )
    codes = distinct["code"].to_list() if has_codes else None
    return Benchmark(name, distinct["description"].to_list(), codes, left_out)


def _has_codes(path: Path, rows: Sequence[Row]) -> bool:
    """Whether the descriptions have codes. Raises `unreadable_source` if the file does not make that clear.

    A file whose codes are not found would count as one of descriptions that should get no answer, and every
    right answer as a mistake.
    """
    hidden = [(line, found[1]) for line, row in rows if (found := _hidden_code(row)) is not None]
    if _most(hidden, rows):
        line, separator = hidden[0]
        raise _unreadable(
            path,
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
            path,
            swapped[0][0],
            f"the code {swapped[0][1][0].strip()!r} is in the first column. Put descriptions into the first "
            "column and codes into the second.",
        )
    if not coded:
        raise _unreadable(
            path,
            second[0][0],
            f"the second column holds {_shown(second[0][1][1])}, which is not a code. Put codes into the "
            "second column. If the comma is part of the description, put the description in double quotes.",
        )
    lines = {line for line, _ in coded}
    without = next(line for line, _ in rows if line not in lines)
    raise _unreadable(
        path,
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


def _unreadable(path: Path, line: int, why: str) -> TrainingError:
    return TrainingError(FailureCode.UNREADABLE_SOURCE, f"{path.name}, line {line}: {why}")
