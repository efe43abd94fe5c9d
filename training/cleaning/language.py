"""Drops descriptions in languages other than the preferred ones."""

from dataclasses import asdict, dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Self

import polars as pl

from training.cleaning.cleaner import DESCRIPTION, Cleaner
from training.cleaning.ngrams import answers_by_ngrams

if TYPE_CHECKING:
    from lingua import LanguageDetector

_CHUNK = 20_000


@dataclass(frozen=True)
class LanguageRules:
    """The team's lists of what is kept and dropped, and how certain lingua must be about the rest."""

    preferred: tuple[str, ...]
    detected: tuple[str, ...]
    minimum_relative_distance: float
    exact_keeps: frozenset[str] = frozenset()
    partial_keeps: tuple[str, ...] = ()
    partial_skips: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"exact_keeps": sorted(self.exact_keeps)}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self:
        """Raises KeyError or TypeError if it is not what `to_json` gives."""
        return cls(
            tuple(content["preferred"]),
            tuple(content["detected"]),
            content["minimum_relative_distance"],
            frozenset(content["exact_keeps"]),
            tuple(content["partial_keeps"]),
            tuple(content["partial_skips"]),
        )


def drop_other_languages(rules: LanguageRules) -> Cleaner:
    """Keep what is on the exact list or has a term of the keep list; drop what has a term of the skip list.

    Lingua decides about the rest: a description in a language that is not preferred is dropped, and one whose
    language it cannot tell is kept.
    """
    keep = DESCRIPTION.is_in(sorted(rules.exact_keeps))
    if rules.partial_keeps:
        keep |= DESCRIPTION.str.contains_any(list(rules.partial_keeps))
    skip = pl.lit(value=False)
    if rules.partial_skips:
        skip = DESCRIPTION.str.contains_any(list(rules.partial_skips))
    # Lingua looks only at letters, so texts that differ only in numbers and hyphens are asked about once.
    letters = DESCRIPTION.str.replace_all(r"[^\p{L}\p{M}]+", " ").str.strip_chars(" ")
    asked = pl.when(~keep & ~skip).then(letters)
    # Used only once below, because polars would call the function again for each use.
    foreign = asked.map_batches(lambda texts: _foreign(texts, rules), return_dtype=pl.String)
    reason = (
        pl.when(~keep & skip)
        .then(pl.lit("term of another language"))
        .otherwise(pl.lit("language ") + foreign.str.to_lowercase())
    )
    return Cleaner("language", reason=reason)


def _foreign(texts: pl.Series, rules: LanguageRules) -> pl.Series:
    """The language of each text; null if it is preferred, undecided, or was not asked about.

    Each distinct text is looked at once.
    """
    distinct = texts.drop_nulls().unique().sort()
    detector = _detector(rules.detected, rules.minimum_relative_distance)
    known = answers_by_ngrams(distinct, detector, rules.detected, rules.minimum_relative_distance)
    open_ = distinct.filter(~distinct.is_in(known["text"].implode()))
    found: list[str | None] = []
    for start in range(0, len(open_), _CHUNK):
        chunk: list[str] = open_.slice(start, _CHUNK).to_list()
        languages = detector.detect_languages_in_parallel_of(chunk)
        found += [None if language is None else language.name for language in languages]
    asked = pl.DataFrame({"text": open_, "language": pl.Series(found, dtype=pl.String)})
    foreign = pl.concat([known, asked]).filter(~pl.col("language").is_in(rules.preferred))
    return texts.replace_strict(foreign["text"], foreign["language"], default=None, return_dtype=pl.String)


@cache
def _detector(languages: tuple[str, ...], minimum_relative_distance: float) -> "LanguageDetector":
    # Imported here, because its models are slow to load and few cleaners need them.
    from lingua import Language, LanguageDetectorBuilder  # noqa: PLC0415

    chosen = [getattr(Language, name) for name in languages]
    builder = LanguageDetectorBuilder.from_languages(*chosen)
    if minimum_relative_distance > 0:
        builder = builder.with_minimum_relative_distance(minimum_relative_distance)
    return builder.with_preloaded_language_models().build()
