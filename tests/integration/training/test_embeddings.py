"""Embeddings made with the real transformer."""

import io
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import nullcontext

import numpy as np
import pytest
import torch

from training.embedding.encoder import Encoder
from training.embedding.pool import Pool
from training.embedding.transformer import Transformer, find_transformer
from training.errors import FailureCode, TrainingError
from training.progress import Progress

QUIET = Progress(log=io.StringIO())
DEVICES = ["cpu", "cpu"]
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
def test_an_embedding_depends_only_on_its_text_to_the_last_bit(
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


def test_embeddings_agree_with_those_of_sentence_transformers(
    transformer: Transformer, texts: list[str]
) -> None:
    # Here, because every process that collects the tests would wait seconds for it.
    from sentence_transformers import SentenceTransformer

    plain = SentenceTransformer(str(transformer.folder), device="cpu", local_files_only=True)
    theirs = plain.encode(texts[:20], normalize_embeddings=True, show_progress_bar=False)
    assert np.allclose(Encoder(transformer, "cpu", 16).encode(texts[:20], QUIET), theirs, atol=1e-5)


def test_long_texts_are_truncated_and_an_empty_list_is_accepted(transformer: Transformer) -> None:
    encoder = Encoder(transformer, "cpu", 16)
    assert encoder.encode(["word " * 2000], QUIET).shape == (1, 384)
    assert encoder.encode([], QUIET).shape == (0, 384)


def test_everything_that_changes_an_embedding_changes_the_fingerprint(transformer: Transformer) -> None:
    prints = {
        Encoder(transformer, "cpu", 16).fingerprint,
        Encoder(transformer, "cpu", 32).fingerprint,
        Encoder(transformer, "cpu", 16, bfloat16=True).fingerprint,
        Encoder(Transformer("t", transformer.folder, "0" * 64), "cpu", 64).fingerprint,
    }
    assert len(prints) == 4


@pytest.fixture(scope="module")
def pool(transformer: Transformer) -> Iterator[Pool]:
    """A running pool of two processes in float32. Starting one takes many seconds."""
    # Two threads would change the order of sums, so each process must use one thread despite this setting.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "2")
        running = Pool(Encoder(transformer, "cpu", 16, pool=DEVICES).model, DEVICES)
        with running:
            yield running


@pytest.mark.parametrize(("batch_size", "count"), [(16, 150), (1, 20)])
def test_a_process_pool_gives_the_same_embeddings_to_the_last_bit(
    transformer: Transformer,
    texts: list[str],
    pool: Pool,
    monkeypatch: pytest.MonkeyPatch,
    batch_size: int,
    count: int,
) -> None:
    monkeypatch.setattr("training.embedding.encoder.Pool", lambda model, devices: nullcontext(pool))
    odd = [*texts[:count], *NOUNS, "word " * 2000, "", "  spaced  out "]
    alone = Encoder(transformer, "cpu", batch_size)
    pooled = Encoder(transformer, "cpu", batch_size, pool=DEVICES)
    assert np.array_equal(pooled.encode(odd, QUIET), alone.encode(odd, QUIET))
    assert np.array_equal(pooled.encode(["kettle"], QUIET), alone.encode(["kettle"], QUIET))
    assert pooled.fingerprint == alone.fingerprint


def test_the_pool_refuses_a_batch_of_texts_that_differ_in_length(pool: Pool) -> None:
    with pytest.raises(ValueError, match="same shape"):
        pool.encode(["kettle", "electric kettle"], 2)


def test_an_encoder_starts_a_pool_in_bfloat16_and_ends_it(transformer: Transformer, texts: list[str]) -> None:
    others = multiprocessing.active_children()
    alone = Encoder(transformer, "cpu", 16, bfloat16=True)
    pooled = Encoder(transformer, "cpu", 16, bfloat16=True, pool=["cpu"])
    assert np.array_equal(pooled.encode(texts, QUIET), alone.encode(texts, QUIET))
    assert pooled.fingerprint == alone.fingerprint
    assert multiprocessing.active_children() == others


def test_an_encoder_does_not_start_a_pool_for_an_empty_list(
    transformer: Transformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Pool, "__enter__", lambda self: pytest.fail("a pool was started"))
    assert Encoder(transformer, "cpu", 16, pool=["cpu"]).encode([], QUIET).shape == (0, 384)


@pytest.mark.parametrize(("at_work", "devices"), [(False, DEVICES), (True, ["cpu"])])
def test_a_killed_process_of_the_pool_is_an_error_that_names_its_device(
    transformer: Transformer, at_work: bool, devices: list[str]
) -> None:
    others = set(multiprocessing.active_children())
    with Pool(Encoder(transformer, "cpu", 16, pool=devices).model, devices) as pool:

        def work() -> None:
            while True:
                pool.encode(["word " * 2000] * 4, 1)

        pool.encode(["kettle"] * 8, 1)
        victim = (set(multiprocessing.active_children()) - others).pop()
        assert victim.pid
        if at_work:
            threading.Timer(0.5, os.kill, (victim.pid, signal.SIGKILL)).start()
        else:
            os.kill(victim.pid, signal.SIGKILL)
            victim.join()
        with pytest.raises(TrainingError, match="embeds on cpu was killed by SIGKILL") as caught:
            work()
        assert caught.value.reason is FailureCode.OUT_OF_MEMORY
    assert set(multiprocessing.active_children()) == others


def test_the_pool_ends_when_its_parent_is_killed() -> None:
    code = """
import time
from training.embedding.pool import Pool
from training.embedding.encoder import Encoder
from training.embedding.transformer import find_transformer
model = Encoder(find_transformer("all-MiniLM-L6-v2"), "cpu", 16, pool=["cpu"]).model
with Pool(model, ["cpu"]) as pool:
    pool.encode(["kettle"], 1)
    print("up", flush=True)
    time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as started:
        assert started.stdout
        assert started.stdout.readline() == "up\n"
        started.kill()
        # The pool's process has the same standard output, which is closed only when both have ended.
        assert started.communicate(timeout=60)[0] == ""
