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
from moto.s3.models import s3_backends

from local.simcloud.server import SimCloud
from local.simcloud.settings import ACCOUNT
from local.simcloud.store import Store

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

BUCKET = "tariff-models"


def code_of(error: pytest.ExceptionInfo[ClientError]) -> str:
    return error.value.response["Error"]["Code"]


def test_objects_can_be_written_copied_read_and_deleted(s3: "S3Client") -> None:
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


@pytest.mark.parametrize("races", [1, pytest.param(200, marks=pytest.mark.long)])
@pytest.mark.parametrize("replacing", [False, True], ids=["IfNoneMatch", "IfMatch"])
@pytest.mark.parametrize("call", ["put_object", "copy_object"])
def test_one_of_many_conditional_writes_wins(call: str, replacing: bool, races: int, s3: "S3Client") -> None:
    for _ in range(races):
        race(call, replacing, s3)


def race(call: str, replacing: bool, s3: "S3Client") -> None:
    s3.put_object(Bucket=BUCKET, Key="source", Body=b"new")
    condition = {"IfNoneMatch": "*"}
    s3.delete_object(Bucket=BUCKET, Key="key")
    if replacing:
        condition = {"IfMatch": s3.put_object(Bucket=BUCKET, Key="key", Body=b"old")["ETag"]}
    what = {"Body": b"new"} if call == "put_object" else {"CopySource": f"{BUCKET}/source"}

    def write(_: int) -> str:
        try:
            getattr(s3, call)(Bucket=BUCKET, Key="key", **what, **condition)
        except ClientError as error:
            return error.response["Error"]["Code"]
        return "written"

    with ThreadPoolExecutor(16) as pool:
        outcomes = Counter(pool.map(write, range(32)))
    assert outcomes == {"written": 1, "PreconditionFailed": 31}


Write = Callable[..., object]


def put(s3: "S3Client", **condition: Any) -> object:
    return s3.put_object(Bucket=BUCKET, Key="key", Body=b"new", **condition)


def copy(s3: "S3Client", **condition: Any) -> object:
    s3.put_object(Bucket=BUCKET, Key="source", Body=b"new")
    return s3.copy_object(Bucket=BUCKET, Key="key", CopySource=f"{BUCKET}/source", **condition)


def upload_in_parts(s3: "S3Client", **condition: Any) -> object:
    upload = s3.create_multipart_upload(Bucket=BUCKET, Key="key")["UploadId"]
    part = s3.upload_part(Bucket=BUCKET, Key="key", UploadId=upload, PartNumber=1, Body=b"new")
    return s3.complete_multipart_upload(
        Bucket=BUCKET,
        Key="key",
        UploadId=upload,
        MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]},
        **condition,
    )


def delete(s3: "S3Client", **condition: Any) -> object:
    return s3.delete_object(Bucket=BUCKET, Key="key", **condition)


def content(s3: "S3Client", key: str = "key") -> bytes | None:
    try:
        return s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()
    except s3.exceptions.NoSuchKey:
        return None


@pytest.mark.parametrize("write", [put, copy, upload_in_parts, delete])
def test_a_write_that_expects_another_object_is_refused(write: Write, s3: "S3Client") -> None:
    with pytest.raises(ClientError) as missing:
        write(s3, IfMatch='"0"')
    assert code_of(missing) == "NoSuchKey"
    tag = s3.put_object(Bucket=BUCKET, Key="key", Body=b"old")["ETag"]
    with pytest.raises(ClientError) as refused:
        write(s3, IfMatch='"0"')
    assert code_of(refused) == "PreconditionFailed"
    assert content(s3) == b"old"
    write(s3, IfMatch=tag)
    assert content(s3) == (None if write is delete else b"new")


@pytest.mark.parametrize("write", [put, copy, upload_in_parts])
def test_a_write_that_must_not_replace_anything_is_refused(write: Write, s3: "S3Client") -> None:
    s3.put_object(Bucket=BUCKET, Key="key", Body=b"old")
    with pytest.raises(ClientError) as refused:
        write(s3, IfNoneMatch="*")
    assert code_of(refused) == "PreconditionFailed"
    assert content(s3) == b"old"
    s3.delete_object(Bucket=BUCKET, Key="key")
    write(s3, IfNoneMatch="*")
    assert content(s3) == b"new"


def test_a_copy_of_something_else_than_expected_is_refused(s3: "S3Client") -> None:
    made = s3.put_object(Bucket=BUCKET, Key="made", Body=b"model")["ETag"]
    with pytest.raises(ClientError) as refused:
        s3.copy_object(Bucket=BUCKET, Key="key", CopySource=f"{BUCKET}/made", CopySourceIfMatch='"0"')
    assert code_of(refused) == "PreconditionFailed"
    assert content(s3) is None
    s3.copy_object(Bucket=BUCKET, Key="key", CopySource=f"{BUCKET}/made", CopySourceIfMatch=made)
    assert content(s3) == b"model"


def encoded(digest: bytes) -> str:
    return base64.b64encode(digest).decode()


@pytest.mark.parametrize(
    ("parameter", "digest"),
    [
        ("ChecksumSHA256", lambda body: hashlib.sha256(body).digest()),
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


def test_a_checksum_is_kept_and_returned(s3: "S3Client") -> None:
    checksum = encoded(hashlib.sha256(b"content").digest())
    s3.put_object(Bucket=BUCKET, Key="key", Body=b"content", ChecksumSHA256=checksum)
    assert s3.head_object(Bucket=BUCKET, Key="key", ChecksumMode="ENABLED")["ChecksumSHA256"] == checksum


def test_a_large_file_is_uploaded_in_parts(s3: "S3Client") -> None:
    content = b"0123456789" * 1_200_000
    s3.upload_fileobj(BytesIO(content), BUCKET, "big", Config=TransferConfig(multipart_threshold=5 << 20))
    assert s3.head_object(Bucket=BUCKET, Key="big")["ETag"].endswith('-2"')
    back = BytesIO()
    s3.download_fileobj(BUCKET, "big", back)
    assert back.getvalue() == content


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


def versions_of(s3: "S3Client") -> list[tuple[str, str, bool]]:
    """Key and id of each version and delete marker, from pages of two, and whether it is the newest one."""
    pages = s3.get_paginator("list_object_versions").paginate(Bucket=BUCKET, PaginationConfig={"PageSize": 2})
    found = [
        (one["Key"], one["VersionId"], one["IsLatest"])
        for page in pages
        for one in (*page.get("Versions", []), *page.get("DeleteMarkers", []))
    ]
    return sorted(found)


def test_a_bucket_keeps_versions_until_each_is_deleted(s3: "S3Client", cloud: SimCloud) -> None:
    s3.put_object(Bucket=BUCKET, Key="a", Body=b"before")
    assert "Status" not in s3.get_bucket_versioning(Bucket=BUCKET)
    s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    assert s3.get_bucket_versioning(Bucket=BUCKET)["Status"] == "Enabled"
    second = s3.put_object(Bucket=BUCKET, Key="a", Body=b"second")["VersionId"]
    deleted = s3.delete_object(Bucket=BUCKET, Key="a")["VersionId"]
    # Readers find nothing, and a condition does not either.
    assert s3.list_objects_v2(Bucket=BUCKET)["KeyCount"] == 0
    assert content(s3, "a") is None
    other = s3.put_object(Bucket=BUCKET, Key="b", Body=b"other", IfNoneMatch="*")["VersionId"]
    third = s3.put_object(Bucket=BUCKET, Key="a", Body=b"third", IfNoneMatch="*")["VersionId"]
    with pytest.raises(ClientError, match="PreconditionFailed"):
        s3.put_object(Bucket=BUCKET, Key="a", Body=b"fourth", IfNoneMatch="*")
    held = {"null": b"before", second: b"second", third: b"third"}
    whole = sorted(
        [("a", version, version == third) for version in ("null", second, deleted, third)]
        + [("b", other, True)]
    )
    assert versions_of(s3) == whole
    # All of it is on disk.
    backend = s3_backends[ACCOUNT]["aws"]
    backend.reset()
    Store(cloud.state / "s3").load(backend, cloud.region)
    assert versions_of(s3) == whole
    for version, body in held.items():
        assert s3.get_object(Bucket=BUCKET, Key="a", VersionId=version)["Body"].read() == body
    doomed: list[Any] = [{"Key": "a", "VersionId": version} for version in (third, deleted, "null")]
    s3.delete_objects(Bucket=BUCKET, Delete={"Objects": doomed})
    assert content(s3, "a") == b"second"
    s3.delete_object(Bucket=BUCKET, Key="a", VersionId=second)
    assert versions_of(s3) == [("b", other, True)]
    assert len(list((cloud.state / "s3").glob("*/*"))) == 1
    with pytest.raises(ClientError, match="cannot stop"):
        s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Suspended"})


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
    assert list((cloud.state / "s3").glob("*/*"))
    cloud.reset()
    assert s3.list_objects_v2(Bucket=BUCKET)["KeyCount"] == 0
    assert not list((cloud.state / "s3").glob("*/*"))


def test_an_object_that_is_replaced_leaves_nothing_on_disk(cloud: SimCloud, s3: "S3Client") -> None:
    for number in range(3):
        s3.put_object(Bucket=BUCKET, Key="key", Body=bytes([number]) * 100_000)
    assert len(list((cloud.state / "s3").glob("*/*"))) == 1
    s3.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": "key"}]})
    assert not list((cloud.state / "s3").glob("*/*"))


def test_a_second_bucket_can_be_made_and_deleted(s3: "S3Client") -> None:
    s3.create_bucket(Bucket="second", CreateBucketConfiguration={"LocationConstraint": "eu-west-2"})
    assert [each["Name"] for each in s3.list_buckets()["Buckets"]] == [BUCKET, "second"]
    s3.delete_bucket(Bucket="second")
    assert [each["Name"] for each in s3.list_buckets()["Buckets"]] == [BUCKET]
    with pytest.raises(ClientError) as missing:
        s3.list_objects_v2(Bucket="second")
    assert code_of(missing) == "NoSuchBucket"
