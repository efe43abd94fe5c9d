"""Reads the commodities report, in which each row names the rows above it in the hierarchy."""

from pathlib import Path
from typing import Final

from training.sources.codes import looks_like_a_code
from training.sources.rows import Delimiter, Layout, Rows, read_table

# The columns of the report. A header that has these names takes precedence over the positions.
_COLUMNS: Final = {"commodity code": 1, "description": 3, "class": 8, "itemidpluspls": 9, "hierarchy": 10}


def read_commodities(path: Path, encoding: str, delimiter: Delimiter) -> Rows:
    """Code and description of each commodity: the descriptions of its ancestors followed by its own.

    `hierarchy` holds the `ITEMIDPLUSPLS` of the ancestors, from the chapter down.
    """
    found = read_table(path, encoding, Layout(1 + max(_COLUMNS.values()), header="no", delimiter=delimiter))
    columns = dict(_COLUMNS)
    if found.rows:
        first = found.rows[0][1]
        names = {"".join(name.strip().lower().split("_")): index for index, name in enumerate(first)}
        columns = {name: names.get(name, index) for name, index in _COLUMNS.items()}
        # A file without a header begins with a row that must not be lost.
        if _COLUMNS.keys() & names.keys() or not looks_like_a_code(first[columns["commodity code"]]):
            del found.rows[0]
    descriptions = {
        row[columns["itemidpluspls"]].strip(): row[columns["description"]] for _, row in found.rows
    }
    commodities = []
    for line, row in found.rows:
        if row[columns["class"]].strip().lower() != "commodity":
            continue
        own = row[columns["itemidpluspls"]].strip()
        above = [
            descriptions[item]
            for item in row[columns["hierarchy"]].split()
            if item in descriptions and item != own
        ]
        description = " ".join([*above, row[columns["description"]]])
        commodities.append((line, [row[columns["commodity code"]], description]))
    return Rows(commodities, found.broken, found.notes)
