"""Prefixes that the registry does not know: deleted when a person names them, and never under a build."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from fastapi.testclient import TestClient

from app.aws import CloudUnavailable
from app.db.session import Database
from app.registry import clearing, late_deletes
from app.registry.builds.lease import release
from app.registry.runs import lifecycle
from app.storage.bucket import Bucket, digest_of
from app.storage.deleting import SignedDelete
from app.words import RunKind, StepName
from local.simcloud.server import SimCloud
from tests.integration.app.registry import Registry
from tests.integration.worker.old_bucket import put, put_model
from worker import leftovers
from worker.clouds import Clouds
from worker.runs.carrying import RunCarrier
from worker.unpublished import Left

STRAY, OTHER = "0.0.9-abcdef1", "0.0.8-abcdef1"
WEEK = timedelta(days=7)


@pytest.fixture
def registry(database: Database) -> Registry:
    return Registry(database)


@pytest.fixture
def bucket(clients: Clouds) -> Bucket:
    return clients.bucket


def keys(bucket: Bucket) -> list[str]:
    return [one.key for one in bucket.listed()]


def ask(api: TestClient, *prefixes: str) -> Any:
    return api.post("/mirror/reconcile", json={"delete_strays": prefixes})


def end_long_ago(registry: Registry, build_id: UUID, days: int) -> None:
    registry.execute(
        "UPDATE builds SET created_at = created_at - make_interval(days => :days), started_at = started_at"
        " - make_interval(days => :days), finished_at = finished_at - make_interval(days => :days)"
        " WHERE id = :id",
        id=build_id,
        days=days,
    )


def test_only_what_was_named_is_deleted_to_the_last_page_of_its_listing(
    bucket: Bucket,
    cloud: SimCloud,
    reconcile: Callable[..., dict[str, Any]],
    api: TestClient,
    carrier: RunCarrier,
) -> None:
    for name in range(120):
        put(bucket, f"{STRAY}/{name:03}", b"xy")
    put(bucket, f"{STRAY}/production")
    put_model(bucket, OTHER)
    put(bucket, f"{STRAY}0/notes", b"of a longer name")
    kept = [key for key in keys(bucket) if not key.startswith(f"{STRAY}/")]
    deleted: list[str] = []
    deleter = carrier.runner.clouds.bucket.deleter
    send = deleter.send

    def noted(delete: SignedDelete) -> None:
        deleted.append(delete.key)
        send(delete)

    deleter.send = noted  # type: ignore[method-assign]
    asked = ask(api, STRAY, STRAY)
    assert asked.status_code == 202, asked.text
    # The worker dies in the midst of it: the run goes on where it was.
    fault = cloud.faults.add("s3", "DeleteObject", code="SlowDown", status=503, times=None, match="/11")
    with pytest.raises(CloudUnavailable):
        carrier.carry(UUID(asked.json()["id"]))
    cloud.faults.remove(fault)
    carrier.carry(UUID(asked.json()["id"]))
    result = api.get(f"/runs/{asked.json()['id']}").json()["result"]
    [stray] = result["strays"]
    assert (stray["prefix"], stray["kept_because"]) == (STRAY, None)
    assert (stray["objects"], stray["size_bytes"]) == (121, 240)
    assert deleted[-1] == f"{STRAY}/production"
    assert keys(bucket) == kept
    # Everything else is compared as ever, and nothing is deleted that was not named.
    assert [one["key"] for one in reconcile(apply=True)["findings"]] == [f"{OTHER}/"]
    assert keys(bucket) == kept


def test_what_the_registry_knows_or_may_still_need_is_refused(api: TestClient, registry: Registry) -> None:
    prefix_of = "SELECT prefix FROM builds WHERE id = :id"
    model = registry.model()
    active = registry.value(prefix_of, id=registry.queue("1.1.0"))
    failed = registry.queue("1.2.0")
    registry.fail(failed)
    retried = registry.value(prefix_of, id=failed)
    for prefix, why in ((model, "its model"), (active, "makes it"), (retried, "be retried")):
        answer = ask(api, STRAY, prefix)
        assert (answer.status_code, answer.json()["type"]) == (409, "/problems/not-a-stray")
        assert answer.json()["prefix"] == prefix
        assert why in answer.json()["detail"]
    for not_a_prefix in ("*", "0.0.9-*", "inputs", "0.0.9-abcdef1/", ""):
        assert ask(api, not_a_prefix).status_code == 422
    assert ask(api, *[STRAY] * 51).status_code == 422
    assert registry.count("runs") == 0
    end_long_ago(registry, failed, 30)
    assert ask(api, retried).status_code == 202


def test_a_build_or_an_import_that_comes_before_a_delete_is_respected(
    api: TestClient, bucket: Bucket, registry: Registry, carrier: RunCarrier, cloud: SimCloud
) -> None:
    sha = "abcdef1" + "0" * 33
    put(bucket, f"{STRAY}/model.zip", b"?")
    put_model(bucket, OTHER)
    run = UUID(ask(api, STRAY, OTHER).json()["id"])
    build_id = registry.queue("0.0.9", sha)
    imported = UUID(api.post("/imports", json={}).json()["id"])
    carrier.carry(run)
    strays = api.get(f"/runs/{run}").json()["result"]["strays"]
    assert [one["objects"] for one in strays] == [0, 0]
    assert str(build_id) in strays[0]["kept_because"]
    assert str(imported) in strays[1]["kept_because"]
    assert f"{STRAY}/model.zip" in keys(bucket)
    # An import leaves out what a delete can still arrive at, and so does the build.
    carrier.carry(imported)
    result = api.get(f"/runs/{imported}").json()["result"]
    assert {one["prefix"]: one["reason"] for one in result["left_out_prefixes"]} == {
        STRAY: "build_under_way",
        OTHER: "being_deleted",
    }
    lease = registry.take(build_id)
    with registry.database.transaction() as session:
        waits = clearing.wait(session, lease, WEEK)
    assert waits is not None
    assert timedelta(0) < waits <= late_deletes.OVER_AFTER
    registry.execute("UPDATE builds SET started_at = started_at - interval '3 minutes'")
    with registry.database.transaction() as session:
        assert clearing.wait(session, lease, WEEK) is None
    registry.execute("UPDATE runs SET finished_at = finished_at - interval '3 minutes'")
    again = UUID(api.post("/imports", json={}).json()["id"])
    carrier.carry(again)
    assert api.get(f"/runs/{again}").json()["result"]["adopted_prefixes"] == [OTHER]


def test_a_stopped_run_deletes_nothing_more(
    api: TestClient, bucket: Bucket, database: Database, carrier: RunCarrier
) -> None:
    put(bucket, f"{STRAY}/model.zip", b"?")
    with database.transaction() as session:
        options = {clearing.DELETE_STRAYS: [STRAY]}
        run_id = lifecycle.request(session, RunKind.RECONCILIATION, options, "somebody").id
    deleter = carrier.runner.clouds.bucket.deleter
    listed = deleter.under

    def stop_meanwhile(prefix: str) -> Any:
        api.post(f"/runs/{run_id}/stop")
        return listed(prefix)

    deleter.under = stop_meanwhile  # type: ignore[method-assign]
    carrier.carry(run_id)
    assert keys(bucket) == [f"{STRAY}/model.zip"]


def test_what_a_failed_build_could_not_remove_goes_after_the_window_and_nothing_else(
    bucket: Bucket, registry: Registry, tmp_path: Path
) -> None:
    sha = "abcdef1" + "0" * 33
    build_id = registry.queue("0.0.9", sha)
    registry.output(build_id, StepName.PUBLISH, {})
    registry.fail(build_id)
    file = tmp_path / "file"
    file.write_bytes(b"model")
    content = digest_of(file)
    for name in ("model.zip", "provenance.json"):
        bucket.put_once(
            f"{STRAY}/{name}", file, content, content_type="application/zip", build_id=str(build_id)
        )
    put(bucket, f"{STRAY}/notes.txt", b"somebody's")
    whole = keys(bucket)

    def sweep() -> Left:
        return leftovers.sweep(registry.database, bucket, WEEK, lambda _: None)

    # It can be retried for a week, and while it is being retried, whatever is there is left alone.
    assert sweep() == leftovers.count(registry.database, bucket, WEEK) == Left()
    end_long_ago(registry, build_id, 8)
    assert leftovers.count(registry.database, bucket, WEEK) == Left(2, 10)
    retried = registry.queue("0.0.9", sha)
    assert sweep() == Left()
    assert keys(bucket) == whole
    # The retry was queued after the window: a delete that was signed before may still arrive.
    lease = registry.take(retried)
    with registry.database.transaction() as session:
        assert clearing.wait(session, lease, WEEK) is not None
        release(session, lease)
    registry.fail(retried)
    assert sweep() == Left()
    end_long_ago(registry, retried, 8)
    assert sweep() == Left(2, 10)
    assert keys(bucket) == [f"{STRAY}/notes.txt"]
    # A retry within the window need not wait.
    registry.execute("UPDATE builds SET finished_at = now() WHERE id = :id", id=build_id)
    again = registry.take(registry.queue("0.0.9", sha))
    with registry.database.transaction() as session:
        assert clearing.wait(session, again, WEEK) is None
