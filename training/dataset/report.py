"""The cleaning report: what happened to the rows of each source and why."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

import polars as pl

from training.cleaning.cleaner import SAMPLES
from training.dataset.merge import CleanedSource, Dataset

Outcome = Literal[
    "refused", "warning", "broken", "dropped", "left out", "ignored", "guessed", "repaired", "overruled",
    "changed", "kept",
]  # fmt: skip
# The report begins with what is wrong: outcomes are shown in this order, and those before `guessed` first.
_RANK: Final = {outcome: rank for rank, outcome in enumerate(get_args(Outcome))}
WRONG: Final = frozenset(outcome for outcome, rank in _RANK.items() if rank < _RANK["ignored"])


@dataclass(frozen=True)
class Sample:
    """One row: its file and line (if known), and its content before and after cleaning."""

    where: str
    before: str
    after: str = ""


@dataclass(frozen=True)
class Line:
    """Something that happened to `rows` rows of a source, with some of these rows as samples."""

    source: str
    outcome: Outcome
    reason: str
    rows: int
    samples: list[Sample]


@dataclass(frozen=True)
class Problem:
    """Why a source cannot be used, or what a person should look at."""

    source: str
    outcome: Literal["refused", "warning"]
    message: str


def report(
    sources: Sequence[CleanedSource], dataset: Dataset | None, problems: Sequence[Problem] = ()
) -> list[Line]:
    """What happened to the rows, what is wrong first. Without a dataset, nothing is known about classes."""
    lines = [Line(one.source, one.outcome, one.message, 0, []) for one in problems]
    for source in sources:
        lines += _of_source(source)
        lines += [] if dataset is None else _of_dataset(source, dataset)
    # Sources that end a training come first.
    refused = [line.source for line in lines if line.outcome == "refused"]
    names = dict.fromkeys((*refused, *(line.source for line in lines)))
    order = {name: rank for rank, name in enumerate(names)}
    return sorted(
        lines,
        key=lambda line: (line.outcome not in WRONG, order[line.source], _RANK[line.outcome], -line.rows),
    )


def _of_source(source: CleanedSource) -> Iterator[Line]:
    name, cleaned, read = source.source.name, source.cleaned, source.read
    kept = [
        Sample(f"{row['file']}:{row['line']}", "", f"{row['code']} {row['description']}")
        for row in cleaned.kept.head(SAMPLES).iter_rows(named=True)
    ]
    yield Line(name, "kept", "", cleaned.kept.height, kept)
    for cleaner, rows in sorted(cleaned.changed.items()):
        changes = [Sample(change.where, change.before, change.after) for change in cleaned.samples[cleaner]]
        yield Line(name, "repaired" if cleaner in source.repaired else "changed", cleaner, rows, changes)
    for reason, rows in sorted(cleaned.reasons.items()):
        dropped = cleaned.dropped.filter(pl.col("reason") == reason).head(SAMPLES)
        yield Line(
            name,
            "dropped",
            reason,
            rows,
            [
                Sample(f"{row['file']}:{row['line']}", f"{row['code']} {row['description']}")
                for row in dropped.iter_rows(named=True)
            ],
        )
    for kind, what in dict.fromkeys((note.kind, note.what) for _, note in read.notes):
        notes = [(file, note) for file, note in read.notes if (note.kind, note.what) == (kind, what)]
        examples = [
            Sample(file if note.line is None else f"{file}:{note.line}", note.example)
            for file, note in notes[:SAMPLES]
        ]
        yield Line(name, kind.value, what, sum(note.rows for _, note in notes), examples)
    if read.broken:
        broken = [Sample(f"{file}:{row.line}", row.why) for file, row in read.broken[:SAMPLES]]
        yield Line(name, "broken", "incomplete row", len(read.broken), broken)


def _of_dataset(source: CleanedSource, dataset: Dataset) -> Iterator[Line]:
    name, kept = source.source.name, source.cleaned.kept
    unknown = dataset.unknown.filter(pl.col("source") == name)
    if unknown.height:
        samples = [
            Sample(_place(kept, row), f"{row['code']} {row['description']}")
            for row in unknown.head(SAMPLES).iter_rows(named=True)
        ]
        yield Line(name, "left out", "no source creates this code", unknown.height, samples)
    conflicts = dataset.conflicts.filter(pl.col("source") == name)
    for winner in conflicts["winner"].unique().sort():
        lost = conflicts.filter(pl.col("winner") == winner)
        samples = [
            Sample(_place(kept, row), f"{row['code']} {row['description']}", row["winning_codes"])
            for row in lost.head(SAMPLES).iter_rows(named=True)
        ]
        yield Line(name, "overruled", f"{winner} has other codes", lost.height, samples)


def _place(kept: pl.DataFrame, row: Mapping[str, str]) -> str:
    """The first file and line with this code and description."""
    same = kept.filter(pl.col("code") == row["code"], pl.col("description") == row["description"])
    return f"{same['file'][0]}:{same['line'][0]}"
