"""Turns the tables of a benchmark zip into benchmarks: descriptions that are measured, with their codes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import polars as pl

from training.cleaning.cleaner import Cleaned, Cleaner, clean
from training.cleaning.codes import Nomenclature, code_changes, code_cleaners, code_shape, cut, repaired
from training.cleaning.text import DROP_EMPTY, DROP_MISSING, LOWER, STRIP, UNICODE, drop_short
from training.config import SearchConfig
from training.errors import FailureCode, TrainingError
from training.evaluation.tables import Table, Tables
from training.progress import Progress
from training.sources.notes import counted
from training.storable import one_line

# Of descriptions with a code. The team's benchmark leaves out the same ones.
SHORTEST_DROPPED: Final = 2

_SCHEMA: Final = {"file": pl.String, "line": pl.Int64, "code": pl.String, "description": pl.String}


@dataclass(frozen=True)
class Benchmark:
    """Descriptions with their codes, cut to the configured digits. codes is None if none should be answered.

    `left_out` counts the rows that are not measured, by reason. `noted` counts those that were repaired,
    guessed or ignored, by what happened to them.
    """

    name: str
    descriptions: list[str]
    codes: list[str] | None
    left_out: dict[str, int]
    noted: dict[str, dict[str, int]] = field(default_factory=dict)
    rows: int = 0

    def to_json(self) -> dict[str, Any]:
        """What `result.json` says about the rows of the benchmark."""
        measured = len(self.descriptions)
        return {"rows": self.rows, "measured": measured, "left_out": self.left_out, **self.noted}

    def __str__(self) -> str:
        parts = [f"{self.rows:,} rows", f"{len(self.descriptions):,} measured"]
        parts += [f"{rows:,} left out ({reason})" for reason, rows in self.left_out.items()]
        for kind, notes in self.noted.items():
            parts += [f"{rows:,} {kind} ({what})" for what, rows in notes.items()]
        return f"benchmark {self.name}: {', '.join(parts)}"


def make_benchmarks(
    files: Tables,
    config: SearchConfig,
    classes: Sequence[str],
    deployed: Sequence[Cleaner],
    progress: Progress,
    limit: int | None = None,
) -> tuple[list[Benchmark], list[str]]:
    """The benchmarks as a model with these classes is measured by them, and warnings.

    Raises `unreadable_source` for one without a row that can be measured.
    """
    nomenclature = _nomenclature(classes)
    benchmarks: list[Benchmark] = []
    warnings: list[str] = []

    def warn(text: str) -> None:
        progress.say(f"warning: {text}")
        warnings.append(text)

    if files.passed_over:
        warn(f"benchmarks: {files.passed_over}")
    for table in files.tables:
        for broken in table.found.broken[:5]:
            progress.say(f"benchmark {table.name}: left out {table.file}, line {broken.line}: {broken.why}")
        benchmarks.append(make_benchmark(table, config.digits, nomenclature, deployed, limit))
        progress.say(str(benchmarks[-1]))
        if warning := _warning_of(benchmarks[-1], classes, config.minimum_usable_share):
            warn(warning)
    return benchmarks, warnings


def _nomenclature(classes: Sequence[str]) -> Nomenclature:
    """The codes that a model knows. With them, it can be certain that a code has lost a digit, and which one.

    The raw data, by whose codes the training data was repaired, is not there when a model is measured.
    """
    return Nomenclature(tuple(sorted(code for code in classes if code.isdigit())))


def make_benchmark(
    table: Table,
    digits: int,
    nomenclature: Nomenclature,
    deployed: Sequence[Cleaner] = (),
    limit: int | None = None,
) -> Benchmark:
    """Choose the rows that are measured. Raises `unreadable_source` if there is none.

    Rows that say nothing about the model are left out and counted: descriptions with several codes or with a
    code that is not one, and descriptions with a code that the deployed service refuses before it asks the
    model (`deployed` are its cleaners). Of descriptions that should get no answer, such a refusal is right,
    so these stay.
    """
    rows = table.found.rows[:limit]
    columns = {
        "line": [line for line, _ in rows],
        "code": [row[1] if table.has_codes else "" for _, row in rows],
        "description": [row[0] for _, row in rows],
    }
    frame = pl.DataFrame(columns, schema={name: _SCHEMA[name] for name in columns})
    cleaned = clean(
        frame.select(pl.lit(one_line(table.file)).alias("file"), *columns),
        _cleaners(digits, nomenclature, deployed) if table.has_codes else [UNICODE, LOWER, STRIP, DROP_EMPTY],
    )
    left_out = dict(cleaned.reasons)
    if table.found.broken:
        left_out["broken row"] = len(table.found.broken)
    kept = cleaned.kept.select("code", "description")
    distinct = kept.unique().sort("description", "code")
    ambiguous = distinct.filter(pl.len().over("description") > 1)
    if ambiguous.height:
        left_out["ambiguous"] = ambiguous["description"].n_unique()
    distinct = distinct.join(ambiguous, on="description", how="anti").sort("description")
    if repeated := kept.height - distinct.height - ambiguous.height:
        left_out["repeated"] = repeated
    if not distinct.height:
        raise TrainingError(FailureCode.UNREADABLE_SOURCE, " ".join(_why_nothing(table, cleaned, left_out)))
    return Benchmark(
        table.name,
        distinct["description"].to_list(),
        distinct["code"].to_list() if table.has_codes else None,
        left_out,
        counted(table.found.notes, repaired(cleaned.changed)),
        frame.height + len(table.found.broken),
    )


def _cleaners(digits: int, nomenclature: Nomenclature, deployed: Sequence[Cleaner]) -> list[Cleaner]:
    return [
        UNICODE,
        DROP_MISSING,
        LOWER,
        STRIP,
        DROP_EMPTY,
        drop_short(SHORTEST_DROPPED),
        *code_cleaners(nomenclature, digits),
        code_shape(digits),
        *deployed,
        # As in training: the model answers with the codes of the current nomenclature.
        code_changes(),
        cut(digits),
    ]


def _why_nothing(table: Table, cleaned: Cleaned, left_out: dict[str, int]) -> Iterator[str]:
    yield f"{table.file} has no row that can be measured. Left out, by reason: {left_out}."
    if cleaned.dropped.height:
        row = cleaned.dropped.row(0, named=True)
        what = f"code {row['code']!r}, description {row['description']!r}" if table.has_codes else "no text"
        yield f"The first is in line {row['line']} ({row['reason']}): {what}."
    yield "Correct its rows, or remove it from benchmarking_data.zip."


def _warning_of(benchmark: Benchmark, classes: Sequence[str], least: float) -> str | None:
    """A warning about a benchmark of which less than the share `least` says something about the model."""
    codes = benchmark.codes or []
    known = {known[: len(code)] for code in codes[:1] for known in classes}
    unknown = sum(code not in known for code in codes)
    usable = len(benchmark.descriptions) - unknown
    if usable >= least * max(1, benchmark.rows):
        return None
    reasons = {**benchmark.left_out}
    reasons |= {"the model has no such class": unknown} if unknown else {}
    listed = ", ".join(f"{reason}: {rows:,}" for reason, rows in sorted(reasons.items()))
    return (
        f"benchmark {benchmark.name}: only {usable:,} of {benchmark.rows:,} rows can be answered rightly "
        f"({listed}). Correct the file, or lower minimum_usable_share if this is right."
    )
