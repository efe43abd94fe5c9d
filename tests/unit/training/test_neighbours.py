"""The training texts that are most similar to a text."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.training.test_train import dataset
from training.distributed import Embeddings
from training.network.neighbours import Neighbours


def unit(count: int, size: int, seed: int) -> Embeddings:
    values = torch.randn(count, size, generator=torch.Generator().manual_seed(seed))
    of_length_1: Embeddings = torch.nn.functional.normalize(values, dim=1).numpy()
    return of_length_1


@given(st.lists(st.integers(0, 4), min_size=1, max_size=30), st.integers(0, 100))
def test_a_class_is_as_near_as_its_nearest_text(class_of: list[int], seed: int) -> None:
    # Class 5 has no text. The first columns belong to another transformer.
    pairs = dataset(class_of, 6)
    vectors, asked = unit(len(class_of), 8, seed), unit(3, 12, seed + 1)
    logits = Neighbours.of(pairs, vectors, 1000, 20.0).logits(torch.from_numpy(asked), 6).numpy()
    for row, wanted in zip(logits, asked[:, 4:], strict=True):
        for number, logit in enumerate(row):
            cosines = [float(wanted @ vectors[i]) for i, of_pair in enumerate(class_of) if of_pair == number]
            assert logit == pytest.approx(20 * max(cosines, default=-1.0), abs=1e-4)


def test_a_text_of_several_classes_is_kept_once() -> None:
    pairs = replace(dataset([0, 1, 1], 2), text_of=np.array([0, 0, 1]))
    kept = Neighbours.of(pairs, unit(2, 4, 0), 10, 1.0)
    assert len(kept.vectors) == 2
    near = kept.logits(kept.vectors[:1], 2)
    assert near.tolist() == [[pytest.approx(1), pytest.approx(1)]]


def test_a_limit_leaves_the_heaviest_texts_of_every_class() -> None:
    # Class 0 has four texts, class 1 has two, and class 2 has one.
    weight = np.array([1, 5, 3, 4, 1, 2, 1], dtype=np.float32)
    pairs = replace(dataset([0, 0, 0, 0, 1, 1, 2], 3), weight=weight)
    vectors = unit(7, 4, 0)

    def kept(limit: int) -> list[int]:
        found = Neighbours.of(pairs, vectors, limit, 1.0)
        return [int(np.flatnonzero((vectors == one.numpy()).all(axis=1))[0]) for one in found.vectors]

    assert kept(3) == [1, 5, 6]
    assert kept(5) == [1, 3, 4, 5, 6]
    assert kept(6) == [1, 2, 3, 4, 5, 6]
    assert kept(100) == list(range(7))


def test_what_is_stored_gives_the_same_logits_except_for_rounding() -> None:
    kept = Neighbours.of(dataset([0, 1, 1, 2], 3), unit(4, 16, 0), 10, 20.0)
    asked = torch.from_numpy(unit(5, 16, 1))
    whole = Neighbours.from_tensors(kept.tensors(torch.float32))
    assert torch.equal(whole.logits(asked, 3), kept.logits(asked, 3))
    half = Neighbours.from_tensors(kept.tensors(torch.float16))
    assert torch.allclose(half.logits(asked, 3), kept.logits(asked, 3), atol=0.02)
    assert torch.allclose(kept.at_temperature(2.0).logits(asked, 3), kept.logits(asked, 3) / 2)
