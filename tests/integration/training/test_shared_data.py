"""Reading and cleaning the team's real data."""

import os
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from lingua import Language, LanguageDetectorBuilder

from training.cleaning.cleaner import clean
from training.cleaning.language import drop_other_languages
from training.cleaning.pipelines import read_lists
from training.config import VAGUE_CODE, SearchConfig, parse_config
from training.dataset.merge import CleanedSource, Dataset, clean_sources, merge
from training.lookup import Lookup
from training.sources.read import files_of, read_source

REPOSITORY = Path(__file__).resolve().parents[3]

pytestmark = pytest.mark.shared_data


@pytest.fixture(scope="module")
def shared_data() -> Path:
    folder = Path(os.environ.get("TARIFF_SHARED_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        message = f"the team's data is not at {folder}. Set TARIFF_SHARED_DATA to its folder."
        if os.environ.get("CI", "").lower() in ("1", "true"):
            pytest.fail(message)
        pytest.skip(message)
    return folder


def configuration(shared_data: Path, digits: int) -> SearchConfig:
    """The team's configuration, adapted to a file name in this data and to an installed transformer."""
    text = (shared_data / "search-config.upstream.toml").read_text()
    for old, new in {
        "CN2026_SelfText_EN_DE_FR.csv": "cn_self_text.csv",
        "all-mpnet-base-v2": "all-MiniLM-L6-v2",
        'device = "cuda"': 'device = "cpu"',
    }.items():
        assert old in text
        text = text.replace(old, new)
    text += f'\ndigits = {digits}\nsearch_references_file = "reference_data/search_references.json"\n'
    return parse_config(text)


def cleaned(shared_data: Path, digits: int) -> list[CleanedSource]:
    config = configuration(shared_data, digits)
    lookup = Lookup(shared_data, REPOSITORY)
    lists = read_lists(config, lookup)
    rows = [read_source(source, files_of(source, lookup)) for source in config.sources]
    return list(clean_sources(rows, digits, lists))


@pytest.fixture(scope="module")
def sources(shared_data: Path) -> dict[str, CleanedSource]:
    return {one.source.name: one for one in cleaned(shared_data, 6)}


@pytest.fixture(scope="module")
def dataset(sources: dict[str, CleanedSource]) -> Dataset:
    return merge(list(sources.values()))


def test_every_row_of_every_source_is_read(sources: dict[str, CleanedSource]) -> None:
    assert {name: one.read.frame.height for name, one in sources.items()} == {
        "vague_terms": 3281,
        "extra_references": 1378,
        "cn_self_texts": 8325,
        "search_references": 2397,
        "brands": 139,
        "tradesets": 29743,
    }
    assert all(not one.read.broken for one in sources.values())


def test_at_6_digits_all_brands_are_kept_and_some_codes_change(sources: dict[str, CleanedSource]) -> None:
    assert sources["brands"].cleaned.kept.height == 139
    assert sources["brands"].cleaned.changed["pad"] == 41
    assert sources["cn_self_texts"].cleaned.changed["code_changes"] > 0


def test_the_header_of_the_vague_terms_is_recognised_and_the_first_term_is_kept(
    sources: dict[str, CleanedSource],
) -> None:
    terms = sources["vague_terms"].cleaned.kept["description"].to_list()
    assert "description" not in terms
    assert terms[0] == ", hscode:6402919000"


def test_few_rows_of_the_tradesets_are_dropped_and_each_has_a_reason(
    sources: dict[str, CleanedSource],
) -> None:
    trade = sources["tradesets"].cleaned
    assert trade.kept.height + trade.dropped.height == 29743
    assert 0 < trade.dropped.height < 0.03 * 29743
    assert set(trade.reasons) <= {
        "language french",
        "language german",
        "language spanish",
        "only digits or punctuation",
        "short description",
        "known incorrect pair",
        "term of another language",
        "empty description",
    }


def test_each_description_is_kept_or_dropped_as_lingua_alone_would_decide(
    shared_data: Path, sources: dict[str, CleanedSource]
) -> None:
    rules = read_lists(configuration(shared_data, 6), Lookup(shared_data, REPOSITORY)).language
    rules = replace(rules, exact_keeps=frozenset(), partial_keeps=(), partial_skips=())
    kept = sources["tradesets"].cleaned.kept["description"]
    text = pl.concat([kept, kept.shuffle(seed=0) + " " + kept.shuffle(seed=1)]).unique()
    rows = pl.DataFrame({"description": text}).with_columns(code=pl.lit("010121"))
    builder = LanguageDetectorBuilder.from_languages(*(getattr(Language, name) for name in rules.detected))
    detector = builder.with_minimum_relative_distance(rules.minimum_relative_distance).build()
    expected = [
        description
        for description, language in zip(
            text, detector.detect_languages_in_parallel_of(list(text)), strict=True
        )
        if language is None or language.name in rules.preferred
    ]
    assert clean(rows, [drop_other_languages(rules)]).kept["description"].to_list() == expected
    assert 0.9 * len(text) < len(expected) < len(text)


def test_the_classes_are_the_subheadings_and_the_vague_class(dataset: Dataset) -> None:
    assert len(dataset.classes) == 5614
    assert dataset.classes[-1] == VAGUE_CODE
    assert all(len(code) == 6 and code.isdigit() for code in dataset.classes[:-1])


def test_a_vague_term_stays_vague_even_if_a_reference_gives_it_a_code(dataset: Dataset) -> None:
    of_text = {
        dataset.texts[text]: dataset.classes[code]
        for text, code in zip(dataset.text_of, dataset.class_of, strict=True)
    }
    reported = dataset.conflicts.filter(dataset.conflicts["winner"] == "vague_terms")["description"].to_list()
    assert reported
    assert {of_text[text] for text in reported} == {VAGUE_CODE}


def test_8_digits_have_more_classes(shared_data: Path) -> None:
    dataset = merge(cleaned(shared_data, 8))
    assert len(dataset.classes) > 8000
    assert all(len(code) == 8 and code.isdigit() for code in dataset.classes[:-1])
