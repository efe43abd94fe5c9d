"""The definition of a cleaner, and how several of them run over rows."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

import polars as pl

CODE = pl.col("code")
DESCRIPTION = pl.col("description")

SAMPLES: Final = 5


@dataclass(frozen=True)
class Cleaner:
    """Takes (code, description) and returns both, or a reason to drop the row.

    Each part is an expression over the columns `code` and `description`, so that a million rows are cleaned
    at once. A part that is None changes nothing. `reason` is a text for each row that is dropped, and null
    for each row that is kept. Expressions keep the order and number of rows.
    """

    name: str
    code: pl.Expr | None = None
    description: pl.Expr | None = None
    reason: pl.Expr | None = None
    # True for rows that the cleaner may change or drop. Nothing else is computed for the other rows, so this
    # pays off where it is much cheaper than the other parts and true for few rows.
    concerns: pl.Expr | None = None


@dataclass(frozen=True)
class Change:
    """The code or description of one row, before and after a cleaner. `where` is its file and line."""

    before: str
    after: str
    where: str = ""


@dataclass(frozen=True)
class Cleaned:
    """The result of cleaning some rows.

    `kept` and `dropped` have the columns of the input. `dropped` also has `reason`, and its descriptions and
    codes are the original ones. `changed` counts for each cleaner the rows that it changed, and `samples`
    shows some of them.
    """

    kept: pl.DataFrame
    dropped: pl.DataFrame
    changed: dict[str, int] = field(default_factory=dict)
    samples: dict[str, list[Change]] = field(default_factory=dict)

    @property
    def reasons(self) -> dict[str, int]:
        """How many rows were dropped, by reason."""
        counts = self.dropped.group_by("reason").len().sort("reason")
        return dict(counts.iter_rows())


def clean(rows: pl.DataFrame, cleaners: Sequence[Cleaner]) -> Cleaned:
    """Run the cleaners in order. A row that one of them drops is not seen by the later ones.

    rows has the string columns `code` and `description`; other columns are kept as they are.
    """
    kept = rows.with_columns(_raw_code=CODE, _raw_description=DESCRIPTION)
    place = (
        pl.format("{}:{}", "file", "line") if {"file", "line"} <= set(rows.columns) else pl.lit("")
    ).alias("where")
    dropped: list[pl.DataFrame] = []
    changed: dict[str, int] = {}
    samples: dict[str, list[Change]] = {}
    for cleaner in cleaners:
        if cleaner.reason is not None:
            kept, gone = _judged(kept, cleaner.reason, cleaner.concerns)
            if gone.height:
                dropped.append(gone)
        parts = {"code": cleaner.code, "description": cleaner.description}
        for column, expression in parts.items():
            if expression is None or not kept.height:
                continue
            kept, other = _changed(kept, column, expression, cleaner.concerns)
            if other.height:
                changed[cleaner.name] = changed.get(cleaner.name, 0) + other.height
                samples.setdefault(cleaner.name, []).extend(
                    Change(before, after, where)
                    for before, after, where in other.head(SAMPLES)
                    .select("before", "after", place)
                    .iter_rows()
                )
    return Cleaned(
        kept.select(rows.columns),
        _as_they_came(dropped, rows),
        changed,
        {name: changes[:SAMPLES] for name, changes in samples.items()},
    )


def _concerned(rows: pl.DataFrame, concerns: pl.Expr | None) -> pl.Series | None:
    """The indices of the rows that a cleaner concerns; None for all rows."""
    return None if concerns is None else rows.select(concerns).to_series().arg_true()


def _judged(
    rows: pl.DataFrame, reason: pl.Expr, concerns: pl.Expr | None
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The rows that are kept, and those that are dropped, with the reason."""
    indices = _concerned(rows, concerns)
    if indices is not None and not len(indices):
        return rows, rows.clear()
    judged = (rows if indices is None else rows[indices]).with_columns(reason=reason)
    gone = judged.filter(pl.col("reason").is_not_null())
    if not gone.height:
        return rows, gone
    if indices is None:
        return judged.filter(pl.col("reason").is_null()).drop("reason"), gone
    indices = indices.filter(judged["reason"].is_not_null())
    return rows.filter(~pl.int_range(pl.len()).is_in(indices.implode())), gone


def _changed(
    rows: pl.DataFrame, column: str, expression: pl.Expr, concerns: pl.Expr | None
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """All rows after the change of a column, and those that it changed, with `before` and `after`."""
    indices = _concerned(rows, concerns)
    if indices is not None and not len(indices):
        return rows, rows.clear()
    both = (rows if indices is None else rows[indices]).select(
        pl.exclude("code", "description"), before=column, after=expression
    )
    other = both.filter(pl.col("before") != pl.col("after"))
    if not other.height:
        return rows, other
    after = both["after"] if indices is None else rows[column].scatter(indices, both["after"])
    return rows.with_columns(after.alias(column)), other


def _as_they_came(dropped: Iterable[pl.DataFrame], rows: pl.DataFrame) -> pl.DataFrame:
    empty = rows.clear().with_columns(reason=pl.lit(None, dtype=pl.String))
    parts = [
        frame.with_columns(code=pl.col("_raw_code"), description=pl.col("_raw_description")).select(
            empty.columns
        )
        for frame in dropped
    ]
    return pl.concat([empty, *parts])
