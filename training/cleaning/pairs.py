"""Drops pairs of description and code that the team has listed as incorrect."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import polars as pl

from training.cleaning.cleaner import CODE, DESCRIPTION, Cleaner


@dataclass(frozen=True)
class IncorrectPair:
    """A description, the chapter its codes must be in, and a code it must not have; either may be empty."""

    description: str
    chapter: str
    code: str


def with_leading_zero(code: str) -> str:
    """Restore the leading zero that a spreadsheet removed: codes have an even number of digits."""
    return code.zfill(len(code) + len(code) % 2)


def drop_incorrect_pairs(pairs: Iterable[IncorrectPair]) -> Cleaner:
    """Drop incorrect pairs. Codes are compared by 8 digits, or by fewer if one of them has fewer."""
    chapters: dict[str, set[str]] = {}
    codes: dict[str, set[str]] = {}
    for pair in pairs:
        if pair.chapter:
            chapters.setdefault(pair.description, set()).add(pair.chapter)
        if pair.code:
            codes.setdefault(pair.description, set()).add(pair.code)
    known = sorted(chapters.keys() | codes.keys())
    if not known:
        return Cleaner("incorrect_pairs")
    wrong = pl.struct(CODE, DESCRIPTION).map_batches(
        lambda rows: _judge(rows, chapters, codes), return_dtype=pl.Boolean
    )
    return Cleaner("incorrect_pairs", reason=pl.when(wrong).then(pl.lit("known incorrect pair")))


def _judge(rows: pl.Series, chapters: Mapping[str, set[str]], codes: Mapping[str, set[str]]) -> pl.Series:
    frame = rows.struct.unnest()
    known = sorted(chapters.keys() | codes.keys())
    # Few rows are on the list, so only these are examined one by one.
    suspects = frame.with_row_index().filter(DESCRIPTION.is_in(known))
    wrong = [
        index
        for index, code, description in suspects.select("index", "code", "description").iter_rows()
        if any(_same(code, seen) for seen in codes.get(description, ()))
        or (description in chapters and code[:2] not in chapters[description])
    ]
    return pl.int_range(frame.height, eager=True).is_in(wrong)


def _same(code: str, seen: str) -> bool:
    length = min(len(code), len(seen), 8)
    return length >= 6 and code[:length] == seen[:length]
