"""Embeddings by the real transformer."""

import io
import random

import numpy as np
import pytest
import torch

from training.embeddings import Encoder
from training.progress import Progress
from training.transformer import Transformer, find_transformer

QUIET = Progress(log=io.StringIO())
NOUNS = ("kettle", "shirt", "horse", "wire of copper", "cheese", "tyre for buses")


@pytest.fixture(scope="module")
def transformer() -> Transformer:
    return find_transformer("all-MiniLM-L6-v2")


@pytest.fixture(scope="module")
def texts() -> list[str]:
    rng = random.Random(0)
    return [
        " ".join(f"{rng.choice(NOUNS)} {number}" for number in range(1 + length % 9)) for length in range(150)
    ]


@pytest.mark.parametrize("bfloat16", [False, True])
def test_an_embedding_depends_on_its_text_alone_to_the_last_bit(
    transformer: Transformer, texts: list[str], bfloat16: bool
) -> None:
    encoder = Encoder(transformer, "cpu", 16, bfloat16=bfloat16)
    whole = encoder.encode(texts, QUIET)
    assert whole.shape == (150, 384)
    assert np.allclose(np.linalg.norm(whole, axis=1), 1, atol=1e-5)
    rng = random.Random(1)
    for _ in range(2):
        chosen = rng.sample(range(len(texts)), 40)
        part = encoder.encode([texts[index] for index in chosen], QUIET)
        assert np.array_equal(part, whole[chosen])


def test_the_number_of_threads_changes_nothing(transformer: Transformer, texts: list[str]) -> None:
    encoder = Encoder(transformer, "cpu", 16)
    alone = encoder.encode(texts, QUIET)
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        assert np.array_equal(encoder.encode(texts, QUIET), alone)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)


def test_bfloat16_and_single_texts_are_close_to_float32(transformer: Transformer, texts: list[str]) -> None:
    exact = Encoder(transformer, "cpu", 16).encode(texts, QUIET)
    fast = Encoder(transformer, "cpu", 16, bfloat16=True)
    assert (fast.encode(texts, QUIET) * exact).sum(1).min() > 0.9995
    alone = Encoder(transformer, "cpu", 16).encode_one(texts[5])
    assert np.allclose(alone, exact[5], atol=1e-5)


def test_the_embeddings_are_those_of_sentence_transformers(
    transformer: Transformer, texts: list[str]
) -> None:
    encoder = Encoder(transformer, "cpu", 16)
    theirs = encoder.model.encode(texts[:20], normalize_embeddings=True, show_progress_bar=False)
    assert np.allclose(encoder.encode(texts[:20], QUIET), theirs, atol=1e-5)


def test_long_texts_are_cut_and_no_texts_are_none(transformer: Transformer) -> None:
    encoder = Encoder(transformer, "cpu", 16)
    assert encoder.encode(["word " * 2000], QUIET).shape == (1, 384)
    assert encoder.encode([], QUIET).shape == (0, 384)


def test_what_shapes_an_embedding_is_in_the_fingerprint(transformer: Transformer) -> None:
    prints = {
        Encoder(transformer, "cpu", 16).fingerprint,
        Encoder(transformer, "cpu", 32).fingerprint,
        Encoder(transformer, "cpu", 16, bfloat16=True).fingerprint,
        Encoder(Transformer("t", transformer.folder, "0" * 64), "cpu", 64).fingerprint,
    }
    assert len(prints) == 4
