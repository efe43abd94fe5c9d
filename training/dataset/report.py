"""The cleaning report: what happened to the rows of each source and why, as CSV and as an HTML page."""

import csv
import html
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import polars as pl

from training.cleaning.cleaner import SAMPLES
from training.dataset.merge import CleanedSource, Dataset
from training.files import written_whole

Outcome = Literal["kept", "changed", "dropped", "broken", "left out", "overruled"]

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


def report(sources: Sequence[CleanedSource], dataset: Dataset) -> list[Line]:
    return [line for source in sources for line in _of_source(source, dataset)]


def _of_source(source: CleanedSource, dataset: Dataset) -> Iterator[Line]:
    name, cleaned, read = source.source.name, source.cleaned, source.read
    kept = [
        Sample(f"{row['file']}:{row['line']}", "", f"{row['code']} {row['description']}")
        for row in cleaned.kept.head(SAMPLES).iter_rows(named=True)
    ]
    yield Line(name, "kept", "", cleaned.kept.height, kept)
    for cleaner, rows in sorted(cleaned.changed.items()):
        changes = [Sample("", change.before, change.after) for change in cleaned.samples[cleaner]]
        yield Line(name, "changed", cleaner, rows, changes)
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
    if read.broken:
        broken = [Sample(f"{file}:{row.line}", row.why) for file, row in read.broken[:SAMPLES]]
        yield Line(name, "broken", "incomplete row", len(read.broken), broken)
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
.dropped, .broken { color: #a40000 } .changed, .overruled { color: #7a5200 } .kept { color: #1b6b1b }
code { font-size: 13px; overflow-wrap: anywhere } summary { cursor: pointer }
"""


def page(lines: Sequence[Line], title: str) -> str:
    """A single HTML page that loads nothing from elsewhere. The samples can be unfolded."""
    names = list(dict.fromkeys(line.source for line in lines))
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{html.escape(title)}</title>",
        f"<style>{_STYLE}</style><h1>{html.escape(title)}</h1>",
    ]
    for name in names:
        parts.append(f"<h2>{html.escape(name)}</h2><table><tr><th>outcome<th>reason<th>rows<th>samples")
        for line in (line for line in lines if line.source == name):
            samples = "<br>".join(_shown(sample) for sample in line.samples)
            summary = f"<summary>{len(line.samples)} of {line.rows:,}</summary>"
            parts.append(
                f"<tr><td class={line.outcome.split()[0]}>{line.outcome}<td>{html.escape(line.reason)}"
                f"<td class=n>{line.rows:,}<td><details>{summary}{samples}</details>"
            )
        parts.append("</table>")
    return "\n".join(parts) + "\n"


def _shown(sample: Sample) -> str:
    arrow = " → " if sample.before and sample.after else ""
    where = f" <small>{html.escape(sample.where)}</small>" if sample.where else ""
    return f"<code>{html.escape(sample.before)}{arrow}{html.escape(sample.after)}</code>{where}"
