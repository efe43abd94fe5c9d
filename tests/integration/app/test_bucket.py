"""The bucket: objects are written once, and nothing is overwritten by accident."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from app.aws import CloudError, CloudNotFound, CloudUnavailable, PreconditionFailed
from app.settings import Settings
from app.storage.bucket import Bucket, FileDigest, KeyTaken, ObjectInfo, digest_of
from local.simcloud.server import SimCloud
from tests.integration.objects import overwrite, read

KEY = "1.0.0-abcdef1/model.zip"
UNREACHED_S3 = Settings.model_validate(
    {"database_url": "postgresql://nowhere/none", "aws_endpoint_url": "http://127.0.0.1:1"}
)


@pytest.fixture
def bucket(cloud: SimCloud) -> Bucket:
    return Bucket.of(UNREACHED_S3.model_copy(update={"aws_endpoint_url": cloud.endpoint_url}))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.zip"
    path.write_bytes(b"a model" * 1000)
    return path


def put(bucket: Bucket, file: Path, content: FileDigest | None = None, build_id: str = "b1") -> None:
    bucket.put_once(KEY, file, content or digest_of(file), content_type="application/zip", build_id=build_id)


def test_an_object_is_written_with_its_digest_and_owner(bucket: Bucket, file: Path, tmp_path: Path) -> None:
    assert bucket.head(KEY) is None
    put(bucket, file)
    there = bucket.head(KEY)
    assert there is not None
    assert there.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert (there.size_bytes, there.build_id) == (7000, "b1")
    assert bucket.download(KEY, tmp_path / "copy").content == digest_of(file)
    assert list(bucket.list("1.0.0-")) == [(KEY, 7000)]


def test_writing_the_same_again_changes_nothing(bucket: Bucket, file: Path) -> None:
    put(bucket, file)
    before = bucket.head(KEY)
    put(bucket, file, build_id="b2")
    assert bucket.head(KEY) == before


def test_other_content_is_not_overwritten(bucket: Bucket, file: Path) -> None:
    put(bucket, file)
    before = bucket.head(KEY)
    file.write_bytes(b"another model")
    with pytest.raises(KeyTaken) as taken:
        put(bucket, file, build_id="b2")
    assert (taken.value.key, taken.value.owner) == (KEY, "b1")
    assert bucket.head(KEY) == before
    bucket.write(KEY, file.read_bytes(), over=before)
    after = bucket.head(KEY)
    assert after is not None
    assert after.size_bytes == len(b"another model")


def test_an_object_of_somebody_else_has_no_owner(bucket: Bucket, file: Path) -> None:
    overwrite(bucket, KEY)
    with pytest.raises(KeyTaken) as taken:
        put(bucket, file)
    assert taken.value.owner is None


def test_a_write_whose_answer_was_lost_has_happened(bucket: Bucket, file: Path, cloud: SimCloud) -> None:
    fault = cloud.faults.add("s3", "PutObject", lose="answer")
    put(bucket, file)
    assert fault.hits == 1
    there = bucket.head(KEY)
    assert there is not None
    assert there.sha256 == digest_of(file).sha256


def test_what_arrives_otherwise_than_it_was_sent_is_refused(bucket: Bucket, file: Path) -> None:
    claimed = FileDigest(hashlib.sha256(b"something else").hexdigest(), 7000)
    with pytest.raises(CloudError):
        put(bucket, file, claimed)
    assert bucket.head(KEY) is None


@pytest.mark.parametrize("action", ["PutObject", "HeadObject", "GetObject"])
def test_an_s3_that_is_slow_for_long_is_unavailable(
    bucket: Bucket, file: Path, cloud: SimCloud, action: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("botocore.endpoint.time.sleep", lambda _: None)
    put(bucket, file)
    cloud.faults.add("s3", action, code="SlowDown", status=503, times=None)
    calls: dict[str, Callable[[], object]] = {
        "PutObject": lambda: bucket.write("other", b"", over=None),
        "HeadObject": lambda: bucket.head(KEY),
        "GetObject": lambda: bucket.download(KEY, file),
    }
    with pytest.raises(CloudUnavailable):
        calls[action]()


def test_an_s3_that_is_not_there_is_unavailable(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("botocore.endpoint.time.sleep", lambda _: None)
    with pytest.raises(CloudUnavailable, match="EndpointConnectionError"):
        put(Bucket.of(UNREACHED_S3), file)


def test_what_is_not_there_cannot_be_downloaded(bucket: Bucket, tmp_path: Path) -> None:
    with pytest.raises(CloudNotFound):
        bucket.download(KEY, tmp_path / "copy")


def there(bucket: Bucket, key: str = KEY) -> ObjectInfo:
    found = bucket.head(key)
    assert found is not None
    return found


def test_bytes_are_written_only_over_what_was_found(bucket: Bucket) -> None:
    bucket.write(KEY, b"one", over=None)
    first = there(bucket)
    assert first.holds(b"one")
    with pytest.raises(PreconditionFailed):
        bucket.write(KEY, b"two", over=None)
    bucket.write(KEY, b"three", over=first)
    with pytest.raises(PreconditionFailed):
        bucket.write(KEY, b"four", over=first)
    assert read(bucket, KEY) == b"three"


def test_an_object_is_copied_only_as_it_was_found_and_over_what_was_found(bucket: Bucket, file: Path) -> None:
    put(bucket, file)
    made = there(bucket)
    bucket.copy(made, "copy", over=None)
    copied = there(bucket, "copy")
    assert (copied.sha256, copied.build_id, copied.size_bytes) == (made.sha256, made.build_id, 7000)
    with pytest.raises(PreconditionFailed):
        bucket.copy(made, "copy", over=None)
    overwrite(bucket, "copy", b"somebody's")
    with pytest.raises(PreconditionFailed):
        bucket.copy(made, "copy", over=copied)
    overwrite(bucket, KEY, b"another model")
    with pytest.raises(PreconditionFailed):
        bucket.copy(made, "other", over=None)
    assert bucket.head("other") is None


def test_an_object_is_deleted_only_as_it_was_found(bucket: Bucket) -> None:
    bucket.write(KEY, b"one", over=None)
    found = there(bucket)
    overwrite(bucket, KEY, b"two")
    with pytest.raises(PreconditionFailed):
        bucket.delete(KEY, only=found)
    bucket.delete(KEY, only=there(bucket))
    assert bucket.head(KEY) is None


def test_deleting_what_is_gone_already_is_fine(bucket: Bucket) -> None:
    bucket.write(KEY, b"one", over=None)
    found = there(bucket)
    for _ in range(2):
        bucket.delete(KEY)
        bucket.delete(KEY, only=found)
    assert list(bucket.list()) == []


def test_the_digest_of_an_object_is_the_one_that_s3_computed(bucket: Bucket) -> None:
    """Metadata is only what the writer said, and stays when somebody else writes other bytes with it."""
    lie = hashlib.sha256(b"something else").hexdigest()
    bucket._client.put_object(Bucket=bucket.name, Key=KEY, Body=b"bytes", Metadata={"sha256": lie})
    found = there(bucket)
    assert found.sha256 is None
    assert not found.holds(b"bytes")


def test_the_listing_goes_on_after_its_first_page(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "3")
    written = [f"many/{number}" for number in range(8)]
    for key in written:
        overwrite(bucket, key)
    assert [key for key, _ in bucket.list("many/")] == written


def test_a_signed_url_is_good_for_anybody_and_the_same_for_a_while(bucket: Bucket, file: Path) -> None:
    put(bucket, file)
    url = bucket.presign(KEY, 600)
    assert httpx.get(url).content == file.read_bytes()
    assert bucket.presign(KEY, 600) == url


def test_a_signed_url_is_good_for_half_of_its_lifetime_at_least(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The beginning of a half lifetime.
    now = 3_333_333.0 * 300
    monkeypatch.setattr("app.storage.bucket.time.time", lambda: now)
    first = bucket.presign(KEY, 600)
    now += 299
    assert bucket.presign(KEY, 600) == first
    now += 2
    monkeypatch.setattr("app.storage.bucket.Bucket._presign_in_period", lambda *_: "")
    assert bucket.presign(KEY, 600) is not first
