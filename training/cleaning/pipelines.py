"""Turns the names of cleaning steps in a configuration into a sequence of cleaners."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import polars as pl

from training.cleaning.cleaner import Cleaner, clean
from training.cleaning.codes import PAD, Nomenclature, code_changes, code_cleaners, code_shape, cut
from training.cleaning.language import LanguageRules, drop_other_languages
from training.cleaning.pairs import IncorrectPair, drop_incorrect_pairs, with_leading_zero
from training.cleaning.text import (
    DROP_EMPTY,
    DROP_MISSING,
    DROP_NOISE,
    LOWER,
    NEGATION,
    PLURALS,
    STRIP,
    UNICODE,
    drop_short,
    normalised,
    remove_phrases,
)
from training.config import VAGUE_CODE, CleaningStep, SearchConfig, SourceConfig
from training.lookup import Lookup
from training.sources.rows import read_csv, read_lines

DROP_SHORT: Final = drop_short(1, words_of_one_character=True)

_SEVERAL: Final[dict[CleaningStep, tuple[CleaningStep, ...]]] = {
    "basic": ("lower", "strip", "drop_empty", "drop_short", "code_shape", "code_changes"),
    "tradesets": (
        "lower",
        "remove_phrases",
        "strip",
        "drop_empty",
        "drop_short",
        "code_shape",
        "drop_noise",
        "language",
        "incorrect_pairs",
        "plurals",
    ),
}


@dataclass(frozen=True)
class CleaningLists:
    """The team's lists, which are read once in each run."""

    phrases: tuple[str, ...]
    pairs: tuple[IncorrectPair, ...]
    language: LanguageRules


def read_lists(config: SearchConfig, lookup: Lookup) -> CleaningLists:
    """Read the lists. Terms keep their leading spaces: " iso" is a different term from "iso"."""

    def terms(key: str) -> tuple[str, ...]:
        name: str | None = getattr(config, key)
        if name is None:
            return ()
        return tuple(sorted({line.lower() for line in read_lines(lookup.find_file(name, what=key))}))

    phrases = terms("phrases_to_remove_file")
    return CleaningLists(
        phrases=phrases,
        pairs=tuple(_pairs(config, lookup, phrases)),
        language=LanguageRules(
            preferred=config.preferred_languages,
            detected=config.detected_languages,
            minimum_relative_distance=config.minimum_relative_distance,
            exact_keeps=frozenset(map(normalised, terms("exact_english_terms"))),
            partial_keeps=terms("partial_english_terms"),
            partial_skips=terms("partial_non_english_terms"),
        ),
    )


def _pairs(config: SearchConfig, lookup: Lookup, phrases: tuple[str, ...]) -> Iterator[IncorrectPair]:
    """The incorrect pairs. Their descriptions are cleaned as the rows are before they are compared."""
    key = "incorrect_description_pairs_file"
    if config.incorrect_description_pairs_file is None:
        return
    path = lookup.find_file(config.incorrect_description_pairs_file, what=key)
    rows = [row for _, row in read_csv(path, "utf-8", columns=3, header="auto", code_column=2).rows]
    descriptions = pl.DataFrame({"code": "", "description": [row[0] for row in rows]})
    cleaned = clean(descriptions, [LOWER, remove_phrases(phrases), STRIP]).kept["description"]
    for description, (_, chapter, code, *_) in zip(cleaned, rows, strict=True):
        yield IncorrectPair(
            description,
            with_leading_zero(chapter.strip()) if chapter.strip() else "",
            with_leading_zero(code.strip()),
        )


def cleaners_for(
    source: SourceConfig, digits: int, lists: CleaningLists, nomenclature: Nomenclature
) -> list[Cleaner]:
    """The cleaners of a source.

    Whatever its steps are, text and codes are brought into one form first. In the end, empty descriptions and
    codes of another form are dropped, and codes are cut to `digits`.
    """
    steps = list(_expanded(source.cleaning))
    known = _cleaners(digits, lists)
    has_codes = source.code != VAGUE_CODE
    cleaners = [UNICODE]
    # "n/a" as a description is missing, unless it is listed as too vague.
    cleaners += [DROP_MISSING, *code_cleaners(nomenclature, digits)] if has_codes else []
    cleaners += [known[step] for step in steps]
    # A cleaner that removes words may leave spaces, commas or nothing behind.
    if "negation" in steps or "remove_phrases" in steps:
        cleaners.append(STRIP)
        cleaners += [DROP_SHORT] if "drop_short" in steps else []
    cleaners.append(DROP_EMPTY)
    if has_codes:
        cleaners += [code_shape(digits), cut(digits)]
    return cleaners


def _expanded(steps: tuple[CleaningStep, ...]) -> Iterator[CleaningStep]:
    for step in steps:
        yield from _SEVERAL.get(step, (step,))


def _cleaners(digits: int, lists: CleaningLists) -> dict[CleaningStep, Cleaner]:
    """All cleaners, by their names in the configuration."""
    cleaners: dict[CleaningStep, Cleaner] = {
        "lower": LOWER,
        "strip": STRIP,
        "drop_empty": DROP_EMPTY,
        "drop_short": DROP_SHORT,
        "code_shape": code_shape(digits),
        "code_changes": code_changes(),
        "drop_noise": DROP_NOISE,
        "language": drop_other_languages(lists.language),
        "incorrect_pairs": drop_incorrect_pairs(lists.pairs),
        "plurals": PLURALS,
        "negation": NEGATION,
        "remove_phrases": remove_phrases(lists.phrases),
        "pad": PAD,
    }
    return cleaners
