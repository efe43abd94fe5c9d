"""Cleaners of codes: their form, lost zeros, padding, and the yearly changes of the nomenclature."""

import csv
import math
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import resources
from typing import Final

import polars as pl

from training.cleaning.cleaner import CODE, Cleaner
from training.sources.codes import SHORTEST, Printed, printed

# In the order in which they apply.
CHANGE_TABLES: Final = ("2024-2025", "2025-2026")

ODD: Final = "code has an odd number of digits, and it is not certain that a leading zero was lost"
ROUNDED: Final = "code was rounded to a number such as 1.0121E+06, and it is not certain to which code"
# What a lost zero can have been: the chapters 01 to 09 have this many headings.
_HEADINGS: Final = {"1": 6, "2": 10, "3": 9, "4": 10, "5": 11, "6": 4, "7": 14, "8": 14, "9": 10}
# Codes that need no repair: an even number of digits, and a chapter that is not 00.
_SOUND: Final = r"^(?:0[1-9]|[1-9][0-9])(?:[0-9]{2}){0,4}$"

# A code of 6 digits, where 8 are expected, stands for the whole subheading.
PAD = Cleaner("pad", code=pl.when(CODE.str.contains(r"^[0-9]{6}$")).then(CODE + "00").otherwise(CODE))


@dataclass(frozen=True)
class Nomenclature:
    """The codes that are known to exist, sorted. Codes that lost a digit are compared with them."""

    codes: tuple[str, ...] = ()

    def has(self, prefix: str) -> bool:
        index = bisect_left(self.codes, prefix)
        return index < len(self.codes) and self.codes[index].startswith(prefix)

    @cached_property
    def _longest(self) -> int:
        return max(map(len, self.codes), default=8)

    def rounding_to(self, read: Printed) -> list[str]:
        """The longest known codes that have, or stand for, a code of 8 digits that rounds to this number.

        Of a number with more than 8 digits, the first 8 digits' number is compared.
        """
        # A number of more than 8 digits is that of a code of 10 digits.
        scale = 1 if len(str(read.number)) <= 8 else 100
        low, high = ((2 * read.number + side * read.step) / (2 * scale) for side in (-1, 1))
        # Known codes of 6 digits stand for all codes of 8 digits that begin with them.
        unit = 10 ** (8 - self._longest)
        start = bisect_left(self.codes, f"{math.ceil(low) // unit:0{self._longest}}")
        end = bisect_right(self.codes, f"{math.floor(high) // unit:0{self._longest}}")
        return [code for code in self.codes[start:end] if len(code) == self._longest]


def nomenclature_of(codes: Iterable[str]) -> Nomenclature:
    """What the codes of sources that create codes say about the nomenclature.

    If no code begins with a zero and some have an odd length, a spreadsheet has removed the zeros from the
    whole file. A zero is then restored where that gives a heading that exists.
    """
    digits = {read.digits for read in map(printed, codes) if len(read.digits) >= SHORTEST}
    sound = {code[:8] for code in digits if len(code) % 2 == 0}
    if not any(code.startswith("0") for code in digits):
        zeroed = ("0" + code for code in digits if len(code) % 2 == 1)
        sound |= {code[:8] for code in zeroed if 1 <= int(code[2:4]) <= _HEADINGS[code[1]]}
    return Nomenclature(tuple(sorted(sound)))


_REPAIRS: Final = frozenset({"code_form", "leading_zero", "rounded_code"})


def repaired(changed: Mapping[str, int]) -> Counter[str]:
    """How many rows had their code repaired, by cleaner, of the rows that each cleaner changed."""
    return Counter({name: rows for name, rows in changed.items() if name in _REPAIRS})


def code_cleaners(nomenclature: Nomenclature, digits: int) -> list[Cleaner]:
    """Read codes as they were printed, then restore what is certain. Other codes are dropped."""
    return [
        _by_distinct_code("code_form", _form),
        _by_distinct_code("leading_zero", lambda code: _with_zero(code, nomenclature, digits)),
        _by_distinct_code("rounded_code", lambda code: _unrounded(code, nomenclature, digits)),
    ]


# A code, or a reason to drop its rows.
_Repair = Callable[[str], tuple[str, str | None]]


def _by_distinct_code(name: str, repair: _Repair) -> Cleaner:
    """Repair each distinct code once. Codes that are sound, which are nearly all, are not looked at."""
    is_unsound = ~CODE.str.contains(_SOUND)
    unsound = pl.when(is_unsound).then(CODE)
    found: dict[str, tuple[str, str | None]] = {}

    def part(texts: pl.Series, index: int) -> pl.Series:
        distinct = texts.drop_nulls().unique().to_list()
        found.update({text: repair(text) for text in distinct if text not in found})
        values = pl.Series([found[text][index] for text in distinct], dtype=pl.String)
        return texts.replace_strict(
            pl.Series(distinct, dtype=pl.String), values, default=None, return_dtype=pl.String
        )

    repaired = unsound.map_batches(lambda texts: part(texts, 0), return_dtype=pl.String)
    reason = unsound.map_batches(lambda texts: part(texts, 1), return_dtype=pl.String)
    return Cleaner(name, code=pl.coalesce(repaired, CODE), reason=reason, concerns=is_unsound)


def _form(code: str) -> tuple[str, str | None]:
    read = printed(code)
    if read.problem:
        return code, read.problem
    return (read.digits, None) if read.digits else (code, None)


def _with_zero(code: str, nomenclature: Nomenclature, digits: int) -> tuple[str, str | None]:
    """An odd number of digits is a lost zero if the code then exists, and does not exist as it stands."""
    if not code.isdigit() or len(code) % 2 == 0 or len(code) < SHORTEST:
        return code, None
    restored = "0" + code
    if nomenclature.has(restored[:digits]) and not nomenclature.has(code[:digits]):
        return restored, None
    return code, ODD


def _unrounded(code: str, nomenclature: Nomenclature, digits: int) -> tuple[str, str | None]:
    read = printed(code)
    if not read.step:
        return code, None
    fitting = [known for known in nomenclature.rounding_to(read) if len(known) >= digits]
    if len(fitting) == 1:
        return fitting[0], None
    cut_ = {one[:digits] for one in fitting}
    return (cut_.pop(), None) if len(cut_) == 1 else (code, ROUNDED)


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
