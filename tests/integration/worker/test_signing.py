"""The signature over a model's files: made with its publication, verified with the standard command."""

import base64
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from fastapi.testclient import TestClient
from pydantic import SecretStr
from sqlalchemy import text

from app.main import create_app
from app.registry.builds import listing
from app.registry.models import bundles
from app.settings import Settings
from app.storage import keys
from app.words import BuildState, StepName
from local import signing
from local.simcloud.server import SimCloud
from tests.integration.objects import overwrite
from tests.integration.worker.conftest import OUTPUT, SIGNING_KEY, Flow, sha256
from worker.clouds import Clouds
from worker.documents.key import NoSigningKey, SigningKey, signing_key
from worker.retry import Patience, reason_to_wait
from worker.runner import Runner


def finish(flow: Flow) -> str:
    """Publish as the runner does; returns the prefix."""
    flow.do_until(StepName.PUBLISH)
    prefix = flow.view().prefix
    flow.do(StepName.PUBLISH)
    return prefix


def download(flow: Flow, prefix: str, to: Path) -> Path:
    """The model's folder as `aws s3 sync` brings it: with the markers."""
    to.mkdir()
    bucket = flow.clouds.bucket
    for key, _ in bucket.list(f"{prefix}/"):
        bucket.download(key, to / key.rpartition("/")[2])
    (to / "passed").touch()
    return to


def verified(
    folder: Path, key: str = SIGNING_KEY, *, ignoring_unsigned: bool = True
) -> "subprocess.CompletedProcess[str]":
    """The standard command, as somebody runs it who has nothing but the files and the public key."""
    public = folder.parent / "registry.pub"
    public.write_text(SigningKey.of(key).public_key)
    return subprocess.run(
        [
            *(sys.executable, "-m", "model_signing", "verify", "key", folder),
            *("--signature", folder / keys.SIGNATURE, "--public_key", public),
            *(["--ignore_unsigned_files"] if ignoring_unsigned else []),
        ],
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_standard_command_verifies_a_published_model(trained: Flow, tmp_path: Path) -> None:
    prefix = finish(trained)
    folder = download(trained, prefix, tmp_path / prefix)
    assert "Verification succeeded" in verified(folder).stdout
    assert verified(folder, signing.new_key()).returncode != 0
    (folder / keys.MODEL_ZIP).write_bytes(b"Weights")
    tampered = verified(folder)
    assert tampered.returncode != 0
    assert "Hash mismatch for 'model.zip'" in tampered.stdout + tampered.stderr


def test_the_api_says_who_signed_and_gives_the_key(trained: Flow, settings: Settings) -> None:
    prefix = finish(trained)
    with TestClient(create_app(settings)) as api:
        signature = api.get(f"/models/{prefix}").json()["signature"]
        [key] = api.get("/signing-keys").json()["items"]
        statement = api.get(f"/models/{prefix}/provenance")
    assert signature["key"] == key["fingerprint"]
    assert key["public_key"] == SigningKey.of(SIGNING_KEY).public_key
    assert statement.headers["content-type"] == "application/vnd.in-toto+json"
    assert statement.json()["subject"] != []


def test_a_statement_that_somebody_changed_is_not_handed_out(trained: Flow, settings: Settings) -> None:
    prefix = finish(trained)
    overwrite(trained.clouds.bucket, keys.artifact_key(prefix, keys.PROVENANCE))
    with TestClient(create_app(settings)) as api:
        answer = api.get(f"/models/{prefix}/provenance")
    assert answer.json()["type"].endswith("artifacts-missing")
    assert answer.json()["artifacts"] == [keys.PROVENANCE]


def test_a_worker_that_takes_over_publishes_the_signature_that_was_made(trained: Flow) -> None:
    trained.do_until(StepName.PUBLISH)
    prefix = trained.view().prefix
    bucket = trained.clouds.bucket
    trained.act(StepName.PUBLISH)
    key = keys.artifact_key(prefix, keys.SIGNATURE)
    first = bucket.digest(key)
    # As if the first worker had died before it put the last file.
    there = bucket.head(key)
    assert there is not None
    bucket.delete(key, only=there)
    other = trained.settings.model_copy(update={"signing_key": SecretStr("gone meanwhile")})
    trained = replace(trained, settings=other)
    trained.work.settings = other
    trained.do(StepName.PUBLISH)
    assert bucket.digest(key) == first


def test_a_death_between_the_signature_and_its_record_leaves_one_whole_model(
    trained: Flow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained.do_until(StepName.PUBLISH)
    prefix = trained.view().prefix
    with monkeypatch.context() as dying:
        # The signature lies under unpublished/, and nothing says so yet.
        dying.setattr("worker.steps.publish.steps.checkpoint", die)
        with pytest.raises(KeyboardInterrupt):
            trained.act(StepName.PUBLISH)
    assert list(trained.clouds.bucket.list(f"{prefix}/")) == []
    trained.work.log("the log has grown meanwhile")
    finish(trained)
    assert verified(download(trained, prefix, tmp_path / prefix)).returncode == 0


def die(*_: object) -> None:
    raise KeyboardInterrupt


def test_without_a_key_a_model_is_published_unsigned(trained: Flow, settings: Settings) -> None:
    trained.work.settings = settings.model_copy(update={"signing_key": None})
    prefix = finish(trained)
    with TestClient(create_app(settings)) as api:
        model = api.get(f"/models/{prefix}").json()
        assert api.get("/signing-keys").json() == {"items": []}
    assert model["signature"] is None
    assert keys.SIGNATURE not in {file["name"] for file in model["artifacts"]}


def test_a_key_that_is_gone_after_the_training_is_waited_for(trained: Flow, settings: Settings) -> None:
    trained.do_until(StepName.PUBLISH)
    trained.work.settings = settings.model_copy(update={"signing_key": None, "signing_key_secret": "gone"})
    with pytest.raises(NoSigningKey) as failed:
        trained.act(StepName.PUBLISH)
    assert "no secret 'gone'" in reason_to_wait(failed.value, Patience.FROM_THE_TRAINING_ON)


def test_a_key_that_is_not_there_ends_a_build_before_anything_is_launched(
    post: Callable[..., UUID],
    settings: Settings,
    filled_bucket: Clouds,
    new_runner: Callable[[], Runner],
    cloud: SimCloud,
) -> None:
    runner = replace_settings(new_runner(), settings.model_copy(update={"signing_key": SecretStr("secret")}))
    build_id = post()
    runner.carry(build_id)
    with runner.database.transaction() as session:
        build = listing.get(session, build_id)
    assert (build.state, build.failure_code) == (BuildState.FAILED, "no_signing_key")
    assert "REGISTRY_SIGNING_KEY" in (build.failure_message or "")
    assert "it is not a private key in PEM" in (build.failure_message or "")
    assert cloud.instances() == []


def replace_settings(runner: Runner, settings: Settings) -> Runner:
    return Runner(settings, runner.database, runner.clouds, runner.owner, runner.stopping)


def test_the_key_may_be_a_secret(settings: Settings, clients: Clouds) -> None:
    assert settings.signing_key is not None
    clients.home.secrets.create_secret(Name="signing", SecretString=settings.signing_key.get_secret_value())
    stored = settings.model_copy(update={"signing_key": None, "signing_key_secret": "signing"})
    assert signing_key(stored, clients.home) == signing_key(settings, clients.home)


@pytest.mark.parametrize(
    ("pem", "why"),
    [
        ("", "not a private key in PEM"),
        ("nonsense", "not a private key in PEM"),
        (
            ec.generate_private_key(ec.SECP384R1())
            .private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            .decode(),
            "P-256",
        ),
        (
            ec.generate_private_key(ec.SECP256R1())
            .private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"password"))
            .decode(),
            "without a password",
        ),
    ],
    ids=["empty", "nonsense", "another curve", "protected"],
)
def test_what_is_not_a_key_is_refused_without_being_quoted(pem: str, why: str) -> None:
    with pytest.raises(ValueError, match=why) as refused:
        SigningKey.of(pem)
    assert not pem or pem not in str(refused.value)


def test_the_signature_names_every_file_and_no_marker(trained: Flow) -> None:
    prefix = finish(trained)
    bucket = trained.clouds.bucket
    bundle = json.loads(bucket.fetch(keys.artifact_key(prefix, keys.SIGNATURE), 1 << 20).content)
    statement = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
    named = {item["name"] for item in statement["predicate"]["resources"]}
    published = {key.rpartition("/")[2] for key, _ in bucket.list(f"{prefix}/")}
    assert named == published - {keys.SIGNATURE} - keys.MARKERS
    assert named >= OUTPUT.keys()


def to_production(api: TestClient, prefix: str, **more: object) -> tuple[int, dict[str, Any]]:
    """The status and the content of the last answer."""
    for stage in ("development", "staging"):
        assert api.post(f"/models/{prefix}/promotions", json={"stage": stage}).status_code in (200, 201)
    answer = api.post(f"/models/{prefix}/promotions", json={"stage": "production", **more})
    return answer.status_code, answer.json()


def test_a_signed_model_whose_signature_holds_gets_into_production(trained: Flow, settings: Settings) -> None:
    prefix = finish(trained)
    with TestClient(create_app(settings)) as api:
        assert to_production(api, prefix)[0] == 201


@pytest.mark.parametrize("how", ["digest changed in the database", "key changed in the database", "file"])
def test_a_signature_that_does_not_hold_keeps_a_model_out_of_production(
    trained: Flow, settings: Settings, how: str
) -> None:
    prefix = finish(trained)
    bucket, key = trained.clouds.bucket, keys.artifact_key(prefix, keys.SIGNATURE)
    with trained.database.transaction() as session:
        if how.startswith("digest"):
            # With a file that fits it, only the signature tells.
            overwrite(bucket, keys.artifact_key(prefix, keys.MODEL_ZIP), b"other weights")
            session.execute(
                text("UPDATE artifacts SET sha256 = :is, size_bytes = 13 WHERE name = 'model.zip'"),
                {"is": sha256(b"other weights")},
            )
        elif how.startswith("key"):
            other = SigningKey.of(signing.new_key()).public_key
            session.execute(text("UPDATE signing_keys SET public_key = :is"), {"is": other})
        else:
            overwrite(bucket, key, b"{}")
    with TestClient(create_app(settings)) as api:
        if how == "file":
            refused = api.post(f"/models/{prefix}/promotions", json={"stage": "development"})
            assert refused.json()["gate"] == "artifacts"
            return
        status, problem = to_production(api, prefix)
        assert (status, problem["gate"]) == (409, "signature")
        assert prefix in problem["detail"]
        status, forced = to_production(api, prefix, override=True, note="we compared them by hand")
        assert (status, forced["override"]) == (201, True)


@pytest.mark.parametrize("since", ["before", "after"])
def test_only_a_model_made_since_models_are_signed_owes_a_signature(
    trained: Flow, settings: Settings, since: str
) -> None:
    trained.work.settings = settings.model_copy(update={"signing_key": None})
    prefix = finish(trained)
    with trained.database.transaction() as session:
        key = SigningKey.of(SIGNING_KEY)
        session.execute(
            text("INSERT INTO signing_keys VALUES (:fingerprint, :pem, now() + CAST(:by AS interval))"),
            {
                "fingerprint": key.fingerprint,
                "pem": key.public_key,
                "by": "-1 hour" if since == "before" else "1 hour",
            },
        )
    with TestClient(create_app(settings)) as api:
        status, answer = to_production(api, prefix)
    if since == "after":
        assert status == 201
    else:
        assert (status, answer["gate"]) == (409, "signature")
        assert "is not signed" in answer["detail"]


def test_the_registry_reads_a_signature_as_the_standard_library_does(trained: Flow) -> None:
    prefix = finish(trained)
    bundle = trained.clouds.bucket.fetch(keys.artifact_key(prefix, keys.SIGNATURE), 1 << 20).content
    public = SigningKey.of(SIGNING_KEY).public_key
    signed = bundles.signed_files(bundle, public)
    assert signed[keys.MODEL_ZIP] == sha256(OUTPUT[keys.MODEL_ZIP])
    document = json.loads(bundle)
    payload = json.loads(base64.b64decode(document["dsseEnvelope"]["payload"]))
    payload["predicate"]["resources"][0]["digest"] = "0" * 64
    document["dsseEnvelope"]["payload"] = base64.b64encode(json.dumps(payload).encode()).decode()
    for damaged in (json.dumps(document).encode(), b"", b"[]", b"{}", bundle[:-9], b"\xff"):
        with pytest.raises(ValueError, match=r"it is not a bundle|has not made it"):
            bundles.signed_files(damaged, public)
