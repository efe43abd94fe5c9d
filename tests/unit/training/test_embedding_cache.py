import hashlib
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.embedding.cache import FolderStore, embed, open_store, pack_embeddings, unpack_embeddings
from training.embedding.encoder import Embeddings, Encoder
from training.progress import Progress


class Lengths:
    """An encoder that embeds a text as three numbers computed from it."""

    fingerprint = "f" * 64

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def encode(self, texts: Sequence[str], progress: Progress) -> Embeddings:
        self.asked.append(list(texts))
        return np.array([[len(text), text.count("a"), 0.1] for text in texts], dtype=np.float32).reshape(
            -1, 3
        )


def run(
    texts: Sequence[str], place: Path | str | None, encoder: Lengths | None = None
) -> tuple[Embeddings, Lengths]:
    chosen = encoder or Lengths()
    named = None if place is None else str(place)
    return embed(texts, cast("Encoder", chosen), named, Progress(log=io.StringIO())), chosen


def test_a_second_run_embeds_only_new_texts(tmp_path: Path) -> None:
    first, _ = run(["a", "bb"], tmp_path)
    second, encoder = run(["ccc", "bb", "a"], tmp_path)
    assert encoder.asked == [["ccc"]]
    assert np.array_equal(second[[2, 1]], first)
    third, encoder = run(["a", "ccc"], tmp_path)
    assert encoder.asked == []
    assert np.array_equal(third, second[[2, 0]])


@given(st.lists(st.text(max_size=5), min_size=1, unique=True), st.lists(st.booleans(), min_size=1))
def test_embeddings_are_the_same_whatever_part_of_them_is_cached(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], pattern: list[bool]
) -> None:
    place = tmp_path_factory.mktemp("cache")
    earlier = [text for index, text in enumerate(texts) if pattern[index % len(pattern)]]
    if earlier:
        run(earlier, place)
    assert np.array_equal(run(texts, place)[0], run(texts, None)[0])


def test_builds_that_share_a_cache_at_the_same_time_do_not_disturb_each_other(tmp_path: Path) -> None:
    words = [letter * length for letter in "abc" for length in range(1, 9)]
    wanted = [words[start : start + 12] for start in range(12)] * 2
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda texts: run(texts, tmp_path)[0], wanted))
    for texts, result in zip(wanted, results, strict=True):
        assert np.array_equal(result, run(texts, None)[0])
    assert all(
        path.stem == hashlib.sha256(path.read_bytes()).hexdigest() for path in tmp_path.rglob("*.pack")
    )
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".pack"]


def test_a_damaged_pack_is_ignored(tmp_path: Path) -> None:
    expected, _ = run(["a", "bb"], tmp_path)
    (pack,) = tmp_path.rglob("*.pack")
    pack.write_bytes(pack.read_bytes()[:-1])
    again, encoder = run(["a", "bb"], tmp_path)
    assert encoder.asked == [["a", "bb"]]
    assert np.array_equal(again, expected)


def test_the_same_texts_make_the_same_pack_whatever_their_order(tmp_path: Path) -> None:
    run(["a", "bb"], tmp_path / "one")
    run(["bb", "a"], tmp_path / "two")
    (one,), (two,) = ((tmp_path / name).rglob("*.pack") for name in ("one", "two"))
    assert one.name == two.name
    assert one.stem == hashlib.sha256(one.read_bytes()).hexdigest()


def test_another_transformer_or_kind_of_machine_has_its_own_packs(tmp_path: Path) -> None:
    run(["a"], tmp_path)
    other = Lengths()
    other.fingerprint = "0" * 64
    assert run(["a"], tmp_path, other)[1].asked == [["a"]]


def test_a_cache_that_cannot_be_used_does_not_end_the_run(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert run(["a"], blocked)[0].shape == (1, 3)
    (tmp_path / "odd" / ("f" * 64)).mkdir(parents=True)
    content = b"no pack"
    FolderStore(tmp_path / "odd" / ("f" * 64)).write(hashlib.sha256(content).hexdigest(), content)
    assert run(["a"], tmp_path / "odd")[0].shape == (1, 3)


def test_a_pack_can_be_read_back() -> None:
    vectors = np.arange(6, dtype=np.float32).reshape(2, 3)
    keys, read = unpack_embeddings(pack_embeddings([b"x" * 32, b"y" * 32], vectors))
    assert keys == b"x" * 32 + b"y" * 32
    assert np.array_equal(read, vectors)


def test_an_s3_place_is_a_prefix_with_the_fingerprint(monkeypatch: pytest.MonkeyPatch) -> None:
    objects: dict[tuple[str, str], bytes] = {}

    class Client:
        def get_paginator(self, name: str) -> "Client":
            return self

        def paginate(self, *, Bucket: str, Prefix: str) -> list[dict[str, list[dict[str, str]]]]:
            keys = [key for bucket, key in objects if bucket == Bucket and key.startswith(Prefix)]
            return [{"Contents": [{"Key": key} for key in keys]}, {}]

        def get_object(self, *, Bucket: str, Key: str) -> dict[str, io.BytesIO]:
            return {"Body": io.BytesIO(objects[Bucket, Key])}

        def put_object(self, *, Bucket: str, Key: str, Body: bytes) -> None:
            objects[Bucket, Key] = Body

    monkeypatch.setattr("boto3.client", lambda service: Client())
    first, _ = run(["a", "bb"], "s3://models/cache/")
    ((bucket, key),) = objects
    assert bucket == "models"
    assert key.startswith(f"cache/{'f' * 64}/")
    again, encoder = run(["bb", "a"], "s3://models/cache")
    assert encoder.asked == []
    assert np.array_equal(again[[1, 0]], first)
    assert open_store("s3://models", cast("Encoder", Lengths())).names() == []
