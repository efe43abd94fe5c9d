import random

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.cleaning.cleaner import clean
from training.config import VAGUE_CODE, SourceConfig
from training.dataset.merge import CleanedSource, Dataset, merge
from training.errors import FailureCode, TrainingError
from training.sources.read import SCHEMA, SourceRows


def source(
    name: str,
    *pairs: tuple[str, str],
    weight: float = 1,
    authoritative: bool = False,
    creates_codes: bool = False,
) -> CleanedSource:
    config = SourceConfig(
        name=name, code_column=0, weight=weight, authoritative=authoritative, creates_codes=creates_codes
    )
    frame = pl.DataFrame(
        [("f", line, code, text) for line, (code, text) in enumerate(pairs)], schema=SCHEMA, orient="row"
    )
    return CleanedSource(config, SourceRows(config, frame, ()), clean(frame, []))


def triples(dataset: Dataset) -> list[tuple[str, str, float]]:
    return [
        (dataset.texts[text], dataset.classes[code], float(weight))
        for text, code, weight in zip(dataset.text_of, dataset.class_of, dataset.weight, strict=True)
    ]


CODES = source(
    "codes", ("01", "horse"), ("02", "cow"), ("03", "pig"), authoritative=True, creates_codes=True, weight=3
)


def test_weights_add_up_over_sources_but_repeated_rows_of_one_source_count_once() -> None:
    trade = source("trade", ("01", "horse"), ("01", "horse"), ("01", "mare"))
    assert triples(merge([CODES, trade])) == [
        ("cow", "02", 3),
        ("horse", "01", 4),
        ("mare", "01", 1),
        ("pig", "03", 3),
    ]


def test_rows_with_codes_that_no_source_created_are_left_out_and_counted() -> None:
    merged = merge([CODES, source("trade", ("99", "comet"), ("01", "mare"))])
    assert merged.classes == ["01", "02", "03"]
    assert "comet" not in merged.texts
    assert merged.counts["unknown_codes"] == 1


def test_an_authoritative_code_overrides_the_code_of_another_source() -> None:
    merged = merge([CODES, source("trade", ("02", "horse"), weight=2)])
    assert ("horse", "01", 5) in triples(merged)
    assert merged.counts["overruled"] == 1
    assert merged.conflicts.height == 0


def test_when_authoritative_sources_disagree_the_earlier_one_wins_and_it_is_reported() -> None:
    vague = source("vague", (VAGUE_CODE, "pig"), authoritative=True, creates_codes=True)
    merged = merge([vague, CODES])
    assert ("pig", VAGUE_CODE, 4) in triples(merged)
    assert merged.conflicts.rows() == [("pig", "codes", "03", "vague", VAGUE_CODE)]
    assert merged.classes == ["01", "02", "03", VAGUE_CODE]


def test_an_overruled_weight_is_shared_among_several_winning_codes() -> None:
    ambiguous = source("codes", ("01", "animal"), ("02", "animal"), authoritative=True, creates_codes=True)
    other = source("more", ("03", "fish"), creates_codes=True)
    merged = merge([ambiguous, other, source("trade", ("03", "animal"), weight=3)])
    assert triples(merged) == [("animal", "01", 2.5), ("animal", "02", 2.5), ("fish", "03", 1)]


def test_an_authoritative_row_with_an_unknown_code_is_ignored() -> None:
    references = source("references", ("99", "mare"), authoritative=True)
    assert ("mare", "01", 1) in triples(merge([CODES, references, source("trade", ("01", "mare"))]))


@pytest.mark.parametrize(
    "sources", [[], [source("trade", ("01", "horse"))], [source("codes", creates_codes=True)]]
)
def test_no_classes_is_an_error(sources: list[CleanedSource]) -> None:
    with pytest.raises(TrainingError) as caught:
        merge(sources)
    assert caught.value.reason is FailureCode.NO_CLASSES


@given(
    st.lists(
        st.lists(
            st.tuples(st.sampled_from(["01", "02", "03", "99"]), st.sampled_from("abcdef")), max_size=12
        ),
        max_size=4,
    ),
    st.randoms(use_true_random=False),
)
def test_the_order_of_rows_does_not_matter_and_no_weight_is_lost(
    tables: list[list[tuple[str, str]]], rng: random.Random
) -> None:
    def build(shuffle: bool) -> Dataset:
        sources = [CODES]
        for index, table in enumerate(tables):
            rows = rng.sample(table, len(table)) if shuffle else table
            sources.append(source(f"s{index}", *rows, weight=index + 1, authoritative=index % 2 == 0))
        return merge(sources)

    first, second = build(shuffle=False), build(shuffle=True)
    assert triples(first) == triples(second)
    assert first.conflicts.equals(second.conflicts)
    known = sum(
        (index + 1) * len({pair for pair in table if pair[0] != "99"}) for index, table in enumerate(tables)
    )
    assert sum(weight for *_, weight in triples(first)) == pytest.approx(9 + known)
    assert first.texts == sorted(set(first.texts))
