"""Keeps the objects of the simulated S3 on disk, one file for each.

The first line of a file is JSON: which object it is, and what S3 knows about it. The content follows. A file
is written beside its place and then renamed, so after a kill at any moment each object is either old or new.
"""

import hashlib
import json
import shutil
from datetime import datetime
from pathlib import Path
from typing import Any

from moto.s3.models import FakeKey

# What moto keeps of an object beside its name, size, times and metadata.
_PLAIN = ("checksum_algorithm", "checksum_parts", "checksum_type", "checksum_value")


class Content:
    """An object's bytes on disk. It takes the place of the temporary file in which moto keeps them."""

    def __init__(self, path: Path, start: int) -> None:
        self._path = path
        self._start = start
        self._position = 0

    def seek(self, position: int) -> None:
        self._position = position

    def read(self, size: int = -1) -> bytes:
        # Opened for each read, because a bucket may hold more objects than a process may hold files open.
        with self._path.open("rb") as file:
            file.seek(self._start + self._position)
            data = file.read(size)
        self._position += len(data)
        return data

    def close(self) -> None:
        """Nothing is held open."""


class Store:
    """Not safe for several threads at once: the caller holds a lock around it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def load(self, backend: Any, region: str) -> None:
        """Fill moto's backend with every object, and the buckets that they are in."""
        for path in self._folder.glob("*/*"):
            if path.suffix:
                path.unlink()  # a write that was killed
                continue
            with path.open("rb") as file:
                line = file.readline()
            document = json.loads(line)
            if document["bucket"] not in backend.buckets:
                backend.create_bucket(document["bucket"], region)
            bucket = backend.buckets[document["bucket"]]
            bucket.keys[document["name"]] = _restore(bucket, document, Content(path, len(line)))

    def save(self, backend: Any, bucket_name: str, key_name: str) -> None:
        """Make the disk agree with what moto holds under the key: an object, or nothing."""
        path = self._path(bucket_name, key_name)
        bucket = backend.buckets.get(bucket_name)
        key: Any = bucket.keys.get(key_name) if bucket is not None else None
        if not isinstance(key, FakeKey):
            path.unlink(missing_ok=True)
            return
        held: Any = key._value_buffer  # noqa: SLF001
        if isinstance(held, Content):
            return
        line = json.dumps(_describe(bucket_name, key)).encode() + b"\n"
        path.parent.mkdir(exist_ok=True)
        beside = path.with_suffix(".tmp")
        beside.write_bytes(line + key.value)
        beside.rename(path)
        held.close()
        key._value_buffer = Content(path, len(line))  # type: ignore[assignment] # noqa: SLF001

    def clear(self) -> None:
        shutil.rmtree(self._folder)
        self._folder.mkdir()

    def _path(self, bucket: str, key: str) -> Path:
        name = hashlib.sha256(f"{bucket}/{key}".encode()).hexdigest()
        return self._folder / name[:2] / name


def _describe(bucket: str, key: Any) -> dict[str, Any]:
    return {
        "bucket": bucket,
        "name": key.name,
        "etag": key.etag.strip('"'),
        "size": key.contentsize,
        "last_modified": key.last_modified.isoformat(),
        "storage": key._storage_class,  # noqa: SLF001
        "metadata": dict(key.metadata),
        **{name: getattr(key, name) for name in _PLAIN},
    }


def _restore(bucket: Any, document: dict[str, Any], content: Content) -> Any:
    key: Any = FakeKey(
        name=document["name"],
        value=b"",
        account_id=bucket.account_id,
        region_name=bucket.region_name,
        storage=document["storage"],
        etag=document["etag"],
        bucket_name=bucket.name,
    )
    key._value_buffer.close()  # noqa: SLF001
    key._value_buffer = content  # noqa: SLF001
    key.contentsize = document["size"]
    key.last_modified = datetime.fromisoformat(document["last_modified"])
    key.set_metadata(document["metadata"])
    for name in _PLAIN:
        setattr(key, name, document[name])
    return key
