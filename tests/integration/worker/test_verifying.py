"""`tariff-registry verify`: what it says of files that somebody has changed, added or removed."""

import importlib.util
import shutil
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from app.main import create_app
from app.settings import Settings
from app.storage import keys
from cli.client import RegistryClient
from cli.main import app
from cli.verification import checks
from cli.verification.checks import Fault, Finding
from local import signing
from tests.integration.objects import overwrite
from tests.integration.worker.conftest import SIGNING_KEY, Flow
from tests.integration.worker.test_signing import download, finish, verified
from worker.documents.key import SigningKey


@pytest.fixture
def folder(trained: Flow, tmp_path: Path) -> Path:
    """A model that was published, downloaded with its markers."""
    prefix = finish(trained)
    return download(trained, prefix, tmp_path / prefix)


def public_key(folder: Path, key: str = SIGNING_KEY) -> Path:
    file = folder.parent / "key.pub"
    file.write_text(SigningKey.of(key).public_key)
    return file


def one_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def deeper(folder: Path) -> None:
    folder.mkdir()
    (folder / "run.py").write_text("import os")


TAMPERING: dict[str, tuple[Callable[[Path], object], str, Fault]] = {
    "model.zip": (lambda folder: one_byte(folder / keys.MODEL_ZIP), keys.MODEL_ZIP, Fault.CHANGED),
    "provenance": (lambda folder: one_byte(folder / keys.PROVENANCE), keys.PROVENANCE, Fault.CHANGED),
    "signature": (lambda folder: one_byte(folder / keys.SIGNATURE), keys.SIGNATURE, Fault.SIGNATURE),
    "added": (lambda folder: (folder / "run.py").write_text("import os"), "run.py", Fault.ADDED),
    "deeper": (lambda folder: deeper(folder / "code"), "code/run.py", Fault.ADDED),
    "marker": (lambda folder: (folder / "failed").write_text("import os"), "failed", Fault.ADDED),
    "removed": (lambda folder: (folder / keys.BENCHMARK_XML).unlink(), keys.BENCHMARK_XML, Fault.MISSING),
    "unsigned": (lambda folder: (folder / keys.SIGNATURE).unlink(), keys.SIGNATURE, Fault.UNSIGNED),
}


def test_each_way_to_tamper_is_found_and_named(folder: Path) -> None:
    """One model for all of them, because it takes longest to make."""
    key = public_key(folder)
    assert checks.check(folder, key) == []
    kept = {path.name: path.read_bytes() for path in folder.iterdir()}
    for name, (tamper, file, fault) in TAMPERING.items():
        tamper(folder)
        found = [(finding.name, finding.fault) for finding in checks.check(folder, key)]
        assert (file, fault) in found, name
        result = CliRunner().invoke(app, ["verify", str(folder), "--key", str(key)])
        assert result.exit_code == 1, name
        assert f"✗ {file} {fault}" in result.output, name
        # The standard command agrees. Files beside the signed ones are let lie because of the markers.
        if fault is not Fault.ADDED:
            assert verified(folder).returncode != 0, name
        shutil.rmtree(folder)
        folder.mkdir()
        for original, content in kept.items():
            (folder / original).write_bytes(content)
    assert Finding(keys.SIGNATURE, Fault.SIGNATURE) in [
        Finding(finding.name, finding.fault)
        for finding in checks.check(folder, public_key(folder, signing.new_key()))
    ]


def test_a_model_is_verified_by_its_prefix(
    trained: Flow, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = finish(trained)
    with TestClient(create_app(settings), follow_redirects=False) as api:
        monkeypatch.setattr("cli.shell.RegistryClient", lambda *_, **__: over(api))
        whole = CliRunner().invoke(app, ["verify", prefix])
        assert whole.exit_code == 0, whole.output
        assert "all files are those that were signed" in whole.output
        assert "Give --key" in whole.output
        overwrite(trained.clouds.bucket, keys.artifact_key(prefix, keys.MODEL_ZIP))
        changed = CliRunner().invoke(app, ["verify", prefix])
    assert changed.exit_code == 1
    assert f"✗ {keys.MODEL_ZIP} {Fault.CHANGED}" in changed.output
    assert f"✗ {keys.MODEL_ZIP} {Fault.RECORD}" in changed.output
    assert f"✗ {keys.PROVENANCE} {Fault.STATEMENT} ({keys.MODEL_ZIP})" in changed.output


def over(api: TestClient) -> RegistryClient:
    """The command's client, over the API of this process."""

    def answer(request: httpx.Request) -> httpx.Response:
        found = api.request(request.method, request.url.raw_path.decode())
        return httpx.Response(found.status_code, headers=found.headers, content=found.content)

    return RegistryClient("http://registry", transport=httpx.MockTransport(answer))


def test_without_the_libraries_the_command_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / keys.SIGNATURE).write_text("{}")
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "OpenSSL" else found(name))
    result = CliRunner().invoke(app, ["verify", str(tmp_path), "--key", str(public_key(tmp_path / "x"))])
    assert result.exit_code == 2
    assert ".[verify]" in result.output
