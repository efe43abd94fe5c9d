"""Reads one source of the configuration into rows that have not been cleaned yet."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import polars as pl

from training.config import SourceConfig
from training.errors import FailureCode, TrainingError
from training.lookup import Lookup
from training.sources.commodities import read_commodities
from training.sources.notes import Note
from training.sources.references import read_references
from training.sources.rows import BrokenRow, Layout, Rows, read_table
from training.storable import LONGEST_MESSAGE, one_line

SCHEMA: Final = {"file": pl.String, "line": pl.Int64, "code": pl.String, "description": pl.String}


@dataclass(frozen=True)
class SourceRows:
    """The rows of a source (file, line, code, description) as they came, its broken rows, and notes.

    Broken rows and notes come with the name of their file. `files` are all of them, also those without rows.
    """

    source: SourceConfig
    frame: pl.DataFrame
    broken: tuple[tuple[str, BrokenRow], ...]
    notes: tuple[tuple[str, Note], ...] = ()
    files: tuple[str, ...] = ()

    def of_file(self, name: str) -> "SourceRows":
        return SourceRows(
            self.source,
            self.frame.filter(pl.col("file") == name),
            tuple(broken for broken in self.broken if broken[0] == name),
            tuple(note for note in self.notes if note[0] == name),
            (name,),
        )


def read_source(source: SourceConfig, files: Sequence[Path], limit: int | None = None) -> SourceRows:
    """Read the first `limit` rows, or all rows. Files are read in the order of their names."""
    parts: list[pl.DataFrame] = [pl.DataFrame(schema=SCHEMA)]
    broken: list[tuple[str, BrokenRow]] = []
    notes: list[tuple[str, Note]] = []
    named = _named(files)
    for path, name in named:
        code_column: int | None = 0
        description_column = 1
        match source.kind:
            case "csv":
                found = _table(source, path)
                code_column, description_column = source.code_column, source.description_column
            case "search_references":
                found = read_references(path)
            case "commodities_report":
                found = read_commodities(path, source.encoding, source.delimiter)
        parts.append(_frame(source, name, found, code_column, description_column))
        broken += ((name, row) for row in found.broken)
        notes += ((name, note) for note in found.notes)
    frame = pl.concat(parts)
    if limit is not None:
        frame = frame.head(limit)
    return SourceRows(source, frame, tuple(broken), tuple(notes), tuple(name for _, name in named))


def files_of(source: SourceConfig, lookup: Lookup) -> list[Path]:
    """The file of a source, or every table in its folder and sub-folders. Raises `missing_source`."""
    what = f"source {source.name}"
    if source.file is not None:
        return [lookup.find_file(source.file, what=what)]
    if source.folder is not None:
        files = lookup.find_tables(source.folder, what=what)
        if not files:
            raise TrainingError(
                FailureCode.MISSING_SOURCE,
                f"{what}: the folder {source.folder} has no *.csv, *.csv.gz or *.xlsx file. Add one, or "
                "remove the source.",
            )
        return files
    raise AssertionError(f"source {source.name} has a URL, so a snapshot is read instead")


def _named(files: Sequence[Path]) -> list[tuple[Path, str]]:
    """Each file with its path within the folder that contains all of them, sorted by it."""
    if not files:
        return []
    root = os.path.commonpath([path.parent for path in files])
    # Names of files may have characters that no report can hold.
    named = [(path, one_line(path.relative_to(root).as_posix(), LONGEST_MESSAGE)) for path in files]
    return sorted(named, key=lambda one: one[1])


def _table(source: SourceConfig, path: Path) -> Rows:
    return read_table(
        path,
        source.encoding,
        Layout(
            columns=1 + max(source.description_column, source.code_column or 0),
            header=source.header,
            code_column=source.code_column,
            description_column=source.description_column,
            delimiter=source.delimiter,
        ),
    )


def _frame(
    source: SourceConfig, name: str, found: Rows, code_column: int | None, description_column: int
) -> pl.DataFrame:
    # By columns, because polars takes rows of Python objects much more slowly.
    columns = {
        "line": [line for line, _ in found.rows],
        "code": [source.code or "" if code_column is None else row[code_column] for _, row in found.rows],
        "description": [row[description_column] for _, row in found.rows],
    }
    schema = {column: SCHEMA[column] for column in columns}
    return pl.DataFrame(columns, schema=schema).select(pl.lit(name).alias("file"), *columns)
