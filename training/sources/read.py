"""Reads one source of the configuration into rows that have not been cleaned yet."""

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import polars as pl

from training.config import SourceConfig
from training.errors import FailureCode, TrainingError
from training.files import Lookup
from training.sources.rows import BrokenRow, read_csv, read_text

SCHEMA: Final = {"file": pl.String, "line": pl.Int64, "code": pl.String, "description": pl.String}

# References to chapters and headings are left out, because they stand for too many codes.
_REFERENCED: Final = frozenset({"Commodity", "Subheading"})


@dataclass(frozen=True)
class SourceRows:
    """The rows of a source (file, line, code without spaces, description), and its broken rows."""

    source: SourceConfig
    frame: pl.DataFrame
    broken: tuple[tuple[str, BrokenRow], ...]


def read_source(source: SourceConfig, files: list[Path], limit: int | None = None) -> SourceRows:
    """Read the first `limit` rows, or all rows. Files are read in the order of their names."""
    parts: list[tuple[str, int, str, str]] = []
    broken: list[tuple[str, BrokenRow]] = []
    for path in sorted(files, key=lambda path: path.name):
        match source.kind:
            case "csv":
                rows = _csv_rows(source, path, broken)
            case "search_references":
                rows = _search_references(path)
            case "commodities_report":
                rows = _commodities(source, path, broken)
        parts += ((path.name, line, code, description) for line, code, description in rows)
    frame = pl.DataFrame(parts, schema=SCHEMA, orient="row")
    if limit is not None:
        frame = frame.head(limit)
    frame = frame.with_columns(pl.col("code").str.replace_all(r"\s+", ""))
    return SourceRows(source, frame, tuple(broken))


def files_of(source: SourceConfig, lookup: Lookup) -> list[Path]:
    """The file of a source, or every `*.csv` of its folder. Raises `missing_source`."""
    what = f"source {source.name}"
    if source.file is not None:
        return [lookup.find_file(source.file, what=what)]
    if source.folder is not None:
        files = lookup.find_csv_files(source.folder, what=what)
        if not files:
            raise TrainingError(
                FailureCode.MISSING_SOURCE,
                f"{what}: the folder {source.folder} has no *.csv file. Add one, or remove the source.",
            )
        return files
    raise AssertionError(f"source {source.name} has a URL, so a snapshot is read instead")


def _csv_rows(
    source: SourceConfig, path: Path, broken: list[tuple[str, BrokenRow]]
) -> Iterator[tuple[int, str, str]]:
    columns = 1 + max(source.description_column, source.code_column or 0)
    found = read_csv(
        path, source.encoding, columns=columns, header=source.header, code_column=source.code_column
    )
    broken += ((path.name, row) for row in found.broken)
    for line, row in found.rows:
        code = source.code if source.code_column is None else row[source.code_column]
        yield line, code or "", row[source.description_column]


def _search_references(path: Path) -> Iterator[tuple[int, str, str]]:
    """Reads `{description: code}`, or the answer of the API: `{"data": [{"attributes": {…}}]}`."""
    content = _json(path)
    if isinstance(content, dict) and isinstance(content.get("data"), list):
        pairs = [
            (str(attributes.get("goods_nomenclature_item_id")), str(attributes.get("negated_title")))
            for attributes in (item.get("attributes", {}) for item in content["data"])
            if attributes.get("referenced_class") in _REFERENCED
        ]
    elif isinstance(content, dict) and all(isinstance(code, str) for code in content.values()):
        pairs = [(code, description) for description, code in content.items()]
    else:
        raise TrainingError(
            FailureCode.UNREADABLE_SOURCE,
            f'{path.name} is neither of the form {{"description": "code"}} nor of the form '
            '{"data": [{"attributes": …}]}. Export the search references again.',
        )
    for number, (code, description) in enumerate(pairs, start=1):
        yield number, code, description


def _json(path: Path) -> Any:
    try:
        return json.loads(read_text(path, "utf-8"))
    except json.JSONDecodeError as exc:
        raise TrainingError(
            FailureCode.UNREADABLE_SOURCE,
            f"{path.name}, line {exc.lineno}: this is not valid JSON ({exc.msg}). Export the file again.",
        ) from exc


# The columns of the report. A header that has these names takes precedence over the positions.
_COMMODITY_COLUMNS: Final = {
    "commodity code": 1,
    "description": 3,
    "class": 8,
    "itemidpluspls": 9,
    "hierarchy": 10,
}


def _commodities(
    source: SourceConfig, path: Path, broken: list[tuple[str, BrokenRow]]
) -> Iterator[tuple[int, str, str]]:
    """Commodities, each described by the descriptions of its ancestors followed by its own.

    `hierarchy` holds the `ITEMIDPLUSPLS` of the ancestors, from the chapter down.
    """
    columns = _columns_of_report(path, source.encoding)
    found = read_csv(path, source.encoding, columns=1 + max(columns.values()), header="yes", code_column=None)
    broken += ((path.name, row) for row in found.broken)
    descriptions = {
        row[columns["itemidpluspls"]].strip(): row[columns["description"]] for _, row in found.rows
    }
    for line, row in found.rows:
        if row[columns["class"]].strip().lower() != "commodity":
            continue
        own = row[columns["itemidpluspls"]].strip()
        above = [
            descriptions[item]
            for item in row[columns["hierarchy"]].split()
            if item in descriptions and item != own
        ]
        yield line, row[columns["commodity code"]], " ".join([*above, row[columns["description"]]])


def _columns_of_report(path: Path, encoding: str) -> dict[str, int]:
    first = next(csv.reader(read_text(path, encoding).splitlines()[:1]), [])
    names = {"".join(name.lower().split("_")): index for index, name in enumerate(map(str.strip, first))}
    return {name: names.get(name, index) for name, index in _COMMODITY_COLUMNS.items()}
