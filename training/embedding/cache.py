"""A cache of embeddings, by transformer and text, in a folder or under an S3 prefix.

A run reads the embeddings that exist, computes the rest, and adds these as a new pack. A pack never changes,
and is named by the digest of its content, so several builds can share a cache and a damaged pack is noticed.
Embeddings are identical to the last bit only on one kind of machine, so each kind has its own packs.
"""

import hashlib
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from training.embedding.encoder import Embeddings, Encoder
from training.files import written_whole
from training.progress import Progress

_MAGIC: Final = b"TMRPACK1"
_HEADER: Final = struct.Struct("<8sII")
_KEY_BYTES: Final = 32
_TEXTS_OF_A_PACK: Final = 100_000


class PackStore(Protocol):
    """Where packs are stored. Their names are digests of their contents."""

    def names(self) -> list[str]: ...
    def read(self, name: str) -> bytes: ...
    def write(self, name: str, content: bytes) -> None: ...


class FolderStore:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def names(self) -> list[str]:
        return sorted(path.stem for path in self._folder.glob("*.pack")) if self._folder.is_dir() else []

    def read(self, name: str) -> bytes:
        return (self._folder / f"{name}.pack").read_bytes()

    def write(self, name: str, content: bytes) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        with written_whole(self._folder / f"{name}.pack") as beside:
            beside.write_bytes(content)


class S3Store:
    """Packs under `s3://bucket/prefix`. An object appears completely or not at all."""

    def __init__(self, bucket: str, prefix: str) -> None:
        # Imported here, because only a run with such a cache needs AWS.
        import boto3  # noqa: PLC0415

        self._client: Any = boto3.client("s3")
        self._bucket = bucket
        self._prefix = prefix

    def names(self) -> list[str]:
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=f"{self._prefix}/"
        )
        keys = [item["Key"] for page in pages for item in page.get("Contents", [])]
        return sorted(key.rsplit("/", 1)[1].removesuffix(".pack") for key in keys if key.endswith(".pack"))

    def read(self, name: str) -> bytes:
        content: bytes = self._client.get_object(Bucket=self._bucket, Key=f"{self._prefix}/{name}.pack")[
            "Body"
        ].read()
        return content

    def write(self, name: str, content: bytes) -> None:
        self._client.put_object(Bucket=self._bucket, Key=f"{self._prefix}/{name}.pack", Body=content)


def open_store(place: str, encoder: Encoder) -> PackStore:
    """The packs for this encoder in `place`, which is a folder or s3://bucket/prefix."""
    if place.startswith("s3://"):
        bucket, _, prefix = place.removeprefix("s3://").partition("/")
        return S3Store(bucket, "/".join(filter(None, [prefix.strip("/"), encoder.fingerprint])))
    return FolderStore(Path(place).expanduser() / encoder.fingerprint)


def embed(texts: Sequence[str], encoder: Encoder, place: str | None, progress: Progress) -> Embeddings:
    """(len(texts), dimension) float32. A cache that fails costs time but does not end the run."""
    if place is None:
        return encoder.encode(texts, progress)
    keys = [_key(text) for text in texts]
    store, found = _opened(place, encoder, keys, progress)
    missing = [index for index, key in enumerate(keys) if key not in found]
    progress.say(f"embedding cache: found {len(texts) - len(missing):,} of {len(texts):,} texts")
    fresh = encoder.encode([texts[index] for index in missing], progress) if missing else None
    if store and fresh is not None:
        try:
            _write(store, [keys[index] for index in missing], fresh)
        except Exception as exc:
            progress.say(f"the embedding cache at {place} cannot be written: {exc}")
    return _gather(keys, found, missing, fresh)


def _opened(
    place: str, encoder: Encoder, keys: Sequence[bytes], progress: Progress
) -> tuple[PackStore | None, "Found"]:
    try:
        store = open_store(place, encoder)
        return store, _read(store, keys, progress)
    except Exception as exc:
        progress.say(f"the embedding cache at {place} cannot be read: {exc}")
        return None, {}


def _key(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


Found = dict[bytes, npt.NDArray[np.float32]]


def _read(store: PackStore, keys: Sequence[bytes], progress: Progress) -> Found:
    """The vectors of those keys that are in some pack, as views into the packs."""
    wanted = set(keys)
    found: Found = {}
    for name in store.names():
        if len(found) == len(wanted):
            break
        content = store.read(name)
        if hashlib.sha256(content).hexdigest() != name:
            progress.say(f"embedding cache: ignored pack {name}, because it is damaged")
            continue
        pack_keys, vectors = unpack_embeddings(content)
        for position in range(len(vectors)):
            key = pack_keys[position * _KEY_BYTES : (position + 1) * _KEY_BYTES]
            if key in wanted:
                found.setdefault(key, vectors[position])
    return found


def _gather(
    keys: Sequence[bytes], found: Found, missing: Sequence[int], fresh: Embeddings | None
) -> Embeddings:
    dimension = fresh.shape[1] if fresh is not None else len(next(iter(found.values())))
    out = np.empty((len(keys), dimension), dtype=np.float32)
    for index, key in enumerate(keys):
        if key in found:
            out[index] = found[key]
    if fresh is not None:
        out[missing] = fresh
    return out


def _write(store: PackStore, keys: Sequence[bytes], vectors: Embeddings) -> None:
    # Sorted by key, so that the same texts make the same pack whatever their order.
    order = sorted(range(len(keys)), key=keys.__getitem__)
    for start in range(0, len(order), _TEXTS_OF_A_PACK):
        part = order[start : start + _TEXTS_OF_A_PACK]
        content = pack_embeddings([keys[index] for index in part], vectors[part])
        store.write(hashlib.sha256(content).hexdigest(), content)


def pack_embeddings(keys: Sequence[bytes], vectors: Embeddings) -> bytes:
    """A header (magic, count, dimension), then the keys, then the vectors as little-endian float32."""
    header = _HEADER.pack(_MAGIC, *vectors.shape)
    return header + b"".join(keys) + vectors.astype("<f4").tobytes()


def unpack_embeddings(content: bytes) -> tuple[bytes, Embeddings]:
    """The concatenated keys, and the vectors (count, dimension)."""
    magic, count, dimension = _HEADER.unpack_from(content)
    if magic != _MAGIC:
        raise ValueError("it is not a pack of embeddings")
    start = _HEADER.size + count * _KEY_BYTES
    vectors = np.frombuffer(content, dtype="<f4", offset=start).reshape(count, dimension)
    return content[_HEADER.size : start], vectors
