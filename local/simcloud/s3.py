"""What moto's S3 does not do: one write at a time, verified checksums, links that expire, and a disk."""

import base64
import binascii
import hashlib
import io
import logging
import threading
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from moto.s3.models import S3Backend, s3_backends

from local.simcloud.patches import Patches
from local.simcloud.settings import ACCOUNT
from local.simcloud.store import Store

logger = logging.getLogger("simcloud")

Environ = dict[str, Any]

BUCKET_CONFIGURATIONS = frozenset(
    {
        "accelerate",
        "acl",
        "cors",
        "encryption",
        "lifecycle",
        "logging",
        "notification",
        "object-lock",
        "ownershipControls",
        "policy",
        "publicAccessBlock",
        "replication",
        "tagging",
        "versioning",
        "website",
    }
)

DIGESTS: dict[str, Callable[[bytes], bytes]] = {
    "crc32": lambda body: binascii.crc32(body).to_bytes(4, "big"),
    "sha1": lambda body: hashlib.sha1(body, usedforsecurity=False).digest(),
    "sha256": lambda body: hashlib.sha256(body).digest(),
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
    query: dict[str, str]
    method: str

    @classmethod
    def of(cls, environ: Environ) -> "Target":
        path = environ["PATH_INFO"].encode("latin-1").decode("utf-8", errors="replace")
        bucket, _, key = path.lstrip("/").partition("/")
        query = dict(urllib.parse.parse_qsl(environ.get("QUERY_STRING", ""), keep_blank_values=True))
        return cls(bucket, key, query, environ["REQUEST_METHOD"])

    def action(self, environ: Environ) -> str:  # noqa: PLR0911 - one for each shape of a request
        """The name that AWS gives this call, for the faults."""
        query, method = self.query, self.method
        if not self.bucket:
            return "ListBuckets"
        if self.key:
            copying = "HTTP_X_AMZ_COPY_SOURCE" in environ
            if "uploadId" in query:
                part = "UploadPartCopy" if copying else "UploadPart"
                names = {"PUT": part, "POST": "CompleteMultipartUpload", "DELETE": "AbortMultipartUpload"}
                return names.get(method, "ListParts")
            if "uploads" in query:
                return "CreateMultipartUpload"
            if "tagging" in query:
                return f"{method.capitalize()}ObjectTagging"
            if method == "PUT" and copying:
                return "CopyObject"
            return f"{method.capitalize()}Object"
        for name in sorted(BUCKET_CONFIGURATIONS & query.keys()):
            return f"{method.capitalize()}Bucket{name[0].upper()}{name[1:]}"
        if "delete" in query:
            return "DeleteObjects"
        if method == "GET":
            if "uploads" in query:
                return "ListMultipartUploads"
            if "versions" in query:
                return "ListObjectVersions"
            return "ListObjectsV2" if query.get("list-type") == "2" else "ListObjects"
        return {"PUT": "CreateBucket", "DELETE": "DeleteBucket", "HEAD": "HeadBucket"}.get(method, method)


class Storage:
    """Stands before moto's S3."""

    def __init__(self, store: Store, patches: Patches) -> None:
        self._store = store
        self._patches = patches
        self._lock = threading.Lock()
        self._touched: set[tuple[str, str]] = set()
        self._loading = False

    def install(self) -> None:
        """Have moto say which objects it touches."""
        for name in ("put_object", "delete_object", "delete_object_tagging"):
            self._patches.set(S3Backend, name, self._touching(getattr(S3Backend, name)))
        tag, create, delete = S3Backend.put_object_tagging, S3Backend.create_bucket, S3Backend.delete_bucket

        def put_object_tagging(backend: Any, key: Any, tags: Any) -> Any:
            self._touched.add((key.bucket_name, key.name))
            return tag(backend, key, tags)

        def create_bucket(backend: Any, *args: Any, **kwargs: Any) -> Any:
            bucket = create(backend, *args, **kwargs)
            if not self._loading:
                self._store.save_bucket(bucket)
            return bucket

        def delete_bucket(backend: Any, bucket_name: str) -> Any:
            deleted = delete(backend, bucket_name)
            if deleted is not None:
                self._store.delete_bucket(bucket_name)
            return deleted

        self._patches.set(S3Backend, "put_object_tagging", put_object_tagging)
        self._patches.set(S3Backend, "create_bucket", create_bucket)
        self._patches.set(S3Backend, "delete_bucket", delete_bucket)

    def _touching(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def touch(backend: Any, bucket_name: str, key_name: str, *args: Any, **kwargs: Any) -> Any:
            self._touched.add((bucket_name, key_name))
            return original(backend, bucket_name, key_name, *args, **kwargs)

        return touch

    def handle(
        self, environ: Environ, body: bytes, forward: Callable[[Environ], tuple[str, Any, bytes]]
    ) -> tuple[str, Any, bytes]:
        """Check the request, let moto answer it, and write through what it changed. Raises S3Error."""
        target = Target.of(environ)
        _check_expiry(target.query, datetime.now(UTC))
        body = _unchunk(environ, body)
        _check_content(environ, body)
        environ["wsgi.input"] = io.BytesIO(body)
        environ["CONTENT_LENGTH"] = str(len(body))
        # A condition (If-None-Match) must still hold when the object is written, and nobody may read an
        # object whose file is just being replaced.
        with self._lock:
            self._touched.clear()
            backend = s3_backends[ACCOUNT]["aws"]
            if target.action(environ) == "CopyObject":
                _check_copy(backend, target, environ)
            status, headers, content = forward(environ)
            for bucket, key in sorted(self._touched):
                self._store.save(backend, bucket, key)
            if status.startswith("2") and not target.key:
                self._keep_configuration(target, body)
        return status, headers, content

    def _keep_configuration(self, target: Target, body: bytes) -> None:
        for subresource in BUCKET_CONFIGURATIONS & target.query.keys():
            if target.method in ("PUT", "DELETE"):
                self._store.save_configuration(
                    target.bucket, subresource, body if target.method == "PUT" else None
                )

    def load(self, forward: Callable[[Environ], tuple[str, Any, bytes]]) -> None:
        """Fill moto from the store."""
        self._loading = True
        configurations = self._store.load(s3_backends[ACCOUNT]["aws"])
        self._loading = False
        for bucket, subresource, body in configurations:
            status, _, _ = forward(
                {
                    "REQUEST_METHOD": "PUT",
                    "SCRIPT_NAME": "",
                    "PATH_INFO": f"/{bucket}",
                    "QUERY_STRING": subresource,
                    "SERVER_NAME": "localhost",
                    "SERVER_PORT": "80",
                    "HTTP_HOST": "127.0.0.1",
                    "SERVER_PROTOCOL": "HTTP/1.1",
                    "HTTP_AUTHORIZATION": "AWS4-HMAC-SHA256 Credential=a/20260101/us-east-1/s3/aws4_request",
                    "CONTENT_LENGTH": str(len(body)),
                    "wsgi.url_scheme": "http",
                    "wsgi.input": io.BytesIO(body),
                    "wsgi.errors": io.StringIO(),
                    "wsgi.version": (1, 0),
                    "wsgi.multithread": True,
                    "wsgi.multiprocess": False,
                    "wsgi.run_once": False,
                }
            )
            if not status.startswith("2"):
                logger.warning(
                    "the %s configuration of the bucket %s was not restored: %s", subresource, bucket, status
                )


def _check_expiry(query: dict[str, str], now: datetime) -> None:
    """Refuse a presigned link that is past its time. Signatures themselves are not checked."""
    expired = S3Error(403, "AccessDenied", "Request has expired")
    try:
        if "X-Amz-Expires" in query:
            signed = datetime.strptime(query["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
            if now > signed + timedelta(seconds=int(query["X-Amz-Expires"])):
                raise expired
        elif "Signature" in query and now.timestamp() > int(query["Expires"]):
            raise expired
    except (KeyError, ValueError) as error:
        raise S3Error(
            400,
            "AuthorizationQueryParametersError",
            "The signature's date or lifetime is missing or malformed.",
        ) from error


def _check_copy(backend: S3Backend, target: Target, environ: Environ) -> None:
    """Refuse a copy whose conditions do not hold. moto checks those of other writes, but not of copies."""
    failed = S3Error(412, "PreconditionFailed", "At least one of the preconditions did not hold")
    there = backend.get_object(target.bucket, target.key)
    if environ.get("HTTP_IF_NONE_MATCH") == "*" and there is not None:
        raise failed
    if expected := environ.get("HTTP_IF_MATCH"):
        if there is None:
            raise S3Error(404, "NoSuchKey", "The specified key does not exist.")
        if there.etag != expected:
            raise failed
    if expected := environ.get("HTTP_X_AMZ_COPY_SOURCE_IF_MATCH"):
        bucket, _, key = urllib.parse.unquote(environ["HTTP_X_AMZ_COPY_SOURCE"]).lstrip("/").partition("/")
        source = backend.get_object(bucket, key.partition("?versionId=")[0])
        if source is not None and source.etag != expected:
            raise failed


def _unchunk(environ: Environ, body: bytes) -> bytes:
    """Undo the aws-chunked encoding; a checksum after the content becomes a header, as moto wants it."""
    if not environ.get("HTTP_X_AMZ_CONTENT_SHA256", "").startswith("STREAMING-"):
        return body
    source, parts = io.BytesIO(body), []
    while size := int(source.readline().split(b";")[0].strip() or b"0", 16):
        parts.append(source.read(size))
        source.readline()
    for line in source.read().decode("latin-1").splitlines():
        name, _, value = line.partition(":")
        if name.strip().startswith("x-amz-checksum-"):
            environ["HTTP_" + name.strip().upper().replace("-", "_")] = value.strip()
    environ["HTTP_X_AMZ_CONTENT_SHA256"] = "UNSIGNED-PAYLOAD"
    encodings = [each.strip() for each in environ.pop("HTTP_CONTENT_ENCODING", "").split(",")]
    if kept := ",".join(each for each in encodings if each not in ("", "aws-chunked")):
        environ["HTTP_CONTENT_ENCODING"] = kept
    return b"".join(parts)


def _check_content(environ: Environ, body: bytes) -> None:
    """Compare the content with every digest that came with it."""
    if environ["REQUEST_METHOD"] not in ("PUT", "POST"):
        return
    if given := environ.get("HTTP_CONTENT_MD5"):
        try:
            digest = base64.b64decode(given, validate=True)
        except binascii.Error:
            digest = b""
        if len(digest) != 16:
            raise S3Error(400, "InvalidDigest", "The Content-MD5 you specified was invalid.")
        if hashlib.md5(body, usedforsecurity=False).digest() != digest:
            raise S3Error(400, "BadDigest", "The Content-MD5 you specified did not match what we received.")
    signed = environ.get("HTTP_X_AMZ_CONTENT_SHA256", "")
    if len(signed) == 64 and hashlib.sha256(body).hexdigest() != signed:
        raise S3Error(
            400,
            "XAmzContentSHA256Mismatch",
            "The provided 'x-amz-content-sha256' header does not match what was computed.",
        )
    # When parts are put together the checksum is made from theirs.
    completing = environ["REQUEST_METHOD"] == "POST" and "uploadId=" in environ.get("QUERY_STRING", "")
    for algorithm, digest_of in DIGESTS.items():
        expected = environ.get(f"HTTP_X_AMZ_CHECKSUM_{algorithm.upper()}")
        if not expected or "-" in expected or completing:
            continue
        if base64.b64encode(digest_of(body)).decode() != expected:
            raise S3Error(
                400,
                "BadDigest",
                f"The {algorithm.upper()} you specified did not match the calculated checksum.",
            )
        # moto keeps a checksum only if its algorithm is named too, which S3 does not ask for.
        environ.setdefault("HTTP_X_AMZ_SDK_CHECKSUM_ALGORITHM", algorithm.upper())
