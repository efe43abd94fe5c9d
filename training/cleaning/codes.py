"""Cleaners of codes: their form, padding, and the yearly changes of the nomenclature."""

import csv
from functools import cache
from importlib import resources
from typing import Final

import polars as pl

from training.cleaning.cleaner import CODE, Cleaner

# In the order in which they apply.
CHANGE_TABLES: Final = ("2024-2025", "2025-2026")

# A code of 6 digits, where 8 are expected, stands for the whole subheading.
PAD = Cleaner("pad", code=pl.when(CODE.str.contains(r"^[0-9]{6}$")).then(CODE + "00").otherwise(CODE))


def code_shape(digits: int) -> Cleaner:
    """Drop rows whose code, cut to `digits` characters, does not consist of exactly that many digits."""
    return Cleaner(
        "code_shape",
        reason=pl.when(~CODE.str.slice(0, digits).str.contains(rf"^[0-9]{{{digits}}}$")).then(
            pl.lit(f"code has no {digits} digits")
        ),
    )


def cut(digits: int) -> Cleaner:
    """Cut codes to `digits`. This comes last, because code changes and incorrect pairs need all 8 digits."""
    return Cleaner("cut", code=CODE.str.slice(0, digits))


@cache
def code_changes() -> Cleaner:
    """Replace old 8-digit codes by new ones, year after year. What follows the eighth digit is kept."""
    changed = CODE.str.slice(0, 8)
    for table in CHANGE_TABLES:
        changes = read_changes(table)
        changed = changed.replace(list(changes), list(changes.values()))
    return Cleaner("code_changes", code=changed + CODE.str.slice(8))


def read_changes(table: str) -> dict[str, str]:
    """Old → new, 8 digits each, from `code_changes/<table>.csv`."""
    text = resources.files("training.cleaning").joinpath("code_changes", f"{table}.csv").read_text("utf-8")
    return {row["old"]: row["new"] for row in csv.DictReader(text.splitlines())}
