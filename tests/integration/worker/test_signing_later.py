"""Signing a model that was published or imported without a signature."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr

from app.db.session import Database
from app.registry.keeping import marks
from app.registry.keeping.marks import MarkReason
from app.registry.models import catalogue
from app.registry.runs import lifecycle
from app.registry.stages import promotions
from app.registry.stages.promotions import PromotionRequest
from app.storage import keys
from app.storage.bucket import Bucket
from app.words import Actor, RunKind, Stage
from local import signing
from tests.integration.app.registry import Registry
from tests.integration.objects import overwrite, read
from tests.integration.worker.conftest import SIGNING_KEY
from tests.integration.worker.old_bucket import put_model
from tests.integration.worker.test_signing import to_production, verified
from worker.clouds import Clouds
from worker.documents.key import SigningKey
from worker.runner import Runner
from worker.runs.carrying import RunCarrier


@pytest.fixture
def bucket(clients: Clouds) -> Bucket:
    return clients.bucket


@pytest.fixture
def registry(database: Database, bucket: Bucket) -> Registry:
    made = Registry(database)
    made.bucket = bucket
    return made


def ask(api: TestClient, prefix: str) -> dict[str, Any]:
    answer = api.post(f"/models/{prefix}/sign")
    assert answer.status_code == 202, answer.text
    run: dict[str, Any] = answer.json()["run"]
    assert (run["kind"], run["options"]) == ("signing", {"prefix": prefix})
    return run


@pytest.fixture
def sign(api: TestClient, carrier: RunCarrier) -> Callable[[str], dict[str, Any]]:
    """Ask for a model's signature; returns how the run ended."""

    def sign(prefix: str) -> dict[str, Any]:
        run = ask(api, prefix)
        carrier.carry(UUID(run["id"]))
        ended: dict[str, Any] = api.get(f"/runs/{run['id']}").json()
        return ended

    return sign


def with_key(carrier: RunCarrier, key: str | None) -> RunCarrier:
    """The same worker with another key."""
    runner = carrier.runner
    secret = None if key is None else SecretStr(key)
    settings = runner.settings.model_copy(update={"signing_key": secret})
    return RunCarrier(Runner(settings, runner.database, runner.clouds, runner.owner, runner.stopping))


def check(bucket: Bucket, prefix: str, to: Path, key: str = SIGNING_KEY) -> bool:
    """Whether the standard command takes the downloaded model for signed with the key."""
    to.mkdir()
    for name, _ in bucket.list(f"{prefix}/"):
        bucket.download(name, to / name.rpartition("/")[2])
    return verified(to, key).returncode == 0


def test_a_model_is_signed_later_and_says_so(
    api: TestClient,
    registry: Registry,
    bucket: Bucket,
    sign: Callable[[str], dict[str, Any]],
    tmp_path: Path,
) -> None:
    prefix = registry.model("1.0.0")
    assert api.get(f"/models/{prefix}").json()["signature"] is None
    ended = sign(prefix)
    fingerprint = SigningKey.of(SIGNING_KEY).fingerprint
    assert (ended["state"], ended["result"]) == (
        "succeeded",
        {"prefix": prefix, "key": fingerprint, "files": 1},
    )
    model = api.get(f"/models/{prefix}").json()
    assert model["signature"]["key"] == fingerprint
    assert model["signature"]["signed_at"] > model["published_at"]
    assert keys.SIGNATURE in {file["name"] for file in model["artifacts"]}
    assert check(bucket, prefix, tmp_path / prefix)
    [signed, asked] = api.get("/audit", params={"limit": 2}).json()["items"]
    assert (signed["action"], signed["subject"]) == ("model_signed", prefix)
    assert (asked["action"], asked["subject"]) == ("run_requested", signed["after"]["run"])
    # Asking again changes nothing.
    again = api.post(f"/models/{prefix}/sign")
    assert (again.status_code, again.json()["run"]) == (200, None)
    assert again.json()["signature"] == model["signature"]
    # What was promoted meanwhile is a marker, which no signature names.
    assert to_production(api, prefix)[0] == 201


def test_two_requests_for_a_model_are_one_run_and_another_model_waits(
    api: TestClient, registry: Registry
) -> None:
    first, second = registry.model("1.0.0"), registry.model("1.0.1")
    run = ask(api, first)
    again = api.post(f"/models/{first}/sign")
    assert (again.status_code, again.json()["run"]["id"]) == (200, run["id"])
    other = api.post(f"/models/{second}/sign")
    assert (other.status_code, other.json()["type"]) == (409, "/problems/run-active")
    assert other.json()["run"] == run["id"]
    assert registry.count("audit", "action = 'run_requested'") == 1
    assert api.post("/models/9.9.9-aaaaaaa/sign").status_code == 404


def test_a_model_that_is_to_be_deleted_is_not_signed(
    api: TestClient, registry: Registry, bucket: Bucket, carrier: RunCarrier
) -> None:
    prefix = registry.model("1.0.0")
    run = ask(api, prefix)
    with registry.database.transaction() as session:
        model = catalogue.get_locked(session, prefix)
        marks.mark(session, model.id, MarkReason("old", "Nobody uses it"), None)
    refused = api.post(f"/models/{prefix}/sign")
    assert (refused.status_code, refused.json()["type"]) == (410, "/problems/model-marked")
    # It was marked after somebody had asked.
    carrier.carry(UUID(run["id"]))
    ended = api.get(f"/runs/{run['id']}").json()
    assert (ended["state"], "is marked for garbage collection" in ended["failure"]) == ("failed", True)
    assert bucket.head(f"{prefix}/{keys.SIGNATURE}") is None


def test_files_that_are_missing_or_different_are_named_and_nothing_is_signed(
    registry: Registry, bucket: Bucket, sign: Callable[[str], dict[str, Any]]
) -> None:
    prefix = registry.publish(registry.queue("1.0.0"), model_zip=8, provenance_json=8, sbom_cdx_json=8)
    bucket.delete(f"{prefix}/{keys.PROVENANCE}")
    overwrite(bucket, f"{prefix}/{keys.MODEL_ZIP}", b"8 others")
    ended = sign(prefix)
    assert ended["state"] == "failed"
    assert f"{keys.MODEL_ZIP}, {keys.PROVENANCE}. Nothing was signed" in ended["failure"]
    assert bucket.head(f"{prefix}/{keys.SIGNATURE}") is None


def test_without_a_key_the_run_says_what_to_set(
    api: TestClient, registry: Registry, carrier: RunCarrier, sign: Callable[[str], dict[str, Any]]
) -> None:
    prefix = registry.model("1.0.0")
    for key, said in ((None, "Set REGISTRY_SIGNING_KEY or"), ("x", "REGISTRY_SIGNING_KEY does not hold")):
        run = ask(api, prefix)
        with_key(carrier, key).carry(UUID(run["id"]))
        ended = api.get(f"/runs/{run['id']}").json()
        assert ended["state"] == "failed"
        assert said in ended["failure"]
    assert sign(prefix)["state"] == "succeeded"


@pytest.mark.parametrize("at", ["put", "record", "end"])
def test_a_worker_that_dies_is_followed_by_one_that_publishes_the_same_signature(
    api: TestClient,
    registry: Registry,
    bucket: Bucket,
    carrier: RunCarrier,
    monkeypatch: pytest.MonkeyPatch,
    at: str,
    tmp_path: Path,
) -> None:
    prefix = registry.model("1.0.0")
    run = ask(api, prefix)
    place = {
        "put": "app.storage.bucket.Bucket.put_once",
        "record": "app.registry.runs.signing.record",
        "end": "app.registry.runs.lifecycle.succeed",
    }[at]
    with monkeypatch.context() as dying:
        dying.setattr(place, die)
        with pytest.raises(KeyboardInterrupt):
            carrier.carry(UUID(run["id"]))
    before = read(bucket, f"{prefix}/{keys.SIGNATURE}")
    assert (before is None) == (at == "put")
    registry.execute("UPDATE runs SET lease_expires_at = now() - interval '1 s'")
    # The next worker may have another key: what was made is what counts.
    with_key(carrier, signing.new_key()).carry(UUID(run["id"]))
    ended = api.get(f"/runs/{run['id']}").json()
    assert ended["state"] == "succeeded", ended
    assert ended["result"]["key"] == SigningKey.of(SIGNING_KEY).fingerprint
    assert before is None or read(bucket, f"{prefix}/{keys.SIGNATURE}") == before
    assert check(bucket, prefix, tmp_path / prefix)
    assert registry.count("audit", "action = 'model_signed'") == 1


def die(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_a_signature_that_a_stopped_run_left_is_adopted_and_another_object_is_not_replaced(
    api: TestClient,
    registry: Registry,
    bucket: Bucket,
    carrier: RunCarrier,
    sign: Callable[[str], dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    prefix = registry.model("1.0.0")
    key = f"{prefix}/{keys.SIGNATURE}"
    run = ask(api, prefix)
    with monkeypatch.context() as dying:
        dying.setattr("app.registry.runs.signing.record", die)
        with pytest.raises(KeyboardInterrupt):
            carrier.carry(UUID(run["id"]))
    api.post(f"/runs/{run['id']}/stop")
    left = read(bucket, key)
    assert left is not None
    overwrite(bucket, key, b"somebody else's")
    refused = sign(prefix)
    assert refused["state"] == "failed"
    assert f"has another {key}, which is not replaced" in refused["failure"]
    assert read(bucket, key) == b"somebody else's"
    overwrite(bucket, key, left)
    assert sign(prefix)["state"] == "succeeded"
    assert read(bucket, key) == left
    recorded = registry.value("SELECT sha256 FROM artifacts WHERE name = 'model.sig'")
    assert recorded == bucket.digest(key).sha256


def test_an_imported_model_gets_its_digests_with_its_signature(
    api: TestClient,
    registry: Registry,
    bucket: Bucket,
    carrier: RunCarrier,
    sign: Callable[[str], dict[str, Any]],
    tmp_path: Path,
) -> None:
    prefix = "0.9.0-abcdef0"
    put_model(bucket, prefix)
    with registry.database.transaction() as session:
        run = lifecycle.request(session, RunKind.IMPORT, {"digests": False}, "somebody", Actor.TOKEN)
        run_id = run.id
    carrier.carry(run_id)
    assert registry.count("artifacts", "sha256 IS NULL") == 3
    assert sign(prefix)["state"] == "succeeded"
    assert registry.count("artifacts", "sha256 IS NULL") == 0
    assert check(bucket, prefix, tmp_path / prefix)


def test_a_signature_waits_for_a_promotion_that_is_being_decided(
    api: TestClient, registry: Registry, carrier: RunCarrier
) -> None:
    prefix = registry.model("1.0.0", stages=(Stage.DEVELOPMENT,))
    run = ask(api, prefix)
    carrying = threading.Thread(target=carrier.carry, args=(UUID(run["id"]),))
    with registry.database.transaction() as session:
        promotions.record(session, "somebody", prefix, PromotionRequest(Stage.STAGING))
        carrying.start()
        registry.await_value(
            "SELECT count(*) > 0 FROM pg_stat_activity"
            " WHERE wait_event_type = 'Lock' AND datname = current_database()"
        )
        assert registry.value("SELECT signed_with FROM models") is None
    carrying.join()
    assert api.get(f"/runs/{run['id']}").json()["state"] == "succeeded"
    model = api.get(f"/models/{prefix}").json()
    assert model["signature"] is not None
    assert model["stages"] == ["development", "staging"]
