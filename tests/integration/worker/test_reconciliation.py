"""Reconciliation: what differs between bucket and database is found, remembered, and repaired on request."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.db.session import Database
from app.registry import mirror as keys_to_look_at
from app.registry.keeping import marks
from app.registry.keeping.marks import MarkReason
from app.registry.models import documents
from app.registry.runs import lifecycle
from app.storage.bucket import Bucket, digest_of
from app.storage.keys import input_key
from app.words import Document, RunKind, Stage
from local.simcloud.server import SimCloud
from tests.integration.app.registry import Registry
from tests.integration.objects import overwrite, read
from tests.integration.worker.old_bucket import put, put_model
from worker import janitor, mirror
from worker.clouds import Clouds
from worker.runs.carrying import RunCarrier
from worker.tasks import ask_for_reconciliation

DEVELOPMENT, STAGING, PRODUCTION = Stage
CONTENT = b"the model"


@pytest.fixture
def registry(database: Database) -> Registry:
    return Registry(database)


@pytest.fixture
def bucket(clients: Clouds) -> Bucket:
    return clients.bucket


@pytest.fixture
def publish(registry: Registry, bucket: Bucket, tmp_path: Path) -> Callable[..., str]:
    """A published model with its files and markers in the bucket; returns its prefix."""

    def publish(version: str = "1.0.0", stages: tuple[Stage, ...] = (), *, keep: bool = False) -> str:
        build_id = registry.queue(version)
        prefix = registry.publish(build_id, model_zip=len(CONTENT), provenance_json=len(CONTENT))
        file = tmp_path / "content"
        file.write_bytes(CONTENT)
        content = digest_of(file)
        registry.execute(
            "UPDATE artifacts SET sha256 = :sha256 WHERE key LIKE :keys",
            sha256=content.sha256,
            keys=f"{prefix}/%",
        )
        keys = [f"{prefix}/model.zip", f"{prefix}/provenance.json"]
        if keep:
            keys.append(f"unpublished/{build_id}/{content.sha256}")
        for key in keys:
            bucket.put_once(key, file, content, content_type="application/zip", build_id=str(build_id))
        for stage in stages:
            registry.promote(prefix, stage)
        mirror.drain(registry.database, bucket)
        return prefix

    return publish


def found(result: dict[str, Any]) -> dict[str, str]:
    return {one["key"]: one["difference"] for one in result["findings"]}


def missing(registry: Registry) -> list[str]:
    return registry.values("SELECT key FROM artifacts WHERE missing_since IS NOT NULL ORDER BY key")


def test_a_bucket_that_is_right_shows_no_difference_and_is_not_written_to(
    publish: Callable[..., str], bucket: Bucket, reconcile: Callable[..., dict[str, Any]], registry: Registry
) -> None:
    publish("1.0.0", (DEVELOPMENT, STAGING))
    publish("1.1.0")
    overwrite(bucket, "raw_source_data.zip", b"data")
    before = list(bucket.listed())
    result = reconcile(apply=True, model_zip=True)
    assert (result["models"], result["prefixes"], result["findings"]) == (2, 2, [])
    assert list(bucket.listed()) == before
    assert missing(registry) == []


def test_what_is_left_of_a_collected_model_is_a_difference_and_nothing_of_it_comes_back(
    publish: Callable[..., str], bucket: Bucket, reconcile: Callable[..., dict[str, Any]], registry: Registry
) -> None:
    prefix = publish("1.0.0", (DEVELOPMENT,), keep=True)
    running = publish("1.1.0", (DEVELOPMENT,))
    of = registry.value("SELECT id FROM models WHERE prefix = :p", p=prefix)
    with registry.database.transaction() as session:
        marks.mark(session, of, MarkReason("branch_gone", "its branch is gone"), None)
    assert reconcile(apply=True)["findings"] == []
    with registry.database.transaction() as session:
        files = documents.to_save(session, [of])[of]
    saved = documents.fetch(bucket, files)
    with registry.database.transaction() as session:
        marks.begin_sweep(session, of, saved)
    # While its objects are being deleted, nobody else looks at them.
    bucket.delete(f"{prefix}/provenance.json")
    assert reconcile(apply=True, model_zip=True)["findings"] == []
    with registry.database.transaction() as session:
        assert documents.to_save(session, [of]) == {}
        marks.collected(session, of)
    overwrite(bucket, f"{prefix}/notes.txt", b"?")
    assert found(reconcile()) == {
        f"{prefix}/development": "leftover",
        f"{prefix}/passed": "leftover",
        f"{prefix}/model.zip": "leftover",
        f"{prefix}/notes.txt": "stray_object",
    }
    assert reconcile(apply=True)["repaired"] == 3
    assert [one.key for one in bucket.listed(f"{prefix}/")] == [f"{prefix}/notes.txt"]
    assert missing(registry) == []
    assert documents.read(registry.database, bucket, prefix, Document.PROVENANCE) == CONTENT
    assert documents.read(registry.database, bucket, running, Document.PROVENANCE) == CONTENT


def test_each_way_to_differ_is_listed(
    publish: Callable[..., str], bucket: Bucket, reconcile: Callable[..., dict[str, Any]]
) -> None:
    prefix = publish("1.0.0", (DEVELOPMENT, STAGING))
    other = publish("1.1.0", (DEVELOPMENT,))
    bucket.delete(f"{prefix}/staging")
    overwrite(bucket, f"{prefix}/production")
    overwrite(bucket, f"{prefix}/development", b"not empty")
    overwrite(bucket, f"{prefix}/notes.txt", b"?")
    bucket.delete(f"{prefix}/model.zip")
    overwrite(bucket, f"{prefix}/provenance.json", b"shorter")
    overwrite(bucket, f"{other}/model.zip", b"the m0del")
    put_model(bucket, "0.9.0-abcdef0")
    put(bucket, "reports/2025.csv")
    result = reconcile()
    assert found(result) == {
        "0.9.0-abcdef0/": "unknown_prefix",
        f"{prefix}/staging": "marker_missing",
        f"{prefix}/production": "marker_unknown",
        f"{prefix}/development": "marker_not_empty",
        f"{prefix}/notes.txt": "stray_object",
        f"{prefix}/model.zip": "artifact_missing",
        f"{prefix}/provenance.json": "artifact_differs",
        f"{other}/model.zip": "artifact_differs",
    }
    assert result["differences"]["artifact_differs"] == 2
    assert result["repaired"] == 0
    assert read(bucket, f"{prefix}/production") == b""


def test_what_is_safe_is_repaired_and_the_rest_is_left(
    publish: Callable[..., str],
    bucket: Bucket,
    reconcile: Callable[..., dict[str, Any]],
    registry: Registry,
) -> None:
    prefix = publish("1.0.0", (DEVELOPMENT, STAGING), keep=True)
    bucket.delete(f"{prefix}/staging")
    overwrite(bucket, f"{prefix}/failed")
    overwrite(bucket, f"{prefix}/notes.txt", b"?")
    bucket.delete(f"{prefix}/model.zip")
    bucket.delete(f"{prefix}/provenance.json")
    result = reconcile(apply=True)
    assert {one["key"].partition("/")[2]: one["repaired"] for one in result["findings"]} == {
        "staging": True,
        "failed": True,
        "notes.txt": False,
        "model.zip": False,
        "provenance.json": True,
    }
    assert result["repaired"] == 3
    assert bucket.head(f"{prefix}/failed") is None
    assert read(bucket, f"{prefix}/notes.txt") == b"?"
    assert read(bucket, f"{prefix}/provenance.json") == CONTENT
    assert missing(registry) == [f"{prefix}/model.zip"]
    assert "model_zip" in next(one["detail"] for one in result["findings"] if "model.zip" in one["key"])
    # With consent.
    assert reconcile(apply=True, model_zip=True)["repaired"] == 1
    assert read(bucket, f"{prefix}/model.zip") == CONTENT
    assert missing(registry) == []
    assert found(reconcile()) == {f"{prefix}/notes.txt": "stray_object"}


def test_objects_that_are_gone_are_remembered_until_they_are_back(
    publish: Callable[..., str],
    bucket: Bucket,
    reconcile: Callable[..., dict[str, Any]],
    registry: Registry,
    api: TestClient,
    tmp_path: Path,
) -> None:
    prefix = publish("1.0.0", (DEVELOPMENT,))
    for key in [key for key, _ in bucket.list(prefix)]:
        bucket.delete(key)
    result = reconcile(apply=True)
    # The markers are the registry's own. The files cannot be made again.
    assert result["differences"] == {"marker_missing": 2, "artifact_missing": 2}
    assert result["repaired"] == 2
    assert len(missing(registry)) == 2
    assert api.get("/models/development/latest").json()["type"] == "/problems/artifacts-missing"
    refused = api.post(f"/models/{prefix}/promotions", json={"stage": "staging"}).json()
    assert refused["gate"] == "artifacts"
    since = [file["missing_since"] for file in api.get(f"/models/{prefix}").json()["artifacts"]]
    assert None not in since
    reconcile()
    again = [file["missing_since"] for file in api.get(f"/models/{prefix}").json()["artifacts"]]
    assert again == since
    file = tmp_path / "restored"
    file.write_bytes(CONTENT)
    for name in ("model.zip", "provenance.json"):
        overwrite(bucket, f"{prefix}/{name}", CONTENT)
    assert reconcile()["findings"] == []
    assert missing(registry) == []
    assert api.get("/models/development/latest").json()["prefix"] == prefix


def test_other_content_of_the_same_size_is_found_though_s3_has_no_digest_of_it(
    publish: Callable[..., str], bucket: Bucket, reconcile: Callable[..., dict[str, Any]]
) -> None:
    prefix = publish("1.0.0")
    assert reconcile()["findings"] == []
    overwrite(bucket, f"{prefix}/model.zip", CONTENT[::-1])
    [finding] = reconcile()["findings"]
    assert (finding["key"], finding["difference"]) == (f"{prefix}/model.zip", "artifact_differs")
    assert hashlib.sha256(CONTENT[::-1]).hexdigest() in finding["detail"]


def test_content_that_was_compared_once_is_not_read_again_until_its_etag_changes(
    publish: Callable[..., str],
    bucket: Bucket,
    reconcile: Callable[..., dict[str, Any]],
    carrier: RunCarrier,
    registry: Registry,
) -> None:
    publish("1.0.0")
    reconcile()
    assert registry.count("artifacts", "verified_etag IS NOT NULL") == 2
    asked: list[str] = []
    carrier.runner.clouds.bucket._client.meta.events.register(
        "provide-client-params.s3.HeadObject", lambda params, **_: asked.append(params["Key"])
    )
    reconcile()
    assert asked == []


def test_what_waits_in_the_outbox_and_what_a_build_publishes_is_no_difference(
    publish: Callable[..., str], bucket: Bucket, reconcile: Callable[..., dict[str, Any]], registry: Registry
) -> None:
    prefix = publish("1.0.0")
    registry.promote(prefix, DEVELOPMENT)
    registry.queue("2.0.0", "abcdef0" + "1" * 33)
    put(bucket, "2.0.0-abcdef0/model.zip", b"half a model")
    result = reconcile(apply=True)
    assert (result["findings"], result["waiting"]) == ([], 1)
    assert bucket.head(f"{prefix}/development") is None


def test_more_than_a_thousand_keys_and_models_without_any_object_are_compared(
    bucket: Bucket, registry: Registry, reconcile: Callable[..., dict[str, Any]]
) -> None:
    for minor in range(350):
        for name in ("model.zip", "search-config.toml", "development"):
            put(bucket, f"1.{minor}.0-aaaaaaa/{name}")
    gone = [registry.model(version) for version in ("0.1.0", "1.2.3-rc.1", "1.200.5", "9.0.0")]
    result = reconcile()
    assert (result["prefixes"], result["objects"], result["models"]) == (350, 1050, 4)
    # The markers wait in the outbox.
    assert result["differences"] == {"unknown_prefix": 350, "artifact_missing": 4}
    assert result["waiting"] == 4
    assert missing(registry) == sorted(f"{prefix}/model.zip" for prefix in gone)


def test_a_run_goes_on_in_the_part_in_which_it_was_interrupted(
    bucket: Bucket, database: Database, registry: Registry, carrier: RunCarrier, cloud: SimCloud
) -> None:
    for minor in range(210):
        put(bucket, f"1.{minor}.0-aaaaaaa/model.zip")
    gone = registry.model("2.0.0")
    with database.transaction() as session:
        run_id = lifecycle.request(session, RunKind.RECONCILIATION, {}, "somebody").id
    fault = cloud.faults.add("s3", "HeadObject", code="SlowDown", status=503, times=None, match=gone)
    with pytest.raises(Exception, match="503"):
        carrier.carry(run_id)
    with database.transaction() as session:
        assert (lifecycle.get(session, run_id).progress or {})["prefixes"] == 200
    cloud.faults.remove(fault)
    carrier.carry(run_id)
    with database.transaction() as session:
        run = lifecycle.get(session, run_id)
    assert run.result is not None
    assert (run.state, run.result["prefixes"]) == ("succeeded", 210)
    assert missing(registry) == [f"{gone}/model.zip"]


def test_a_run_whose_worker_died_after_its_last_part_is_only_ended(
    database: Database, registry: Registry, carrier: RunCarrier, bucket: Bucket
) -> None:
    registry.model("1.0.0")
    with database.transaction() as session:
        run_id = lifecycle.request(session, RunKind.RECONCILIATION, {}, "somebody").id
    registry.execute(
        'UPDATE runs SET checkpoint = \'{"after": null, "inputs_after": null}\', result = \'{"models": 7}\''
    )
    carrier.carry(run_id)
    with database.transaction() as session:
        run = lifecycle.get(session, run_id)
    assert (run.state, run.result) == ("succeeded", {"models": 7})


def test_the_nightly_run_only_reports_and_waits_for_none_that_is_under_way(
    database: Database, registry: Registry
) -> None:
    ask_for_reconciliation(database)
    ask_for_reconciliation(database)
    assert registry.values("SELECT requested_by FROM runs") == ["schedule"]
    assert registry.value("SELECT options FROM runs") == {}


def test_files_of_what_a_stage_runs_are_missed_within_a_minute_and_not_only_at_night(
    publish: Callable[..., str], bucket: Bucket, registry: Registry, clients: Clouds, database: Database
) -> None:
    running, other = publish("1.0.0", (DEVELOPMENT,)), publish("1.1.0")
    assert janitor.watch_stages(database, clients) == []
    for prefix in (running, other):
        bucket.delete(f"{prefix}/model.zip")
    assert janitor.watch_stages(database, clients) == missing(registry) == [f"{running}/model.zip"]
    overwrite(bucket, f"{running}/model.zip", CONTENT)
    assert janitor.watch_stages(database, clients) == missing(registry) == []


# Inputs


def test_inputs_are_compared_in_parts_and_looked_at_once(
    bucket: Bucket,
    database: Database,
    registry: Registry,
    carrier: RunCarrier,
    cloud: SimCloud,
    reconcile: Callable[..., dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("worker.runs.kept_inputs._TOGETHER", 2)
    contents = [f"input {number}".encode() for number in range(5)]
    digests = sorted(hashlib.sha256(content).hexdigest() for content in contents)
    for content in contents:
        overwrite(bucket, input_key(hashlib.sha256(content).hexdigest()), content)
    # The first was never put there, nobody has finished to put the last, and the one before was collected.
    for digest in ("0" * 64, *digests, "e" * 64, "f" * 64):
        registry.execute(
            "INSERT INTO inputs (sha256, size_bytes, stored_at) VALUES (:sha256, 7, :at)",
            sha256=digest,
            at=None if digest == "f" * 64 else "2026-11-23T10:00:00Z",
        )
    registry.execute("UPDATE inputs SET sweeping_at = now(), collected_at = now() WHERE sha256 LIKE 'eeeee%'")
    with database.transaction() as session:
        run_id = lifecycle.request(session, RunKind.RECONCILIATION, {}, "somebody").id
    fault = cloud.faults.add("s3", "HeadObject", code="SlowDown", status=503, times=None, match=digests[4])
    with pytest.raises(Exception, match="503"):
        carrier.carry(run_id)
    cloud.faults.remove(fault)
    asked: list[str] = []
    carrier.runner.clouds.bucket._client.meta.events.register(
        "provide-client-params.s3.HeadObject", lambda params, **_: asked.append(params["Key"])
    )
    carrier.carry(run_id)
    # The worker before has stored what it had found out.
    assert asked == [input_key(digests[4])]
    with database.transaction() as session:
        result = lifecycle.get(session, run_id).result or {}
    assert (found(result), result["inputs"]) == ({input_key("0" * 64): "input_missing"}, 6)
    assert registry.values("SELECT sha256 FROM inputs WHERE missing_since IS NOT NULL") == ["0" * 64]
    asked.clear()
    assert found(reconcile()) == {input_key("0" * 64): "input_missing"}
    assert asked == [input_key("0" * 64)]


# The mirror's backlog


def test_while_s3_is_down_the_backlog_is_visible_and_drains_by_itself_once_it_is_back(
    bucket: Bucket, registry: Registry, api: TestClient, cloud: SimCloud
) -> None:
    prefixes = [registry.model(f"1.{minor}.0", stages=(DEVELOPMENT, STAGING)) for minor in range(20)]
    fault = cloud.faults.add("s3", "*", code="ServiceUnavailable", status=503, times=None)
    assert mirror.drain(registry.database, bucket) == 0
    shown = api.get("/mirror").json()
    assert shown["waiting"] == 60
    assert sum(one["attempts"] for one in shown["first"]) == 3
    assert "503" in next(one["error"] for one in shown["first"] if one["error"])
    # The API goes on meanwhile.
    assert api.get("/models/staging/latest").status_code == 200
    assert registry.model("3.0.0", stages=(DEVELOPMENT,))
    cloud.faults.remove(fault)
    registry.execute("UPDATE outbox SET next_attempt_at = now() - interval '1 s'")
    assert mirror.drain(registry.database, bucket) == 62
    assert api.get("/mirror").json() == {"waiting": 0, "since": None, "first": []}
    assert all(bucket.head(f"{prefix}/staging") is not None for prefix in prefixes)


def test_keys_of_a_prefix_are_settled_in_order_with_its_markers_last(
    publish: Callable[..., str], bucket: Bucket, registry: Registry, cloud: SimCloud
) -> None:
    prefix = publish("1.0.0", keep=True)
    bucket.delete(f"{prefix}/model.zip")
    registry.promote(prefix, DEVELOPMENT)
    registry.promote(prefix, STAGING)
    with registry.database.transaction() as session:
        keys_to_look_at.ask(session, f"{prefix}/model.zip")
    other = registry.model("2.0.0")
    cloud.faults.add("s3", "CopyObject", code="InternalError", status=400, times=1)
    mirror.drain(registry.database, bucket)
    # The file could not be copied, so the markers wait for it; another prefix does not.
    assert bucket.head(f"{prefix}/development") is None
    assert bucket.head(f"{other}/passed") is not None
    written: list[str] = []
    for action in ("PutObject", "CopyObject"):
        bucket._client.meta.events.register(
            f"provide-client-params.s3.{action}", lambda params, **_: written.append(params["Key"])
        )
    registry.execute("UPDATE outbox SET next_attempt_at = now() - interval '1 s'")
    mirror.drain(registry.database, bucket)
    assert written == [f"{prefix}/{name}" for name in ("model.zip", "development", "staging")]
