"""The cleaning report: what happened to the rows of each source and why, as CSV and as an HTML page."""

import csv
import html
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, get_args

import polars as pl

from training.cleaning.cleaner import SAMPLES
from training.dataset.merge import CleanedSource, Dataset
from training.files import written_whole

Outcome = Literal[
    "refused", "warning", "broken", "dropped", "left out", "ignored", "guessed", "repaired", "overruled",
    "changed", "kept",
]  # fmt: skip
# The report begins with what is wrong: outcomes are shown in this order, and those before `guessed` first.
_RANK: Final = {outcome: rank for rank, outcome in enumerate(get_args(Outcome))}
_WRONG: Final = frozenset(outcome for outcome, rank in _RANK.items() if rank < _RANK["ignored"])

COLUMNS: Final = ("source", "outcome", "reason", "rows", "where", "before", "after")


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
        lines += [] if dataset is None else _of_dataset(source.source.name, dataset)
    order = {name: rank for rank, name in enumerate(dict.fromkeys(line.source for line in lines))}
    return sorted(
        lines,
        key=lambda line: (line.outcome not in _WRONG, order[line.source], _RANK[line.outcome], -line.rows),
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


def _of_dataset(name: str, dataset: Dataset) -> Iterator[Line]:
    unknown = dataset.unknown.filter(pl.col("source") == name)
    if unknown.height:
        pairs = unknown.select("code", "description").head(SAMPLES).iter_rows()
        yield Line(
            name,
            "left out",
            "no source creates this code",
            unknown.height,
            [Sample("", f"{code} {description}") for code, description in pairs],
        )
    conflicts = dataset.conflicts.filter(pl.col("source") == name)
    for winner in conflicts["winner"].unique().sort():
        lost = conflicts.filter(pl.col("winner") == winner)
        samples = [
            Sample("", f"{row['code']} {row['description']}", row["winning_codes"])
            for row in lost.head(SAMPLES).iter_rows(named=True)
        ]
        yield Line(name, "overruled", f"{winner} has other codes", lost.height, samples)


def write_report(folder: Path, lines: Sequence[Line], title: str) -> list[Path]:
    """Write `cleaning_report.csv`, with one line for each sample, and `cleaning_report.html`."""
    table = io.StringIO(newline="")
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(COLUMNS)
    for line in lines:
        for sample in line.samples or [Sample("", "")]:
            shown = (sample.where, sample.before, sample.after)
            writer.writerow((line.source, line.outcome, line.reason, line.rows, *shown))
    paths = [folder / "cleaning_report.csv", folder / "cleaning_report.html"]
    for path, content in zip(paths, (table.getvalue(), page(lines, title)), strict=True):
        with written_whole(path) as beside:
            beside.write_text(content, "utf-8")
    return paths


_STYLE: Final = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; color: #222 }
table { border-collapse: collapse; width: 100% }
td, th { text-align: left; vertical-align: top; padding: .3rem .6rem; border-bottom: 1px solid #ddd }
td.n { text-align: right; font-variant-numeric: tabular-nums }
.refused, .warning, .broken, .dropped, .left { color: #a40000 } .kept { color: #1b6b1b }
.changed, .guessed, .repaired, .ignored, .overruled { color: #7a5200 }
code { font-size: 13px; overflow-wrap: anywhere } summary { cursor: pointer }
"""


def page(lines: Sequence[Line], title: str) -> str:
    """A single HTML page that loads nothing from elsewhere. What is wrong comes first, samples unfolded."""
    wrong = [line for line in lines if line.outcome in _WRONG]
    return "\n".join(
        [
            f"<!doctype html><html lang=en><meta charset=utf-8><title>{html.escape(title)}</title>",
            f"<style>{_STYLE}</style><h1>{html.escape(title)}</h1>",
            "<h2>What is wrong</h2>",
            *(_tables(wrong, opened=True) if wrong else ["<p>Nothing was found.</p>"]),
            "<h2>What was guessed, repaired, changed and kept</h2>",
            *_tables([line for line in lines if line.outcome not in _WRONG], opened=False),
            "",
        ]
    )


def _tables(lines: Sequence[Line], *, opened: bool) -> Iterator[str]:
    """One table for each source."""
    for name in dict.fromkeys(line.source for line in lines):
        yield f"<h3>{html.escape(name)}</h3><table><tr><th>outcome<th>reason<th>rows<th>samples"
        for line in (line for line in lines if line.source == name):
            yield (
                f'<tr><td class="{line.outcome}">{line.outcome}<td>{html.escape(line.reason)}'
                f"<td class=n>{f'{line.rows:,}' if line.rows else ''}<td>{_samples(line, opened=opened)}"
            )
        yield "</table>"


def _samples(line: Line, *, opened: bool) -> str:
    if not line.samples:
        return ""
    shown = "<br>".join(_shown(sample) for sample in line.samples)
    summary = f"<summary>{len(line.samples)} of {line.rows:,}</summary>"
    return f"<details{' open' if opened else ''}>{summary}{shown}</details>"


def _shown(sample: Sample) -> str:
    arrow = " → " if sample.before and sample.after else ""
    where = f" <small>{html.escape(sample.where)}</small>" if sample.where else ""
    return f"<code>{html.escape(sample.before)}{arrow}{html.escape(sample.after)}</code>{where}"
