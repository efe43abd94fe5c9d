"""How the simulated AWS tells requests apart and reads them."""

import base64
import zlib
from datetime import UTC, datetime
from typing import Any

import pytest

from local.simcloud.gateway import identify
from local.simcloud.s3 import S3Error, Target, _check_content, _check_expiry

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
    assert Target.of(environ(method, path, query)).action == action


def test_a_put_with_a_source_is_a_copy() -> None:
    request = environ("PUT", "/bucket/a", HTTP_X_AMZ_COPY_SOURCE="/bucket/b")
    assert Target.of(request).action == "CopyObject"


def test_the_credential_scope_names_the_service() -> None:
    body = b"Action=RunInstances&InstanceType=g4dn.xlarge&Name=FPO+Training"
    call = identify(environ("POST", HTTP_AUTHORIZATION=SCOPE.format("ec2")), body)
    assert (call.service, call.action, call.region) == ("ec2", "RunInstances", "eu-west-2")
    assert "Name=FPO Training" in call.request
    target = "secretsmanager.GetSecretValue"
    secret = environ("POST", HTTP_AUTHORIZATION=SCOPE.format("secretsmanager"), HTTP_X_AMZ_TARGET=target)
    assert identify(secret, b"{}").action == "GetSecretValue"


def test_a_presigned_or_plain_link_belongs_to_s3() -> None:
    query = "X-Amz-Credential=key%2F20260101%2Feu-west-2%2Fs3%2Faws4_request"
    assert identify(environ("GET", "/bucket/key", query), b"").service == "s3"
    assert identify(environ("GET", "/bucket/key"), b"").action == "GetObject"


def test_a_link_expires_at_the_end_of_its_lifetime() -> None:
    query = {"X-Amz-Date": "20260101T120000Z", "X-Amz-Expires": "60"}
    _check_expiry(query, datetime(2026, 1, 1, 12, 1, tzinfo=UTC))
    with pytest.raises(S3Error) as expired:
        _check_expiry(query, datetime(2026, 1, 1, 12, 1, 1, tzinfo=UTC))
    assert (expired.value.status, expired.value.code) == (403, "AccessDenied")


def test_content_is_compared_with_its_checksum() -> None:
    content = b"hello world"
    checksum = base64.b64encode(zlib.crc32(content).to_bytes(4, "big")).decode()
    request = environ("PUT", "/bucket/key", HTTP_X_AMZ_CHECKSUM_CRC32=checksum)
    _check_content(request, content, "PutObject")
    with pytest.raises(S3Error, match="CRC32"):
        _check_content(request, b"another world", "PutObject")
