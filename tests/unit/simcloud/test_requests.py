"""How requests are told apart and read."""

import base64
import zlib
from datetime import UTC, datetime
from typing import Any

import pytest

from local.simcloud.gateway import identify
from local.simcloud.s3 import S3Error, Target, _check_content, _check_expiry, _unchunk

SCOPE = "AWS4-HMAC-SHA256 Credential=key/20260101/eu-west-2/{}/aws4_request, SignedHeaders=host, Signature=0"


def environ(method: str, path: str = "/", query: str = "", **headers: str) -> dict[str, Any]:
    return {"REQUEST_METHOD": method, "PATH_INFO": path, "QUERY_STRING": query, **headers}


@pytest.mark.parametrize(
    ("method", "path", "query", "action"),
    [
        ("GET", "/", "", "ListBuckets"),
        ("PUT", "/bucket", "", "CreateBucket"),
        ("HEAD", "/bucket", "", "HeadBucket"),
        ("DELETE", "/bucket", "", "DeleteBucket"),
        ("GET", "/bucket", "list-type=2&prefix=a", "ListObjectsV2"),
        ("GET", "/bucket", "", "ListObjects"),
        ("GET", "/bucket", "versions", "ListObjectVersions"),
        ("GET", "/bucket", "uploads", "ListMultipartUploads"),
        ("POST", "/bucket", "delete", "DeleteObjects"),
        ("PUT", "/bucket", "versioning", "PutBucketVersioning"),
        ("PUT", "/bucket/a/b", "", "PutObject"),
        ("GET", "/bucket/a/b", "X-Amz-Expires=1", "GetObject"),
        ("HEAD", "/bucket/a", "", "HeadObject"),
        ("DELETE", "/bucket/a", "", "DeleteObject"),
        ("POST", "/bucket/a", "uploads", "CreateMultipartUpload"),
        ("PUT", "/bucket/a", "uploadId=1&partNumber=1", "UploadPart"),
        ("POST", "/bucket/a", "uploadId=1", "CompleteMultipartUpload"),
        ("DELETE", "/bucket/a", "uploadId=1", "AbortMultipartUpload"),
        ("GET", "/bucket/a", "uploadId=1", "ListParts"),
        ("GET", "/bucket/a", "tagging", "GetObjectTagging"),
    ],
)
def test_s3_actions_have_the_names_that_aws_gives_them(
    method: str, path: str, query: str, action: str
) -> None:
    request = environ(method, path, query)
    assert Target.of(request).action(request) == action


def test_a_copy_is_no_put() -> None:
    request = environ("PUT", "/bucket/a", HTTP_X_AMZ_COPY_SOURCE="/bucket/b")
    assert Target.of(request).action(request) == "CopyObject"


def test_a_service_is_known_by_its_credential_scope() -> None:
    body = b"Action=RunInstances&InstanceType=g4dn.xlarge&Name=FPO+Training"
    call = identify(environ("POST", HTTP_AUTHORIZATION=SCOPE.format("ec2")), body)
    assert (call.service, call.action, call.region) == ("ec2", "RunInstances", "eu-west-2")
    assert "Name=FPO Training" in call.request
    target = "secretsmanager.GetSecretValue"
    secret = environ("POST", HTTP_AUTHORIZATION=SCOPE.format("secretsmanager"), HTTP_X_AMZ_TARGET=target)
    assert identify(secret, b"{}").action == "GetSecretValue"


def test_a_presigned_or_plain_link_is_s3s() -> None:
    query = "X-Amz-Credential=key%2F20260101%2Feu-west-2%2Fs3%2Faws4_request"
    assert identify(environ("GET", "/bucket/key", query), b"").service == "s3"
    assert identify(environ("GET", "/bucket/key"), b"").action == "GetObject"


def test_a_link_expires_when_it_says() -> None:
    query = {"X-Amz-Date": "20260101T120000Z", "X-Amz-Expires": "60"}
    _check_expiry(query, datetime(2026, 1, 1, 12, 1, tzinfo=UTC))
    with pytest.raises(S3Error) as expired:
        _check_expiry(query, datetime(2026, 1, 1, 12, 1, 1, tzinfo=UTC))
    assert (expired.value.status, expired.value.code) == (403, "AccessDenied")
    with pytest.raises(S3Error):
        _check_expiry({"Signature": "x", "Expires": "0"}, datetime(2026, 1, 1, tzinfo=UTC))


def test_a_chunked_body_is_put_together_and_its_trailing_checksum_checked() -> None:
    content = b"hello world"
    checksum = base64.b64encode(zlib.crc32(content).to_bytes(4, "big"))
    body = (
        b"5\r\nhello\r\n6;chunk-signature=ab\r\n world\r\n0\r\nx-amz-checksum-crc32:" + checksum + b"\r\n\r\n"
    )
    request = environ(
        "PUT",
        "/bucket/key",
        HTTP_X_AMZ_CONTENT_SHA256="STREAMING-UNSIGNED-PAYLOAD-TRAILER",
        HTTP_CONTENT_ENCODING="aws-chunked,gzip",
    )
    assert _unchunk(request, body) == content
    assert request["HTTP_CONTENT_ENCODING"] == "gzip"
    _check_content(request, content)
    with pytest.raises(S3Error, match="CRC32"):
        _check_content(request, b"another world")
