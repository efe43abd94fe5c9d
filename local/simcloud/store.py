"""Keeps the objects of the simulated S3 on disk, one file for each of their versions.

The first line of a file is JSON: which object it is, and what S3 knows about it. The content follows. A file
is written beside its place and then renamed, so after a kill at any moment each object is either old or new.
Another file names the buckets that keep versions.
"""

import hashlib
import json
import shutil
import time
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from moto.s3.models import FakeDeleteMarker, FakeKey

# The version of an object in a bucket that kept no versions when it was written.
_UNVERSIONED = "null"

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
        if self._versioning.exists():
            for name in json.loads(self._versioning.read_text()):
                backend.create_bucket(name, region)
                backend.put_bucket_versioning(name, "Enabled")
        found = []
        for path in self._folder.glob("*/*"):
            if path.suffix:
                path.unlink()  # a write that was killed
                continue
            with path.open("rb") as file:
                line = file.readline()
            found.append((json.loads(line), Content(path, len(line))))
        # The versions of an object are put one after the other, the newest last.
        found.sort(key=lambda one: one[0].get("written_ns", 0))
        for document, content in found:
            if document["bucket"] not in backend.buckets:
                backend.create_bucket(document["bucket"], region)
            bucket = backend.buckets[document["bucket"]]
            is_delete = document.get("is_delete", False)
            bucket.keys[document["name"]] = (
                _restore_delete(document) if is_delete else _restore(bucket, document, content)
            )

    def save(self, backend: Any, bucket_name: str, key_name: str) -> None:
        """Make the disk agree with what moto holds under the key: an object, its versions, or nothing."""
        bucket = backend.buckets.get(bucket_name)
        versions = [] if bucket is None else bucket.keys.getlist(key_name, [])
        wanted = {self._path(bucket_name, key_name, one.version_id): one for one in versions}
        plain = self._path(bucket_name, key_name, _UNVERSIONED)
        there = {plain}
        if bucket is not None and bucket.is_versioned:
            there.update(plain.parent.glob(f"{plain.name}-*"))
        for path in there - wanted.keys():
            path.unlink(missing_ok=True)
        for path, version in wanted.items():
            if isinstance(version, FakeKey):
                self._write_object(path, bucket_name, version)
            elif not path.exists():
                self._write(path, _describe_delete(bucket_name, version), b"")

    def save_versioning(self, backend: Any) -> None:
        """Write down which buckets keep versions."""
        names = sorted(name for name, bucket in backend.buckets.items() if bucket.is_versioned)
        beside = self._versioning.with_suffix(".tmp")
        beside.write_text(json.dumps(names))
        beside.rename(self._versioning)

    def _write_object(self, path: Path, bucket_name: str, key: Any) -> None:
        held: Any = key._value_buffer  # noqa: SLF001
        if isinstance(held, Content):
            return
        start = self._write(path, _describe(bucket_name, key), key.value)
        held.close()
        key._value_buffer = Content(path, start)  # noqa: SLF001

    def _write(self, path: Path, document: dict[str, Any], content: bytes) -> int:
        """Write the file. Returns where the content starts in it."""
        line = json.dumps(document | {"written_ns": time.time_ns()}).encode() + b"\n"
        path.parent.mkdir(exist_ok=True)
        beside = path.with_suffix(".tmp")
        beside.write_bytes(line + content)
        beside.rename(path)
        return len(line)

    def clear(self) -> None:
        shutil.rmtree(self._folder)
        self._folder.mkdir()

    @property
    def _versioning(self) -> Path:
        return self._folder / "versioning.json"

    def _path(self, bucket: str, key: str, version: str) -> Path:
        name = hashlib.sha256(f"{bucket}/{key}".encode()).hexdigest()
        return self._folder / name[:2] / (name if version == _UNVERSIONED else f"{name}-{version}")


def _describe(bucket: str, key: Any) -> dict[str, Any]:
    return {
        "bucket": bucket,
        "name": key.name,
        "version": key.version_id,
        "etag": key.etag.strip('"'),
        "size": key.contentsize,
        "last_modified": key.last_modified.isoformat(),
        "storage": key._storage_class,  # noqa: SLF001
        "metadata": dict(key.metadata),
        **{name: getattr(key, name) for name in _PLAIN},
    }


def _restore(bucket: Any, document: dict[str, Any], content: Content) -> Any:
    version = document.get("version", _UNVERSIONED)
    key: Any = FakeKey(
        name=document["name"],
        value=b"",
        account_id=bucket.account_id,
        region_name=bucket.region_name,
        storage=document["storage"],
        etag=document["etag"],
        bucket_name=bucket.name,
        is_versioned=version != _UNVERSIONED,
        version_id=version,
    )
    key._value_buffer.close()  # noqa: SLF001
    key._value_buffer = content  # noqa: SLF001
    key.contentsize = document["size"]
    key.last_modified = datetime.fromisoformat(document["last_modified"])
    key.set_metadata(document["metadata"])
    for name in _PLAIN:
        setattr(key, name, document[name])
    return key


def _describe_delete(bucket: str, marker: FakeDeleteMarker) -> dict[str, Any]:
    return {
        "bucket": bucket,
        "name": marker.name,
        "version": marker.version_id,
        "is_delete": True,
        "last_modified": marker.last_modified.isoformat(),
    }


def _restore_delete(document: dict[str, Any]) -> FakeDeleteMarker:
    # Of the key, moto reads only the name.
    marker = FakeDeleteMarker(SimpleNamespace(name=document["name"]))  # type: ignore[arg-type]
    marker._version_id = document["version"]  # noqa: SLF001
    marker.last_modified = datetime.fromisoformat(document["last_modified"])
    return marker
