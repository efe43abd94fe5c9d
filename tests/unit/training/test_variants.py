import subprocess
import sys
from itertools import combinations

import numpy as np
import pytest
import torch

from training.dataset.variants import VariantDraw, Variants, make_variants

TEXTS = ["kettle", "steel kettle", "turkey slices smoked 90g", "zw wide leg jeans"]


def variants_of(variants: Variants, index: int) -> list[str]:
    first, count = variants.first[index], variants.count[index]
    return [variants.texts[member] for member in variants.members[first : first + count]]


def test_variants_are_words_of_the_text_in_their_order() -> None:
    variants = make_variants(TEXTS, [4] * 4, seed=0)
    assert variants_of(variants, 0) == []
    for index in (2, 3):
        words = TEXTS[index].split()
        allowed = {" ".join(chosen) for kept in (2, 3) for chosen in combinations(words, kept)}
        found = variants_of(variants, index)
        assert 1 <= len(found) <= 4
        assert len(set(found)) == len(found)
        assert set(found) <= allowed


def test_a_variant_that_is_itself_a_text_is_left_out() -> None:
    # "steel kettle" could become "steel" or "kettle", but "kettle" is one of the texts.
    assert variants_of(make_variants(TEXTS, [8] * 4, seed=0), 1) == ["steel"]


def test_only_texts_that_want_variants_get_some() -> None:
    variants = make_variants(TEXTS, [0, 0, 3, 0], seed=0)
    assert [len(variants_of(variants, index)) for index in range(4)] == [0, 0, 3, 0]
    assert variants.texts == sorted(variants_of(variants, 2))


def test_variants_depend_on_the_seed_but_not_on_the_hash_seed_or_the_order_of_texts() -> None:
    script = (
        "from training.dataset.variants import make_variants; "
        f"print(make_variants({TEXTS!r}, [4] * 4, 0).texts)"
    )
    other = subprocess.run(
        [sys.executable, "-c", script],
        env={"PYTHONHASHSEED": "1", "PYTHONPATH": "."},
        capture_output=True,
        check=True,
        text=True,
    )
    assert other.stdout.strip() == str(make_variants(TEXTS, [4] * 4, 0).texts)
    backwards = make_variants(TEXTS[::-1], [4] * 4, seed=0)
    assert variants_of(backwards, 0) == variants_of(make_variants(TEXTS, [4] * 4, seed=0), 3)
    assert make_variants(TEXTS, [4] * 4, seed=1).texts != backwards.texts


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_variant_replaces_its_text_with_the_configured_probability(share: float) -> None:
    variants = make_variants(TEXTS, [4] * 4, seed=0)
    text_of = np.tile(np.arange(4), 1000)
    drawn = VariantDraw(variants, text_of, len(TEXTS), share)(torch.Generator().manual_seed(0)).numpy()
    table = TEXTS + variants.texts
    own = {text: {text, *variants_of(variants, index)} for index, text in enumerate(TEXTS)}
    assert all(table[row] in own[TEXTS[text]] for row, text in zip(drawn, text_of, strict=True))
    assert (drawn[text_of == 0] == 0).all()
    gave_way = (drawn != text_of)[text_of > 0].mean()
    assert gave_way == pytest.approx(share, abs=0.05)
    if share:
        assert set(drawn) >= set(range(len(TEXTS), len(table)))


def test_without_variants_every_text_stands_for_itself() -> None:
    draw = VariantDraw(make_variants(TEXTS, [0] * 4, 0), np.arange(4), 4, 0.5)
    assert draw(torch.Generator()).tolist() == [0, 1, 2, 3]
