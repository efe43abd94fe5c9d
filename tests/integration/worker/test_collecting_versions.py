"""What a collection deletes in a bucket that keeps versions."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from fastapi.testclient import TestClient

from app.db.session import Database
from app.settings import Settings
from app.storage import keys
from app.storage.bucket import Bucket, digest_of
from app.words import StepName, Verdict
from tests.integration.app.registry import Registry
from tests.integration.objects import overwrite
from worker import mirror
from worker.clouds import Clouds
from worker.runs.carrying import RunCarrier

INPUT = keys.input_key("d" * 64)
STRAY = "0.0.9-abcdef1"


@pytest.fixture(params=[True, False], ids=["all-versions", "no-version"])
def every_version(request: pytest.FixtureRequest) -> bool:
    """The setting."""
    return bool(request.param)


@pytest.fixture
def settings(settings: Settings, every_version: bool) -> Settings:
    """Everything goes as soon as it may."""
    waits = dict.fromkeys(("gc_minimum_age", "gc_grace", "retry_window"), timedelta(0))
    more = {"gc_keep_newest_passed": 0, "code_repository": None, "gc_delete_versions": every_version}
    return settings.model_copy(update={**waits, **more})


@pytest.fixture
def bucket(clients: Clouds) -> Bucket:
    """It keeps versions."""
    bucket = clients.bucket
    enabled: Any = {"Status": "Enabled"}
    bucket._client.put_bucket_versioning(Bucket=bucket.name, VersioningConfiguration=enabled)
    return bucket


@pytest.fixture
def registry(database: Database, bucket: Bucket) -> Registry:
    registry = Registry(database, bucket)
    registry.execute("INSERT INTO git_branches VALUES ('main', repeat('a', 40), true)")
    registry.execute(
        "INSERT INTO git_repository (remote, main_branch, main_names, fetched_at, fingerprint, attempted_at)"
        " VALUES ('https://git.example.org/x', 'main', '{main}', now(), 'x', now())"
    )
    return registry


def versions(bucket: Bucket) -> set[tuple[str, str]]:
    """Key and id of each version that the bucket has, also of those that readers do not find any more."""
    pages = bucket._client.get_paginator("list_object_versions").paginate(Bucket=bucket.name)
    return {(one["Key"], one["VersionId"]) for page in pages for one in page.get("Versions", [])}


def delete_markers(bucket: Bucket) -> set[str]:
    pages = bucket._client.get_paginator("list_object_versions").paginate(Bucket=bucket.name)
    return {one["Key"] for page in pages for one in page.get("DeleteMarkers", [])}


def fill(registry: Registry, bucket: Bucket, file: Path) -> tuple[str, str]:
    """What a collection deletes, of every kind. Returns the model's prefix and a key that nobody deletes."""
    model = registry.publish(registry.queue(branch="gone"), Verdict.FAILED, model_zip=10, provenance_json=5)
    mirror.drain(registry.database, bucket)
    registry.execute("INSERT INTO model_commits (model_id, sha) SELECT id, rpad(sha, 40, '0') FROM models")
    overwrite(bucket, f"{model}/model.zip", b"replaced")
    overwrite(bucket, f"{model}/notes.txt", b"deleted already")
    bucket.delete(f"{model}/notes.txt")
    registry.execute(
        "INSERT INTO inputs (sha256, size_bytes, stored_at, recorded_at)"
        " VALUES (repeat('d', 64), 4, now() - interval '9 days', now() - interval '9 days')"
    )
    for content in (b"bad", b"good"):
        overwrite(bucket, INPUT, content)
    failed = registry.queue("0.0.8")
    registry.output(failed, StepName.PUBLISH, {})
    registry.fail(failed)
    unpublished = keys.unpublished_key(failed, "a" * 64)
    overwrite(bucket, unpublished, b"weights")
    bucket.delete(unpublished)
    left = registry.value("SELECT prefix FROM builds WHERE id = :id", id=failed)
    for name in ("model.zip", "search-config.toml"):
        bucket.put_once(
            f"{left}/{name}", file, digest_of(file), content_type="text/plain", build_id=str(failed)
        )
    # The build has removed one of its files itself. Under its prefix, a person has put and deleted another.
    bucket.delete(f"{left}/model.zip")
    overwrite(bucket, f"{left}/notes.txt", b"somebody's")
    bucket.delete(f"{left}/notes.txt")
    overwrite(bucket, f"{STRAY}/model.zip", b"stray")
    overwrite(bucket, f"{STRAY}/production")
    return model, f"{left}/notes.txt"


def test_the_setting_decides_whether_the_versions_of_what_is_collected_stay(
    registry: Registry,
    bucket: Bucket,
    api: TestClient,
    carrier: RunCarrier,
    reconcile: Callable[..., dict[str, Any]],
    every_version: bool,
    tmp_path: Path,
) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"model")
    model, of_a_person = fill(registry, bucket, file)
    before = versions(bucket)
    run = api.post("/gc/runs", json={"dry_run": False}).json()["id"]
    carrier.carry(UUID(run))
    result = api.get(f"/runs/{run}").json()["result"]
    assert (result["freed_prefixes"], result["inputs_freed"]) == ([model], 1)
    cleared = reconcile(delete_strays=[STRAY])["strays"]
    assert [one["kept_because"] for one in cleared] == [None]
    # Readers find none of it any more, whatever the setting says.
    assert list(bucket.list()) == []
    if every_version:
        assert {key for key, _ in versions(bucket)} == delete_markers(bucket) == {of_a_person}
    else:
        assert versions(bucket) == before
    # And nothing is left to do.
    again = api.post("/gc/runs", json={"dry_run": False}).json()["id"]
    carrier.carry(UUID(again))
    counts = api.get(f"/runs/{again}").json()["result"]
    assert [counts[name] for name in ("freed", "inputs_freed", "unpublished_freed")] == [0, 0, 0]
