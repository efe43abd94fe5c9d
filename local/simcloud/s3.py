"""What moto's S3 does not do: atomic conditions on every write, checksums, links that expire, and a disk.

A bucket can keep versions. It cannot stop keeping them, because moto would then forget those that are there.
"""

import base64
import binascii
import hashlib
import threading
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from xml.etree import ElementTree as ET

from moto.s3.models import FakeKey, s3_backends

from local.simcloud.settings import ACCOUNT
from local.simcloud.store import Store

Environ = dict[str, Any]
Answer = tuple[str, Any, bytes]

# The names that AWS gives to calls, by the part of the query that tells them apart and the method.
OBJECT_ACTIONS = {
    "uploads": {"POST": "CreateMultipartUpload"},
    "uploadId": {
        "PUT": "UploadPart",
        "POST": "CompleteMultipartUpload",
        "DELETE": "AbortMultipartUpload",
        "GET": "ListParts",
    },
}
BUCKET_ACTIONS = {
    "delete": {"POST": "DeleteObjects"},
    "list-type": {"GET": "ListObjectsV2"},
    "uploads": {"GET": "ListMultipartUploads"},
    "versions": {"GET": "ListObjectVersions"},
    "": {"GET": "ListObjects", "PUT": "CreateBucket", "DELETE": "DeleteBucket", "HEAD": "HeadBucket"},
}
# Of two versions of an object, moto takes the one with the later time for the newer one.
_TICK = timedelta(milliseconds=1)
CONDITIONAL = ("PutObject", "CopyObject", "CompleteMultipartUpload", "DeleteObject")

DIGESTS: dict[str, Callable[[bytes], bytes]] = {
    "CRC32": lambda body: binascii.crc32(body).to_bytes(4, "big"),
    "SHA256": lambda body: hashlib.sha256(body).digest(),
}


class S3Error(Exception):
    """What S3 would answer instead."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message


@dataclass(frozen=True)
class Target:
    """What a request is about."""

    bucket: str
    key: str
    action: str
    """As AWS names it: `PutObject`, `ListObjectsV2`."""
    query: dict[str, str]

    @classmethod
    def of(cls, environ: Environ) -> "Target":
        path = environ["PATH_INFO"].encode("latin-1").decode("utf-8", errors="replace")
        bucket, _, key = path.lstrip("/").partition("/")
        query = dict(urllib.parse.parse_qsl(environ.get("QUERY_STRING", ""), keep_blank_values=True))
        action = _action(bucket, key, query, environ["REQUEST_METHOD"])
        if action == "PutObject" and "HTTP_X_AMZ_COPY_SOURCE" in environ:
            action = "CopyObject"
        return cls(bucket, key, action, query)


def _action(bucket: str, key: str, query: dict[str, str], method: str) -> str:
    if not bucket:
        return "ListBuckets"
    kind, actions = ("Object", OBJECT_ACTIONS) if key else ("Bucket", BUCKET_ACTIONS)
    for part in actions:
        if part in query and method in actions[part]:
            return actions[part][method]
    # `?versioning` and the like: PutBucketVersioning.
    subresource = next((name for name, value in query.items() if not value and name.isalpha()), "")
    if subresource or key:
        return f"{method.capitalize()}{kind}{subresource[:1].upper()}{subresource[1:]}"
    return BUCKET_ACTIONS[""].get(method, method)


class Storage:
    """Stands before moto's S3."""

    def __init__(self, store: Store, region: str) -> None:
        self._store = store
        self._lock = threading.Lock()
        store.load(s3_backends[ACCOUNT]["aws"], region)

    def handle(self, environ: Environ, body: bytes, forward: Callable[[Environ], Answer]) -> Answer:
        """Check the request, let moto answer it, and write what it changed to disk. Raises S3Error."""
        target = Target.of(environ)
        if target.action == "PutBucketVersioning" and b"<Status>Enabled</Status>" not in body:
            raise S3Error(501, "NotImplemented", "The simulated S3 cannot stop keeping versions of objects.")
        _check_expiry(target.query, datetime.now(UTC))
        _check_content(environ, body, target.action)
        # A condition must still hold at the moment when the object is written, and nobody may read an object
        # whose file is being replaced.
        with self._lock:
            if target.action in CONDITIONAL:
                self._check_conditions(environ, target)
            answer = forward(environ)
            self._keep(target, body)
        return answer

    def _keep(self, target: Target, body: bytes) -> None:
        """Write to disk what a call has changed."""
        backend = s3_backends[ACCOUNT]["aws"]
        if target.action == "PutBucketVersioning":
            self._store.save_versioning(backend)
        for key in _changed(target, body):
            versions = _versions(target.bucket, key)
            if len(versions) > 1:
                earliest = versions[-2].last_modified + _TICK
                versions[-1].last_modified = max(versions[-1].last_modified, earliest)
            self._store.save(backend, target.bucket, key)

    def _check_conditions(self, environ: Environ, target: Target) -> None:
        """Apply If-Match and If-None-Match to a write, because moto ignores them on some calls.

        Raises S3Error.
        """
        expected, absent = environ.pop("HTTP_IF_MATCH", None), environ.pop("HTTP_IF_NONE_MATCH", None)
        there = _current(target.bucket, target.key)
        if absent is not None and absent != "*":
            raise S3Error(501, "NotImplemented", "With a write, S3 takes no other If-None-Match than *.")
        if expected is not None and there is None:
            raise S3Error(404, "NoSuchKey", "The specified key does not exist.")
        held = [_same(expected, there)]
        if target.action == "CopyObject":
            held.append(_same(environ.pop("HTTP_X_AMZ_COPY_SOURCE_IF_MATCH", None), _source(environ)))
        if not all(held) or (absent is not None and there is not None):
            message = "At least one of the pre-conditions you specified did not hold"
            raise S3Error(412, "PreconditionFailed", message)


def _same(expected: str | None, there: Any) -> bool:
    """Whether an object has the tag that a condition names, if there are both."""
    return expected in (None, "*") or there is None or str(expected).strip('"') == there.etag.strip('"')


def _source(environ: Environ) -> Any:
    """The object that a copy is made of, if there is one."""
    path = urllib.parse.unquote(environ["HTTP_X_AMZ_COPY_SOURCE"]).lstrip("/")
    name, _, key = path.partition("/")
    return _current(name, key)


def _versions(bucket_name: str, key: str) -> list[Any]:
    """The versions of an object, the newest last, and among them the markers of its deletes."""
    bucket = s3_backends[ACCOUNT]["aws"].buckets.get(bucket_name)
    found: list[Any] = [] if bucket is None else bucket.keys.getlist(key, [])
    return found


def _current(bucket_name: str, key: str) -> Any:
    """The object that a reader finds under the key. None if there is none, or if it was deleted."""
    versions = _versions(bucket_name, key)
    return versions[-1] if versions and isinstance(versions[-1], FakeKey) else None


def _changed(target: Target, body: bytes) -> list[str]:
    """The keys whose objects a call may have changed."""
    if target.action in CONDITIONAL:
        return [target.key]
    if target.action == "DeleteObjects":
        return [element.text or "" for element in ET.fromstring(body).iter() if element.tag.endswith("Key")]  # noqa: S314 - from a client of this machine
    return []


def _check_expiry(query: dict[str, str], now: datetime) -> None:
    """Refuse a presigned link that is past its time. Signatures themselves are not checked.

    Raises S3Error.
    """
    if "X-Amz-Expires" not in query:
        return
    try:
        signed = datetime.strptime(query["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        expires = signed + timedelta(seconds=int(query["X-Amz-Expires"]))
    except (KeyError, ValueError) as error:
        message = "The signature's date or lifetime is missing or malformed."
        raise S3Error(400, "AuthorizationQueryParametersError", message) from error
    if now > expires:
        raise S3Error(403, "AccessDenied", "Request has expired")


def _check_content(environ: Environ, body: bytes, action: str) -> None:
    """Compare the content with every checksum that came with it. Raises S3Error."""
    if action == "CompleteMultipartUpload":
        return  # its checksum is made from those of the parts
    for algorithm, digest_of in DIGESTS.items():
        expected = environ.get(f"HTTP_X_AMZ_CHECKSUM_{algorithm}")
        if not expected:
            continue
        if base64.b64encode(digest_of(body)).decode() != expected:
            message = f"The {algorithm} you specified did not match the calculated checksum."
            raise S3Error(400, "BadDigest", message)
        # moto keeps a checksum only if its algorithm is named too, which S3 does not ask for.
        environ.setdefault("HTTP_X_AMZ_SDK_CHECKSUM_ALGORITHM", algorithm)
