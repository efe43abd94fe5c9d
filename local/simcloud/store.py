"""Keeps the buckets on disk: an index in SQLite, contents in files of their own.

A content is written beside and renamed before the index names it, and the index changes in one transaction:
after a kill at any moment, an object has either its old content or its new one.
"""

import json
import shutil
import sqlite3
import uuid
from datetime import datetime
from pathlib import Path
from typing import Any

from moto.s3.models import FakeBucket, FakeDeleteMarker, FakeKey

SMALL = 16 * 1024
"""Up to this many bytes stand in the index itself."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS bucket (name TEXT PRIMARY KEY, region TEXT NOT NULL, created TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS configuration (
    bucket TEXT NOT NULL, subresource TEXT NOT NULL, body BLOB NOT NULL, PRIMARY KEY (bucket, subresource)
);
CREATE TABLE IF NOT EXISTS version (
    bucket TEXT NOT NULL, key TEXT NOT NULL, position INTEGER NOT NULL,
    document TEXT NOT NULL, small BLOB, blob TEXT,
    PRIMARY KEY (bucket, key, position)
);
"""

PLAIN = (
    "encryption",
    "kms_key_id",
    "bucket_key_enabled",
    "lock_mode",
    "lock_legal_status",
    "lock_until",
    "checksum_value",
    "checksum_type",
    "checksum_parts",
    "checksum_algorithm",
)


class Content:
    """An object's bytes in the store; takes the place of the temporary file in which moto keeps them."""

    def __init__(self, small: bytes | None, path: Path | None) -> None:
        self._small = small
        self.path = path
        self._position = 0

    def seek(self, position: int) -> None:
        self._position = position

    def read(self, size: int = -1) -> bytes:
        if self.path is None:
            end = None if size < 0 else self._position + size
            data = (self._small or b"")[self._position : end]
        else:
            # Opened for each read: a bucket may hold more objects than a process may hold files.
            with self.path.open("rb") as file:
                file.seek(self._position)
                data = file.read(size)
        self._position += len(data)
        return data

    def close(self) -> None:
        """Nothing is held open."""


class Store:
    """Not for several threads at once: the caller holds a lock around it."""

    def __init__(self, folder: Path) -> None:
        self._blobs = folder / "blobs"
        self._blobs.mkdir(parents=True, exist_ok=True)
        self._index = sqlite3.connect(folder / "index.sqlite", check_same_thread=False, isolation_level=None)
        self._index.execute("PRAGMA journal_mode = WAL")
        self._index.execute("PRAGMA synchronous = NORMAL")
        self._index.executescript(SCHEMA)

    def close(self) -> None:
        self._index.close()

    def load(self, backend: Any) -> list[tuple[str, str, bytes]]:
        """Fill moto's backend; returns the configurations yet to be put: bucket, subresource, body."""
        for name, region, created in self._index.execute(
            "SELECT name, region, created FROM bucket"
        ).fetchall():
            backend.create_bucket(name, region).creation_date = datetime.fromisoformat(created)
        rows = self._index.execute(
            "SELECT bucket, key, document, small, blob FROM version ORDER BY bucket, key, position"
        )
        kept = set()
        for bucket_name, key_name, document, small, blob in rows:
            path = self._path(blob) if blob else None
            if path is not None:
                kept.add(path.name)
            bucket = backend.buckets[bucket_name]
            versions = bucket.keys.getlist(key_name, [])
            version = _restore(bucket, key_name, json.loads(document), Content(small, path), versions)
            bucket.keys.setlist(key_name, [*versions, version])
            if tags := json.loads(document).get("tags"):
                backend.tagger.tag_resource(version.arn, backend.tagger.convert_dict_to_tags_input(tags))
        # Written, but killed before the index named them.
        for path in self._blobs.glob("*/*"):
            if path.name not in kept:
                path.unlink()
        return list(self._index.execute("SELECT bucket, subresource, body FROM configuration"))

    def save_bucket(self, bucket: FakeBucket) -> None:
        self._index.execute(
            "INSERT OR REPLACE INTO bucket VALUES (?, ?, ?)",
            (bucket.name, bucket.region_name, bucket.creation_date.isoformat()),
        )

    def delete_bucket(self, name: str) -> None:
        with self._transaction():
            self._index.execute("DELETE FROM bucket WHERE name = ?", (name,))
            self._index.execute("DELETE FROM configuration WHERE bucket = ?", (name,))

    def save_configuration(self, bucket: str, subresource: str, body: bytes | None) -> None:
        """Keep what was put as a bucket's `?subresource`; None: it was deleted."""
        with self._transaction():
            where = (bucket, subresource)
            self._index.execute("DELETE FROM configuration WHERE bucket = ? AND subresource = ?", where)
            if body is not None:
                self._index.execute("INSERT INTO configuration VALUES (?, ?, ?)", (*where, body))

    def save(self, backend: Any, bucket_name: str, key_name: str) -> None:
        """Write the present versions of a key through; their contents then live in the store alone."""
        bucket = backend.buckets.get(bucket_name)
        versions = bucket.keys.getlist(key_name, []) if bucket is not None else []
        rows = []
        for position, version in enumerate(versions):
            small, blob = None, None
            if isinstance(version, FakeKey):
                content = self._take(version)
                small, blob = content._small, content.path.name if content.path else None  # noqa: SLF001
            rows.append(
                (bucket_name, key_name, position, json.dumps(_describe(backend, version)), small, blob)
            )
        where = (bucket_name, key_name)
        with self._transaction():
            old = self._index.execute(
                "SELECT blob FROM version WHERE bucket = ? AND key = ? AND blob IS NOT NULL", where
            ).fetchall()
            self._index.execute("DELETE FROM version WHERE bucket = ? AND key = ?", where)
            self._index.executemany("INSERT INTO version VALUES (?, ?, ?, ?, ?, ?)", rows)
        for (blob,) in old:
            if blob not in {row[5] for row in rows}:
                self._path(blob).unlink(missing_ok=True)

    def clear(self) -> None:
        with self._transaction():
            for table in ("bucket", "configuration", "version"):
                self._index.execute(f"DELETE FROM {table}")  # noqa: S608 - names of this module
        shutil.rmtree(self._blobs)
        self._blobs.mkdir()

    def _take(self, version: Any) -> Content:
        """Move an object's bytes from moto's memory into the store."""
        buffer = version._value_buffer  # noqa: SLF001
        if isinstance(buffer, Content):
            return buffer
        value = version.value
        if len(value) <= SMALL:
            content = Content(value, None)
        else:
            path = self._path(uuid.uuid4().hex)
            path.parent.mkdir(exist_ok=True)
            beside = path.with_suffix(".tmp")
            beside.write_bytes(value)
            beside.rename(path)
            content = Content(None, path)
        buffer.close()
        version._value_buffer = content  # noqa: SLF001
        return content

    def _path(self, blob: str) -> Path:
        return self._blobs / blob[:2] / blob

    def _transaction(self) -> "_Transaction":
        return _Transaction(self._index)


class _Transaction:
    def __init__(self, index: sqlite3.Connection) -> None:
        self._index = index

    def __enter__(self) -> None:
        self._index.execute("BEGIN IMMEDIATE")

    def __exit__(self, error: object, *_: object) -> None:
        self._index.execute("COMMIT" if error is None else "ROLLBACK")


def _describe(backend: Any, version: Any) -> dict[str, Any]:
    if isinstance(version, FakeDeleteMarker):
        return {
            "marker": True,
            "version_id": version.version_id,
            "last_modified": version.last_modified.isoformat(),
        }
    return {
        "version_id": version._version_id,  # noqa: SLF001
        "is_versioned": version._is_versioned,  # noqa: SLF001
        "etag": version.etag.strip('"'),
        "size": version.contentsize,
        "last_modified": version.last_modified.isoformat(),
        "storage": version._storage_class,  # noqa: SLF001
        "metadata": dict(version.metadata),
        "tags": backend.tagger.get_tag_dict_for_resource(version.arn),
        **{name: getattr(version, name) for name in PLAIN},
    }


def _restore(bucket: Any, name: str, document: dict[str, Any], content: Content, before: list[Any]) -> Any:
    if document.get("marker"):
        marker = FakeDeleteMarker(before[-1])
        marker._version_id = document["version_id"]  # noqa: SLF001
        marker.last_modified = datetime.fromisoformat(document["last_modified"])
        return marker
    version: Any = FakeKey(
        name=name,
        value=b"",
        account_id=bucket.account_id,
        region_name=bucket.region_name,
        storage=document["storage"],
        etag=document["etag"],
        is_versioned=document["is_versioned"],
        version_id=document["version_id"],
        bucket_name=bucket.name,
    )
    version._value_buffer.close()  # noqa: SLF001
    version._value_buffer = content  # noqa: SLF001
    version.contentsize = document["size"]
    version.last_modified = datetime.fromisoformat(document["last_modified"])
    version.set_metadata(document["metadata"])
    for attribute in PLAIN:
        setattr(version, attribute, document[attribute])
    return version
