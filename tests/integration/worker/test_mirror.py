"""The worker makes the bucket what the database says, and never overwrites what it has not seen."""

from collections.abc import Callable
from pathlib import Path

import pytest

from app.db.session import Database
from app.registry import mirror as keys_to_look_at
from app.registry.mirror import CopyOf, Wanted
from app.storage.bucket import Bucket, ObjectInfo, digest_of
from app.words import Stage, Verdict
from local.simcloud.server import SimCloud
from tests.integration.app.registry import Registry
from tests.integration.objects import overwrite, read, written_at
from worker import mirror
from worker.clouds import Clouds

DEVELOPMENT, STAGING, PRODUCTION = Stage


@pytest.fixture
def registry(database: Database) -> Registry:
    return Registry(database)


@pytest.fixture
def bucket(clients: Clouds) -> Bucket:
    return clients.bucket


def ask(registry: Registry, *keys: str) -> None:
    with registry.database.transaction() as session:
        keys_to_look_at.ask(session, *keys)


def test_markers_of_a_model_appear_as_empty_objects(registry: Registry, bucket: Bucket) -> None:
    prefix = registry.model(stages=(DEVELOPMENT, STAGING))
    failed = registry.model(verdict=Verdict.FAILED)
    assert mirror.drain(registry.database, bucket) == 4
    assert dict(bucket.list()) == {
        f"{prefix}/passed": 0,
        f"{prefix}/development": 0,
        f"{prefix}/staging": 0,
        f"{failed}/failed": 0,
    }
    assert registry.count("outbox") == 0
    assert mirror.drain(registry.database, bucket) == 0


def test_a_marker_that_is_there_is_not_written_again(registry: Registry, bucket: Bucket) -> None:
    prefix = registry.model(stages=(DEVELOPMENT,))
    other = registry.model(stages=(DEVELOPMENT,))
    mirror.drain(registry.database, bucket)
    before = written_at(bucket, f"{prefix}/development")
    registry.promote(prefix, DEVELOPMENT)
    ask(registry, f"{prefix}/passed", f"{other}/development")
    written = writes_from_now_on(bucket)
    assert mirror.drain(registry.database, bucket) == 3
    assert written == []
    assert written_at(bucket, f"{prefix}/development") == before


def writes_from_now_on(bucket: Bucket) -> list[str]:
    """A list that fills up with the keys that the bucket's client writes or deletes."""
    written: list[str] = []
    for action in ("PutObject", "CopyObject", "DeleteObject"):
        bucket._client.meta.events.register(
            f"provide-client-params.s3.{action}", lambda params, **_: written.append(params["Key"])
        )
    return written


def test_markers_that_somebody_deleted_come_back(registry: Registry, bucket: Bucket) -> None:
    prefix = registry.model(stages=(DEVELOPMENT,))
    mirror.drain(registry.database, bucket)
    for name in ("passed", "development"):
        bucket.delete(f"{prefix}/{name}")
    ask(registry, f"{prefix}/passed", f"{prefix}/development")
    mirror.drain(registry.database, bucket)
    assert dict(bucket.list()) == {f"{prefix}/passed": 0, f"{prefix}/development": 0}


def test_a_wrong_marker_is_deleted_and_one_with_content_becomes_empty(
    registry: Registry, bucket: Bucket
) -> None:
    prefix = registry.model(stages=(DEVELOPMENT,))
    overwrite(bucket, f"{prefix}/production")
    overwrite(bucket, f"{prefix}/failed", b"x")
    overwrite(bucket, f"{prefix}/development", b"deployed by hand")
    ask(registry, *(f"{prefix}/{name}" for name in ("production", "failed", "development", "passed")))
    mirror.drain(registry.database, bucket)
    assert dict(bucket.list()) == {f"{prefix}/passed": 0, f"{prefix}/development": 0}


def test_what_is_not_ours_is_neither_written_nor_deleted(registry: Registry, bucket: Bucket) -> None:
    registry.take(registry.queue("1.0.0"))
    being_built = registry.value("SELECT prefix FROM builds")
    keys = [
        f"{being_built}/model.zip",
        f"{being_built}/development",
        "0.0.1-aff1242/production",
        "raw_source_data.zip",
    ]
    for key in keys:
        overwrite(bucket, key, b"somebody's")
    before = {key: bucket.head(key) for key in keys}
    ask(registry, *keys, f"{being_built}/passed")
    assert mirror.drain(registry.database, bucket) == 5
    assert {key: bucket.head(key) for key in keys} == before
    assert bucket.head(f"{being_built}/passed") is None


@pytest.fixture
def published(registry: Registry, bucket: Bucket, tmp_path: Path) -> ObjectInfo:
    """Where an artifact of a published model still lies as its build made it."""
    build_id = registry.queue()
    file = tmp_path / "model.zip"
    file.write_bytes(b"the model")
    content = digest_of(file)
    prefix = registry.publish(build_id, model_zip=content.size_bytes)
    registry.execute("UPDATE artifacts SET sha256 = :sha256", sha256=content.sha256)
    mirror.drain(registry.database, bucket)
    with registry.database.transaction() as session:
        wanted = keys_to_look_at.should_hold(session, f"{prefix}/model.zip")
    assert isinstance(wanted, CopyOf)
    assert wanted.source is not None
    bucket.put_once(wanted.source, file, content, content_type="application/zip", build_id=str(build_id))
    made = bucket.head(wanted.source)
    assert made is not None
    return made


@pytest.mark.parametrize("there", [None, b"broken", b"not model"], ids=["gone", "cut off", "same size"])
def test_an_artifact_that_is_not_what_was_published_is_copied_again(
    registry: Registry, bucket: Bucket, published: ObjectInfo, there: bytes | None
) -> None:
    key = registry.value("SELECT key FROM artifacts")
    if there is not None:
        bucket.write(key, there, over=None)
    ask(registry, key)
    assert mirror.drain(registry.database, bucket) == 1
    assert read(bucket, key) == b"the model"
    found = bucket.head(key)
    assert found is not None
    assert (found.sha256, found.build_id) == (published.sha256, published.build_id)


def test_an_artifact_that_cannot_be_brought_back_is_reported_and_tried_again(
    registry: Registry, bucket: Bucket, published: ObjectInfo
) -> None:
    bucket.delete(published.key)
    key = registry.value("SELECT key FROM artifacts")
    ask(registry, key)
    assert mirror.drain(registry.database, bucket) == 0
    error = registry.value("SELECT last_error FROM outbox")
    assert published.key in error
    assert "is gone" in error


def test_a_key_that_s3_refuses_waits_and_the_others_go_on(
    registry: Registry, bucket: Bucket, cloud: SimCloud
) -> None:
    prefix = registry.model()
    registry.model()
    cloud.faults.add("s3", "PutObject", code="AccessDenied", status=403, times=1)
    assert mirror.drain(registry.database, bucket) == 1
    assert registry.values("SELECT key FROM outbox") == [f"{prefix}/passed"]
    assert "AccessDenied" in registry.value("SELECT last_error FROM outbox")
    registry.execute("UPDATE outbox SET next_attempt_at = clock_timestamp()")
    assert mirror.drain(registry.database, bucket) == 1
    assert bucket.head(f"{prefix}/passed") is not None


def test_a_key_that_cannot_be_settled_does_not_delay_the_others(
    registry: Registry, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken, prefix = registry.model(), registry.model()
    right = mirror.settle

    def settle(database: Database, bucket: Bucket, key: str) -> bool:
        if key.startswith(broken):
            raise ZeroDivisionError
        return right(database, bucket, key)

    monkeypatch.setattr(mirror, "settle", settle)
    assert mirror.drain(registry.database, bucket) == 1
    assert bucket.head(f"{prefix}/passed") is not None
    assert "ZeroDivisionError" in registry.value("SELECT last_error FROM outbox")


def test_a_worker_that_dies_after_its_write_leaves_the_entry_to_the_next(
    registry: Registry, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = registry.model()

    def dies(*_: object) -> None:
        raise SystemExit

    with monkeypatch.context() as patched:
        patched.setattr("app.registry.mirror.done", dies)
        with pytest.raises(SystemExit):
            mirror.drain(registry.database, bucket)
    assert bucket.head(f"{prefix}/passed") is not None
    assert registry.count("outbox") == 1
    assert mirror.drain(registry.database, bucket) == 1
    assert registry.count("outbox") == 0


def test_a_marker_is_mirrored_although_the_answer_of_s3_was_lost(
    registry: Registry, bucket: Bucket, cloud: SimCloud
) -> None:
    prefix = registry.model()
    cloud.faults.add("s3", "PutObject", lose="answer", times=1)
    assert mirror.drain(registry.database, bucket) == 1
    assert dict(bucket.list()) == {f"{prefix}/passed": 0}


@pytest.fixture
def paused_before_the_change(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], None]:
    """Something happens between a worker's look and its write, once."""

    def install(meanwhile: Callable[[], None]) -> None:
        change = mirror._change
        happened: list[str] = []

        def late(bucket: Bucket, key: str, there: object, wanted: Wanted) -> None:
            if not happened:
                happened.append(key)
                meanwhile()
            change(bucket, key, there, wanted)  # type: ignore[arg-type]

        monkeypatch.setattr(mirror, "_change", late)

    return install


def test_a_worker_whose_knowledge_is_old_does_not_overwrite_a_newer_object(
    registry: Registry,
    bucket: Bucket,
    published: ObjectInfo,
    tmp_path: Path,
    paused_before_the_change: Callable[[Callable[[], None]], None],
) -> None:
    """While it is paused, the artifact changes in the database and in the bucket."""
    key = registry.value("SELECT key FROM artifacts")
    newer = tmp_path / "newer"
    newer.write_bytes(b"a newer model")

    def republish() -> None:
        content = digest_of(newer)
        registry.execute(
            "UPDATE artifacts SET sha256 = :sha256, size_bytes = :size",
            sha256=content.sha256,
            size=content.size_bytes,
        )
        bucket.put_once(key, newer, content, content_type="application/zip")

    paused_before_the_change(republish)
    ask(registry, key)
    assert mirror.drain(registry.database, bucket) == 1
    assert read(bucket, key) == b"a newer model"


def test_a_worker_that_deletes_too_late_looks_once_more(
    registry: Registry, bucket: Bucket, paused_before_the_change: Callable[[Callable[[], None]], None]
) -> None:
    """Empty objects look alike: a condition on the object cannot tell the old marker from the new one."""
    prefix = registry.model(stages=(DEVELOPMENT,))
    mirror.drain(registry.database, bucket)
    key = f"{prefix}/staging"
    overwrite(bucket, key)

    def promoted_and_mirrored_by_another() -> None:
        registry.promote(prefix, STAGING)
        mirror.drain(registry.database, bucket)

    paused_before_the_change(promoted_and_mirrored_by_another)
    ask(registry, key)
    mirror.drain(registry.database, bucket)
    assert dict(bucket.list(key)) == {key: 0}
    assert registry.count("outbox") == 0


def test_a_key_that_somebody_else_keeps_writing_is_put_off(
    registry: Registry, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = registry.model()
    numbers = iter(range(100))
    head = bucket.head

    def looks_and_changes(key: str) -> object:
        found = head(key)
        overwrite(bucket, key, str(next(numbers)).encode())
        return found

    monkeypatch.setattr(bucket, "head", looks_and_changes)
    assert mirror.drain(registry.database, bucket) == 0
    assert f"{prefix}/passed keeps changing" in registry.value("SELECT last_error FROM outbox")
