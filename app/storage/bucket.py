"""The registry's bucket. Writes are conditional, so that nothing is overwritten by accident."""

import base64
import contextlib
import hashlib
import io
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from app.aws import CloudError, CloudNotFound, PreconditionFailed, s3_client, translated
from app.settings import Settings
from app.storage.deleting import Deleter

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_BLOCK = 1 << 20
_RANGE = 1 << 16


class KeyTaken(Exception):
    """The key already holds different content, which was not replaced."""

    def __init__(self, key: str, owner: str | None) -> None:
        super().__init__(key)
        self.key = key
        self.owner = owner


@dataclass(frozen=True)
class FileDigest:
    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class Downloaded:
    """What was downloaded, and which object it was. Without versioning, the object has no version."""

    content: FileDigest
    etag: str
    version: str | None


@dataclass(frozen=True)
class Listed:
    """An object as a listing shows it."""

    key: str
    size_bytes: int
    etag: str
    modified: datetime


@dataclass(frozen=True)
class Fetched:
    """A small object with its content. `build_id` is as in ObjectInfo."""

    content: bytes
    etag: str
    build_id: str | None


@dataclass(frozen=True)
class ObjectInfo:
    """An object of the bucket.

    `sha256` is the digest that S3 computed when the object arrived. It is None if the writer did not ask for
    it, or uploaded in parts. `build_id` is set if a build of the registry wrote the object.
    """

    key: str
    size_bytes: int
    etag: str
    sha256: str | None
    build_id: str | None

    def holds(self, content: bytes) -> bool:
        """Whether the object has these bytes. Without a digest, only an empty object can be recognised."""
        if self.size_bytes != len(content):
            return False
        return not content or self.sha256 == hashlib.sha256(content).hexdigest()


def _sha256_of(checksum: str | None) -> str | None:
    """S3's base64 checksum as hex digits. None for an upload in parts, whose checksum is another."""
    return base64.b64decode(checksum).hex() if checksum is not None and "-" not in checksum else None


def _condition(over: ObjectInfo | None) -> dict[str, str]:
    return {"IfNoneMatch": "*"} if over is None else {"IfMatch": over.etag}


def digest_of(source: Path) -> FileDigest:
    with source.open("rb") as file:
        return _digest(file)


def _digest(file: IO[bytes]) -> FileDigest:
    digest, size = hashlib.sha256(), 0
    while block := file.read(_BLOCK):
        digest.update(block)
        size += len(block)
    return FileDigest(digest.hexdigest(), size)


class _Ranged(io.RawIOBase):
    """A seekable file that fetches ranges of an object's bytes."""

    def __init__(self, client: "S3Client", bucket: str, found: ObjectInfo) -> None:
        self._client, self._bucket, self._found = client, bucket, found
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._found.size_bytes}[whence]
        self._at = max(0, start + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        wanted = min(len(buffer), self._found.size_bytes - self._at)
        if wanted <= 0:
            return 0
        with translated():
            body = self._client.get_object(
                Bucket=self._bucket,
                Key=self._found.key,
                IfMatch=self._found.etag,
                Range=f"bytes={self._at}-{self._at + wanted - 1}",
            )["Body"].read()
        buffer[: len(body)] = body
        self._at += len(body)
        return len(body)


class Bucket:
    """The bucket. Every failure of AWS is raised as a CloudError."""

    def __init__(
        self,
        client: "S3Client",
        name: str,
        make_probe: "Callable[[], S3Client] | None" = None,
        *,
        delete_versions: bool = False,
    ) -> None:
        """`make_probe` makes a client that gives up quickly, when one is first needed; without it there is
        only `client`. `delete_versions` is as in the settings of garbage collection.
        """
        self._client = client
        self._make_probe = make_probe
        self.name = name
        self._delete_versions = delete_versions
        self._presign = lru_cache(maxsize=4096)(self._presign_in_period)

    @classmethod
    def of(cls, settings: Settings) -> "Bucket":
        return cls(
            s3_client(settings),
            settings.bucket,
            partial(s3_client, settings, probing=True),
            delete_versions=settings.gc_delete_versions,
        )

    @cached_property
    def _probe(self) -> "S3Client":
        return self._make_probe() if self._make_probe is not None else self._client

    def head(self, key: str, *, version: str | None = None, patient: bool = True) -> ObjectInfo | None:
        """The object's size and digest, or those of one of its versions. None if there is no such object.

        Without patience, there is one try of a few seconds.
        """
        client = self._client if patient else self._probe
        which = {"Bucket": self.name, "Key": key} | ({} if version is None else {"VersionId": version})
        try:
            with translated():
                found = client.head_object(**which, ChecksumMode="ENABLED")  # type: ignore[arg-type]
        except CloudNotFound:
            return None
        return ObjectInfo(
            key,
            found["ContentLength"],
            found["ETag"],
            _sha256_of(found.get("ChecksumSHA256")),
            found["Metadata"].get("build-id"),
        )

    def list(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        """Keys and sizes in bytes, in the bucket's order."""
        for item in self.listed(prefix):
            yield item.key, item.size_bytes

    def listed(self, prefix: str = "", *, after: str = "") -> Iterator[Listed]:
        """The objects in the bucket's order, from the first key that comes after `after`."""
        with translated():
            for page in self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self.name, Prefix=prefix, StartAfter=after
            ):
                for item in page.get("Contents", []):
                    yield Listed(item["Key"], item["Size"], item["ETag"], item["LastModified"])

    def fetch(self, key: str, limit_bytes: int) -> Fetched:
        """A small object as a whole; of a larger one, only its first bytes. Raises CloudNotFound."""
        with translated():
            found = self._client.get_object(Bucket=self.name, Key=key)
            with contextlib.closing(found["Body"]) as body:
                content = body.read(limit_bytes)
        return Fetched(content, found["ETag"], found["Metadata"].get("build-id"))

    def download(self, key: str, to: Path) -> Downloaded:
        """Raises CloudNotFound."""
        with to.open("wb") as file:
            return self._read(key, file)

    def open(self, found: ObjectInfo, *, patient: bool = True) -> IO[bytes]:
        """A seekable file over the object that `head` found. Only the bytes that are read are fetched.

        Without patience, each fetch is one try of a few seconds.

        Reading raises CloudError, and PreconditionFailed if the object has changed.
        """
        client = self._client if patient else self._probe
        return io.BufferedReader(_Ranged(client, self.name, found), _RANGE)

    def digest(self, key: str) -> FileDigest:
        """Read the whole object and compute its digest. Raises CloudNotFound."""
        return self._read(key, None).content

    def digest_of(self, found: ObjectInfo, check: Callable[[], object]) -> str:
        """The sha256 of the object that `head` found, which is read for it.

        `check` is called between blocks, and ends the reading by what it raises. Raises CloudNotFound, and
        PreconditionFailed when the object has changed.
        """
        digest = hashlib.sha256()
        with translated():
            body = self._client.get_object(Bucket=self.name, Key=found.key, IfMatch=found.etag)["Body"]
            with contextlib.closing(body):
                while block := body.read(_BLOCK):
                    check()
                    digest.update(block)
        return digest.hexdigest()

    def _read(self, key: str, to: IO[bytes] | None) -> Downloaded:
        digest, size = hashlib.sha256(), 0
        with translated():
            found = self._client.get_object(Bucket=self.name, Key=key)
            body = found["Body"]
            while block := body.read(_BLOCK):
                digest.update(block)
                size += len(block)
                if to is not None:
                    to.write(block)
        return Downloaded(FileDigest(digest.hexdigest(), size), found["ETag"], found.get("VersionId"))

    def put_once(
        self, key: str, source: Path, content: FileDigest, *, content_type: str, build_id: str = ""
    ) -> bool:
        """Write the object, unless it already exists with the same content. Returns whether it was written.

        S3 itself checks the digest on arrival. Raises KeyTaken if the key holds anything else.
        """
        try:
            self._put(key, source, content, content_type, build_id, {"IfNoneMatch": "*"})
            return True
        except PreconditionFailed:
            # An earlier try, or a request whose answer was lost, may have written the same content.
            there = self.head(key)
            if there is None or there.sha256 != content.sha256 or there.size_bytes != content.size_bytes:
                raise KeyTaken(key, there.build_id if there else None) from None
            return False

    def _put(
        self,
        key: str,
        source: Path,
        content: FileDigest,
        content_type: str,
        build_id: str,
        condition: dict[str, str],
    ) -> None:
        metadata = {"sha256": content.sha256} | ({"build-id": build_id} if build_id else {})
        with source.open("rb") as body, translated():
            self._client.put_object(
                Bucket=self.name,
                Key=key,
                Body=body,
                ContentType=content_type,
                ChecksumSHA256=base64.b64encode(bytes.fromhex(content.sha256)).decode(),
                Metadata=metadata,
                **condition,  # type: ignore[arg-type]
            )

    def write(self, key: str, content: bytes, *, over: ObjectInfo | None) -> None:
        """Write the bytes. `over` is what `head` found at the key, or None if there was no object.

        Raises PreconditionFailed if the key has changed since then.
        """
        with translated():
            self._client.put_object(
                Bucket=self.name,
                Key=key,
                Body=content,
                ChecksumSHA256=base64.b64encode(hashlib.sha256(content).digest()).decode(),
                **_condition(over),  # type: ignore[arg-type]
            )

    def copy(self, source: ObjectInfo, key: str, *, over: ObjectInfo | None) -> None:
        """Copy an object with its metadata. `over` is what `head` found at the key, or None for no object.

        Raises PreconditionFailed if the source or the key has changed since then.
        """
        with translated():
            self._client.copy_object(
                Bucket=self.name,
                Key=key,
                CopySource={"Bucket": self.name, "Key": source.key},
                CopySourceIfMatch=source.etag,
                **_condition(over),  # type: ignore[arg-type]
            )

    def adopt(
        self,
        source: ObjectInfo,
        key: str,
        *,
        content_type: str,
        build_id: str,
        over: ObjectInfo | None = None,
    ) -> None:
        """Copy an object of another build as one of this build. The content stays, and its digest.

        `over` is what `head` found at the key, or None for no object. Raises PreconditionFailed if the source
        or the key has changed since then.
        """
        metadata = {"build-id": build_id} | ({"sha256": source.sha256} if source.sha256 else {})
        with translated():
            self._client.copy_object(
                Bucket=self.name,
                Key=key,
                CopySource={"Bucket": self.name, "Key": source.key},
                CopySourceIfMatch=source.etag,
                ContentType=content_type,
                Metadata=metadata,
                MetadataDirective="REPLACE",
                **_condition(over),  # type: ignore[arg-type]
            )

    def delete(self, key: str, *, only: ObjectInfo | None = None) -> None:
        """Delete the key's object, or only the one that `head` found (`only`). It may be gone already.

        Raises PreconditionFailed if the key now holds something other than `only`.
        """
        with contextlib.suppress(CloudNotFound), translated():
            if only is None:
                self._client.delete_object(Bucket=self.name, Key=key)
            else:
                self._client.delete_object(Bucket=self.name, Key=key, IfMatch=only.etag)

    @cached_property
    def deleter(self) -> Deleter:
        """For what deletes many objects."""
        return Deleter(self._client, self.name, every_version=self._delete_versions)

    def presign(self, key: str, lifetime_s: int) -> str:
        """A URL from which anybody can download the object. It is valid for at least half the lifetime."""
        return self._presign(key, lifetime_s, self.signing_period(lifetime_s))

    def signing_period(self, lifetime_s: int) -> int:
        """The number of the current half of a lifetime. URLs of an earlier period must not be handed out."""
        return int(time.time() // max(1, lifetime_s // 2))

    def _presign_in_period(self, key: str, lifetime_s: int, _period: int) -> str:
        # Signing takes longer than the query before it, so one signature is used for half a lifetime.
        with translated():
            return self._client.generate_presigned_url(
                "get_object", Params={"Bucket": self.name, "Key": key}, ExpiresIn=lifetime_s
            )

    def check(self) -> None:
        """Raises CloudError within seconds if the bucket cannot be reached."""
        try:
            with translated():
                self._probe.head_bucket(Bucket=self.name)
        except CloudNotFound as exc:
            message = f"there is no bucket {self.name!r}. Set REGISTRY_BUCKET, or create the bucket"
            raise CloudError(exc.code, message) from exc
