"""The simulated S3: conditions, checksums, links that expire."""

import base64
import hashlib
import threading
import urllib.error
import urllib.request
import zlib
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from typing import TYPE_CHECKING, Any

import pytest
from boto3.s3.transfer import TransferConfig
from botocore.exceptions import ClientError

from local.simcloud.server import SimCloud

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

BUCKET = "tariff-models"


def code_of(error: pytest.ExceptionInfo[ClientError]) -> str:
    return error.value.response["Error"]["Code"]


def test_objects_go_in_and_come_out(s3: "S3Client") -> None:
    s3.put_object(
        Bucket=BUCKET,
        Key="0.0.2-aff1242/model.zip",
        Body=b"model",
        ContentType="application/zip",
        Metadata={"a": "b"},
    )
    s3.put_object(Bucket=BUCKET, Key="0.0.2-aff1242/development", Body=b"")
    found = s3.get_object(Bucket=BUCKET, Key="0.0.2-aff1242/model.zip")
    assert found["Body"].read() == b"model"
    assert (found["ContentType"], found["Metadata"]) == ("application/zip", {"a": "b"})
    assert found["ETag"] == f'"{hashlib.md5(b"model").hexdigest()}"'
    listed = s3.list_objects_v2(Bucket=BUCKET, Prefix="0.0.2-aff1242/")["Contents"]
    assert [(each["Key"], each["Size"]) for each in listed] == [
        ("0.0.2-aff1242/development", 0),
        ("0.0.2-aff1242/model.zip", 5),
    ]
    assert s3.head_object(Bucket=BUCKET, Key="0.0.2-aff1242/development")["ContentLength"] == 0
    s3.copy_object(Bucket=BUCKET, Key="copy", CopySource=f"{BUCKET}/0.0.2-aff1242/model.zip")
    s3.delete_object(Bucket=BUCKET, Key="0.0.2-aff1242/model.zip")
    assert s3.get_object(Bucket=BUCKET, Key="copy", Range="bytes=1-3")["Body"].read() == b"ode"
    with pytest.raises(ClientError) as missing:
        s3.get_object(Bucket=BUCKET, Key="0.0.2-aff1242/model.zip")
    assert code_of(missing) == "NoSuchKey"


def test_keys_with_odd_characters(s3: "S3Client") -> None:
    for key in ("a b/ü+%2F?&=#.zip", "a//b", "ends/"):
        s3.put_object(Bucket=BUCKET, Key=key, Body=key.encode())
        assert s3.get_object(Bucket=BUCKET, Key=key)["Body"].read() == key.encode()


def test_a_copy_keeps_its_conditions(s3: "S3Client") -> None:
    def copy(to: str, **condition: str) -> str:
        try:
            s3.copy_object(Bucket=BUCKET, Key=to, CopySource={"Bucket": BUCKET, "Key": "made"}, **condition)  # type: ignore[arg-type]
        except ClientError as error:
            return error.response["Error"]["Code"]
        return "copied"

    made = s3.put_object(Bucket=BUCKET, Key="made", Body=b"model")["ETag"]
    other = s3.put_object(Bucket=BUCKET, Key="other", Body=b"another")["ETag"]
    assert copy("new", IfNoneMatch="*") == "copied"
    assert copy("new", IfNoneMatch="*") == "PreconditionFailed"
    assert copy("other", IfMatch=made) == "PreconditionFailed"
    assert copy("none", IfMatch=made) == "NoSuchKey"
    assert copy("other", IfMatch=other, CopySourceIfMatch=other) == "PreconditionFailed"
    assert s3.get_object(Bucket=BUCKET, Key="other")["Body"].read() == b"another"
    assert copy("other", IfMatch=other, CopySourceIfMatch=made) == "copied"
    assert s3.get_object(Bucket=BUCKET, Key="other")["Body"].read() == b"model"


def test_one_of_many_conditional_writes_wins(s3: "S3Client") -> None:
    def write(number: int) -> str:
        try:
            s3.put_object(Bucket=BUCKET, Key="once", Body=str(number).encode(), IfNoneMatch="*")
        except ClientError as error:
            return error.response["Error"]["Code"]
        return "written"

    with ThreadPoolExecutor(16) as pool:
        outcomes = Counter(pool.map(write, range(48)))
    assert outcomes == {"written": 1, "PreconditionFailed": 47}


def test_a_write_that_expects_another_version_is_refused(s3: "S3Client") -> None:
    first = s3.put_object(Bucket=BUCKET, Key="key", Body=b"1")["ETag"]
    s3.put_object(Bucket=BUCKET, Key="key", Body=b"2", IfMatch=first)
    with pytest.raises(ClientError) as refused:
        s3.put_object(Bucket=BUCKET, Key="key", Body=b"3", IfMatch=first)
    assert code_of(refused) == "PreconditionFailed"


def encoded(digest: bytes) -> str:
    return base64.b64encode(digest).decode()


@pytest.mark.parametrize(
    ("parameter", "digest"),
    [
        ("ContentMD5", lambda body: hashlib.md5(body).digest()),
        ("ChecksumSHA256", lambda body: hashlib.sha256(body).digest()),
        ("ChecksumSHA1", lambda body: hashlib.sha1(body).digest()),
        ("ChecksumCRC32", lambda body: zlib.crc32(body).to_bytes(4, "big")),
    ],
)
def test_content_is_compared_with_its_checksum(
    parameter: str, digest: Callable[[bytes], bytes], s3: "S3Client"
) -> None:
    right: dict[str, Any] = {parameter: encoded(digest(b"content"))}
    wrong: dict[str, Any] = {parameter: encoded(digest(b"other"))}
    s3.put_object(Bucket=BUCKET, Key="right", Body=b"content", **right)
    with pytest.raises(ClientError) as refused:
        s3.put_object(Bucket=BUCKET, Key="wrong", Body=b"content", **wrong)
    assert code_of(refused) == "BadDigest"
    assert [each["Key"] for each in s3.list_objects_v2(Bucket=BUCKET)["Contents"]] == ["right"]


def test_a_checksum_is_kept_and_told(s3: "S3Client") -> None:
    checksum = encoded(hashlib.sha256(b"content").digest())
    s3.put_object(Bucket=BUCKET, Key="key", Body=b"content", ChecksumSHA256=checksum)
    assert s3.head_object(Bucket=BUCKET, Key="key", ChecksumMode="ENABLED")["ChecksumSHA256"] == checksum


def test_a_malformed_md5_is_refused(s3: "S3Client") -> None:
    with pytest.raises(ClientError) as refused:
        s3.put_object(Bucket=BUCKET, Key="key", Body=b"content", ContentMD5="bm9uZQ==")
    assert code_of(refused) == "InvalidDigest"


def test_an_upload_in_parts(s3: "S3Client") -> None:
    content = b"0123456789" * 1_200_000
    s3.upload_fileobj(BytesIO(content), BUCKET, "big", Config=TransferConfig(multipart_threshold=5 << 20))
    assert s3.head_object(Bucket=BUCKET, Key="big")["ETag"].endswith('-2"')
    back = BytesIO()
    s3.download_fileobj(BUCKET, "big", back)
    assert back.getvalue() == content


def test_an_upload_in_parts_that_may_not_replace(s3: "S3Client") -> None:
    s3.put_object(Bucket=BUCKET, Key="key", Body=b"first")
    upload = s3.create_multipart_upload(Bucket=BUCKET, Key="key")["UploadId"]
    part = s3.upload_part(Bucket=BUCKET, Key="key", UploadId=upload, PartNumber=1, Body=b"second")
    with pytest.raises(ClientError) as refused:
        s3.complete_multipart_upload(
            Bucket=BUCKET,
            Key="key",
            UploadId=upload,
            MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]},
            IfNoneMatch="*",
        )
    assert code_of(refused) == "PreconditionFailed"
    assert s3.get_object(Bucket=BUCKET, Key="key")["Body"].read() == b"first"


def status_of(url: str) -> int:
    try:
        with urllib.request.urlopen(url) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_a_presigned_link_works_until_it_expires(s3: "S3Client") -> None:
    s3.put_object(Bucket=BUCKET, Key="key", Body=b"content")
    parameters = {"Bucket": BUCKET, "Key": "key"}
    fresh = s3.generate_presigned_url("get_object", Params=parameters, ExpiresIn=60)
    with urllib.request.urlopen(fresh) as answer:
        assert answer.read() == b"content"
    assert status_of(s3.generate_presigned_url("get_object", Params=parameters, ExpiresIn=-2)) == 403
    assert status_of(fresh.split("&X-Amz-Signature")[0].replace("X-Amz-Date=", "X-Amz-Date=x")) == 400


def test_versions_and_deletions_of_a_versioned_bucket(s3: "S3Client") -> None:
    s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    first = s3.put_object(Bucket=BUCKET, Key="key", Body=b"1")["VersionId"]
    s3.put_object(Bucket=BUCKET, Key="key", Body=b"2" * 100_000)
    s3.delete_object(Bucket=BUCKET, Key="key")
    assert s3.get_object(Bucket=BUCKET, Key="key", VersionId=first)["Body"].read() == b"1"
    assert len(s3.list_object_versions(Bucket=BUCKET)["Versions"]) == 2


def test_readers_see_an_old_object_or_a_new_one(s3: "S3Client") -> None:
    contents = [bytes([number]) * 300_000 for number in (1, 2)]
    s3.put_object(Bucket=BUCKET, Key="key", Body=contents[0])
    done = threading.Event()

    def write() -> None:
        for number in range(20):
            s3.put_object(Bucket=BUCKET, Key="key", Body=contents[number % 2])
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    while not done.is_set():
        assert s3.get_object(Bucket=BUCKET, Key="key")["Body"].read() in contents
    writer.join()


def test_reset_empties_the_bucket_and_the_disk(cloud: SimCloud, s3: "S3Client") -> None:
    s3.put_object(Bucket=BUCKET, Key="key", Body=b"x" * 100_000)
    assert list((cloud.state / "s3" / "blobs").glob("*/*"))
    cloud.reset()
    assert s3.list_objects_v2(Bucket=BUCKET)["KeyCount"] == 0
    assert not list((cloud.state / "s3" / "blobs").glob("*/*"))


def test_an_object_that_is_replaced_leaves_nothing_on_disk(cloud: SimCloud, s3: "S3Client") -> None:
    for number in range(3):
        s3.put_object(Bucket=BUCKET, Key="key", Body=bytes([number]) * 100_000)
    assert len(list((cloud.state / "s3" / "blobs").glob("*/*"))) == 1
    s3.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": "key"}]})
    assert not list((cloud.state / "s3" / "blobs").glob("*/*"))


def test_a_second_bucket_and_its_end(s3: "S3Client") -> None:
    s3.create_bucket(Bucket="second", CreateBucketConfiguration={"LocationConstraint": "eu-west-2"})
    assert [each["Name"] for each in s3.list_buckets()["Buckets"]] == [BUCKET, "second"]
    s3.delete_bucket(Bucket="second")
    assert [each["Name"] for each in s3.list_buckets()["Buckets"]] == [BUCKET]
    with pytest.raises(ClientError) as missing:
        s3.list_objects_v2(Bucket="second")
    assert code_of(missing) == "NoSuchBucket"
