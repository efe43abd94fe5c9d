from collections.abc import Sequence
from functools import cache
from itertools import permutations

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lingua import ConfidenceValue, Language, LanguageDetector, LanguageDetectorBuilder

from training.cleaning.ngrams import answers_by_ngrams

NAMES = ("ENGLISH", "FRENCH", "GERMAN", "SPANISH")
WORDS = [
    "cotton",
    "shoes",
    "for",
    "leather",
    "cuir",
    "pour",
    "hommes",
    "schuhe",
    "leder",
    "zapatos",
    "de",
    "x",
]


@cache
def detector(distance: float = 0.7, names: tuple[str, ...] = NAMES) -> LanguageDetector:
    builder = LanguageDetectorBuilder.from_languages(*(getattr(Language, name) for name in names))
    return (builder.with_minimum_relative_distance(distance) if distance else builder).build()


def texts(words: Sequence[str] = WORDS, length: int = 3) -> pl.Series:
    """Enough texts to make it worthwhile to ask about their n-grams instead."""
    return pl.Series([" ".join(chosen) for chosen in permutations(words, length)])


def answers(of: pl.Series, distance: float = 0.7, names: tuple[str, ...] = NAMES) -> dict[str, str | None]:
    found = answers_by_ngrams(of, detector(distance, names), names, distance)
    return dict(found.select("text", "language").iter_rows())


def lingua(of: Sequence[str], distance: float = 0.7, names: tuple[str, ...] = NAMES) -> dict[str, str | None]:
    said = detector(distance, names).detect_languages_in_parallel_of(list(of))
    return {text: language and language.name for text, language in zip(of, said, strict=True)}


@pytest.mark.parametrize("distance", [0.0, 0.25, 0.7])
def test_answers_equal_those_of_lingua(distance: float) -> None:
    every = texts()
    found = answers(every, distance)
    assert found == lingua(every.to_list(), distance)
    assert len(set(found.values())) > 2


@settings(max_examples=25)
@given(st.lists(st.text("abcsxz", min_size=1, max_size=9), min_size=9, max_size=9, unique=True))
def test_answers_equal_those_of_lingua_for_invented_words(words: list[str]) -> None:
    every = texts(words)
    assert answers(every) == lingua(every.to_list())


def test_answers_equal_those_of_lingua_for_other_languages() -> None:
    names = ("ITALIAN", "ENGLISH", "DUTCH", "POLISH", "SWEDISH")
    every = texts()
    assert answers(every, 0.3, names) == lingua(every.to_list(), 0.3, names)


def test_texts_for_which_lingua_has_other_rules_are_left_to_it() -> None:
    left = ["", "straße", "vêtements", "Cotton", "cotton 5", "рубашка", " cotton", "cottons " * 15 + "c"]
    found = answers(pl.concat([texts(), pl.Series(left)]))
    assert set(found) == set(texts())


def test_the_longest_text_whose_answer_can_be_computed() -> None:
    longest = ("schuhe leder " * 10)[:119]
    found = answers(pl.concat([texts(), pl.Series([longest])]))
    assert {longest: found[longest]} == lingua([longest])


def test_a_text_exactly_at_the_threshold_is_left_to_lingua() -> None:
    every = texts()
    values = detector().compute_language_confidence_values(every[5])
    distance = values[0].value - values[1].value
    found = answers(every, distance)
    assert every[5] not in found
    assert found.items() <= lingua(every.to_list(), distance).items()


def test_few_texts_are_left_to_lingua() -> None:
    assert answers(texts().head(20)) == {}
    assert answers(pl.Series([], dtype=pl.String)) == {}


def test_everything_is_left_to_lingua_if_it_excludes_a_language() -> None:
    assert answers(texts(), names=("ENGLISH", "RUSSIAN", "FRENCH")) == {}


def test_everything_is_left_to_lingua_if_its_answers_do_not_follow_from_n_grams() -> None:
    class Other:
        """A detector that treats whole texts differently, as a later release might."""

        def compute_language_confidence_values_in_parallel(
            self, texts: list[str]
        ) -> list[list[ConfidenceValue]]:
            said = detector().compute_language_confidence_values_in_parallel(texts)
            turned = detector().compute_language_confidence_values_in_parallel([text[::-1] for text in texts])
            return [b if " " in text else a for text, a, b in zip(texts, said, turned, strict=True)]

    found = answers_by_ngrams(texts(), Other(), NAMES, 0.7)  # type: ignore[arg-type]
    assert found.is_empty()
