"""What is wrong with each source: whether its rows can be used, and what the reason is if they cannot."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

import polars as pl

from training.config import VAGUE_CODE
from training.dataset.merge import CleanedSource
from training.sources.codes import looks_like_a_code
from training.sources.notes import counted
from training.sources.rows import HEADER_NOTE, toml

_SAMPLE: Final = 200
_MOST: Final = 0.8
_LISTED: Final = 10


@dataclass(frozen=True)
class Summary:
    """The rows of a source, by what happened to them. `usable` rows were kept and their code is a class.

    `noted` counts what was guessed, repaired and ignored.
    """

    source: str
    rows: int
    broken: int
    usable: int
    unknown: int
    dropped: dict[str, int]
    noted: dict[str, dict[str, int]]

    @property
    def share(self) -> float:
        return self.usable / max(1, self.rows + self.broken)

    def to_json(self) -> dict[str, Any]:
        """What `result.json` says about the source."""
        return {
            "rows": self.rows,
            "usable": self.usable,
            "broken": self.broken,
            "unknown_codes": self.unknown,
            "dropped": self.dropped,
            **self.noted,
        }

    def __str__(self) -> str:
        parts = [f"{self.rows:,} rows", f"{self.usable:,} usable"]
        parts += [f"{self.broken:,} broken"] if self.broken else []
        parts += [f"{self.unknown:,} with codes that no source creates"] if self.unknown else []
        parts += [f"{rows:,} dropped ({reason})" for reason, rows in self.dropped.items()]
        for kind, notes in self.noted.items():
            parts += [f"{rows:,} {kind} ({what})" for what, rows in notes.items()]
        return f"{self.source}: {', '.join(parts)}"


def summary_of(one: CleanedSource, classes: Collection[str] | None = None) -> Summary:
    """Without the classes, every row that was kept counts as usable."""
    kept = one.cleaned.kept
    usable = kept.height if classes is None else kept.filter(pl.col("code").is_in(list(classes))).height
    return Summary(
        one.source.name,
        one.read.frame.height,
        len(one.read.broken),
        usable,
        kept.height - usable,
        one.cleaned.reasons,
        counted((note for _, note in one.read.notes), one.repaired),
    )


def warning_of(summary: Summary, least: float) -> str | None:
    """A warning about a source of which less than the share `least` can be used."""
    if summary.share >= least:
        return None
    reasons = {**summary.dropped}
    reasons |= {"no source creates this code": summary.unknown} if summary.unknown else {}
    reasons |= {"incomplete row": summary.broken} if summary.broken else {}
    listed = ", ".join(f"{reason}: {rows:,}" for reason, rows in _by_count(reasons))
    return (
        f"source {summary.source}: only {summary.usable:,} of {summary.rows + summary.broken:,} rows can be "
        f"used ({listed}). See the cleaning report, or lower minimum_usable_share if this is right."
    )


def why_unusable(one: CleanedSource, summary: Summary) -> str | None:
    """Why a source gives nothing, with file, line and remedy; None if at least one of its rows is usable."""
    if summary.usable:
        return None
    place = one.source.place or "its file"
    why = " ".join(_why(one, summary, place, "the source from search-config.toml"))
    return f"source {one.source.name}: {why}"


def warnings_of_files(one: CleanedSource, classes: Collection[str] | None) -> Iterator[str]:
    """Why files of a folder give nothing, if other files do. Their rows may be a small share."""
    kept = one.cleaned.kept
    usable = kept if classes is None else kept.filter(pl.col("code").is_in(list(classes)))
    useless = sorted(set(one.read.files) - set(usable["file"].unique()))
    if len(useless) == len(one.read.files):
        return
    for name in useless[:_LISTED]:
        of_file = pl.col("file") == name
        cleaned = replace(one.cleaned, kept=kept.filter(of_file), dropped=one.cleaned.dropped.filter(of_file))
        part = CleanedSource(one.source, one.read.of_file(name), cleaned)
        why = " ".join(_why(part, summary_of(part, classes), name, "the file"))
        yield f"source {one.source.name}: {why}"
    if (more := len(useless) - _LISTED) > 0:
        yield f"source {one.source.name}: {more:,} more files have no usable row. See the cleaning report."


def _why(one: CleanedSource, summary: Summary, place: str, what: str) -> Iterator[str]:
    """`what` can be removed if there is nothing in it."""
    if not summary.rows and not summary.broken:
        header = any(note.what == HEADER_NOTE for _, note in one.read.notes)
        yield f"{place} has {'only a header' if header else 'no rows'}, so nothing can be learned from it."
        yield f"Add its rows, or remove {what}."
        return
    yield f"none of the {summary.rows + summary.broken:,} rows of {place} can be used."
    if one.read.broken:
        file, broken = one.read.broken[0]
        yield f"{summary.broken:,} rows are broken, such as {file}, line {broken.line}: {broken.why}."
    for reason, rows in _by_count(summary.dropped)[:3]:
        row = one.cleaned.dropped.filter(pl.col("reason") == reason).row(0, named=True)
        yield (
            f"{rows:,} rows: {reason}, such as {row['file']}, line {row['line']}: code {_cut(row['code'])}, "
            f"description {_cut(row['description'])}."
        )
    if summary.unknown:
        row = one.cleaned.kept.row(0, named=True)
        yield (
            f"{summary.unknown:,} rows have codes that no source creates, such as {_cut(row['code'])} in "
            f"{row['file']}, line {row['line']}."
        )
    yield _remedy(one)


def _remedy(one: CleanedSource) -> str:
    source, rows = one.source, one.read.frame.head(_SAMPLE)
    codes, descriptions = rows["code"].to_list(), rows["description"].to_list()
    if source.code_column is not None and source.code != VAGUE_CODE:
        for delimiter in (";", "\t", "|"):
            if delimiter != source.delimiter and _most(codes, partial(_contains, delimiter)):
                return f"The cells seem to end at {delimiter!r}: set delimiter = {toml(delimiter)}."
        if _most(descriptions, looks_like_a_code):
            return (
                f"The codes seem to be in column {source.description_column}: set code_column and "
                "description_column, which are counted from 0."
            )
    return "Check the file, and the columns of the source in search-config.toml."


def _contains(part: str, text: str) -> bool:
    return part in text


def _most(texts: Sequence[str], holds: Callable[[str], bool]) -> bool:
    return bool(texts) and sum(map(holds, texts)) >= _MOST * len(texts)


def _by_count(reasons: dict[str, int]) -> list[tuple[str, int]]:
    return sorted(reasons.items(), key=lambda one: (-one[1], one[0]))


def _cut(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:60]}…")
