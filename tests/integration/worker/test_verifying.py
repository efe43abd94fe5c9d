"""`tariff-registry verify`: what it says of files that somebody has changed, added or removed."""

import importlib.util
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from fastapi.testclient import TestClient
from typer.testing import CliRunner, Result

from app.main import create_app
from app.settings import Settings
from app.storage import keys
from app.storage.bucket import Bucket
from cli.client import RegistryClient
from cli.main import app
from cli.verification import checks
from cli.verification.checks import Fault, Finding
from local import signing
from tests.integration.objects import overwrite, read
from tests.integration.worker.conftest import SIGNING_KEY, Flow, sha256
from tests.integration.worker.test_signing import download, finish, verified
from worker import mirror
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


class Tampering(NamedTuple):
    """What somebody does to the files, and what is said of it: of which file, and by a reconciliation."""

    do: Callable[[Path], object]
    file: str
    fault: Fault
    difference: str


TAMPERING = {
    "model.zip": Tampering(
        lambda folder: one_byte(folder / keys.MODEL_ZIP), keys.MODEL_ZIP, Fault.CHANGED, "artifact_differs"
    ),
    "provenance": Tampering(
        lambda folder: one_byte(folder / keys.PROVENANCE), keys.PROVENANCE, Fault.CHANGED, "artifact_differs"
    ),
    "signature": Tampering(
        lambda folder: one_byte(folder / keys.SIGNATURE), keys.SIGNATURE, Fault.SIGNATURE, "artifact_differs"
    ),
    "added": Tampering(
        lambda folder: (folder / "run.py").write_text("import os"), "run.py", Fault.ADDED, "stray_object"
    ),
    "deeper": Tampering(lambda folder: deeper(folder / "code"), "code/run.py", Fault.ADDED, "stray_object"),
    "marker": Tampering(
        lambda folder: (folder / "failed").write_text("import os"), "failed", Fault.ADDED, "marker_unknown"
    ),
    "removed": Tampering(
        lambda folder: (folder / keys.BENCHMARK_XML).unlink(),
        keys.BENCHMARK_XML,
        Fault.MISSING,
        "artifact_missing",
    ),
    "unsigned": Tampering(
        lambda folder: (folder / keys.SIGNATURE).unlink(),
        keys.SIGNATURE,
        Fault.UNSIGNED,
        "artifact_missing",
    ),
}


def files_in(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def put_into(bucket: Bucket, prefix: str, files: dict[str, bytes]) -> None:
    """Make the model's objects these files, as somebody does who has the right to write."""
    for key, _ in list(bucket.list(f"{prefix}/")):
        if key.removeprefix(f"{prefix}/") not in files:
            bucket.delete(key)
    for name, content in files.items():
        if read(bucket, f"{prefix}/{name}") != content:
            overwrite(bucket, f"{prefix}/{name}", content)


def test_each_way_to_tamper_is_found_and_named(
    trained: Flow,
    folder: Path,
    settings: Settings,
    reconcile: Callable[..., dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One model for all of them, because it takes longest to make."""
    key, prefix, bucket = public_key(folder), trained.view().prefix, trained.clouds.bucket
    mirror.drain(trained.database, bucket)
    assert checks.check(folder, key) == []
    assert reconcile()["findings"] == []
    kept = files_in(folder)
    with TestClient(create_app(settings), follow_redirects=False) as api:
        monkeypatch.setattr("cli.shell.RegistryClient", lambda *_, **__: over(api))
        for name, (tamper, file, fault, difference) in TAMPERING.items():
            tamper(folder)
            said = CliRunner().invoke(app, ["verify", str(folder), "--key", str(key)])
            assert (said.exit_code, f"✗ {file} {fault}" in said.output) == (1, True), name
            # The standard command agrees. It knows no markers, so it is called without them.
            for marker in keys.MARKERS - ({file} if name == "marker" else set()):
                (folder / marker).unlink(missing_ok=True)
            assert verified(folder, ignoring_unsigned=False).returncode != 0, name
            # The same, done to the bucket.
            put_into(bucket, prefix, files_in(folder) | {"passed": b""})
            found = {one["key"]: one["difference"] for one in reconcile()["findings"]}
            assert found == {f"{prefix}/{file}": difference}, name
            # What is not one of the model's files is not downloaded with it.
            if fault is not Fault.ADDED:
                said = CliRunner().invoke(app, ["verify", prefix, "--key", str(key)])
                assert said.exit_code == 1, name
                assert f"✗ {file} {fault}" in said.output, name
            shutil.rmtree(folder)
            for original, content in kept.items():
                folder.mkdir(exist_ok=True)
                (folder / original).write_bytes(content)
            put_into(bucket, prefix, kept)
    assert reconcile()["findings"] == []
    (folder / "passed").unlink()
    assert verified(folder, ignoring_unsigned=False).returncode == 0
    assert Finding(keys.SIGNATURE, Fault.SIGNATURE) in [
        Finding(finding.name, finding.fault)
        for finding in checks.check(folder, public_key(folder, signing.new_key()))
    ]


def test_an_input_that_somebody_changed_or_removed_is_found_and_named(
    trained: Flow,
    folder: Path,
    settings: Settings,
    reconcile: Callable[..., dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    key, prefix, bucket = str(public_key(folder)), trained.view().prefix, trained.clouds.bucket
    mirror.drain(trained.database, bucket)
    content = read(bucket, keys.RAW_SOURCE_DATA) or b""
    raw = keys.input_key(sha256(content))
    changed = bytes([content[0] ^ 1, *content[1:]])
    overwrite(bucket, "inputs/sha256/notes.txt", b"?")
    result = reconcile()
    assert [(one["key"], one["difference"]) for one in result["findings"]] == [
        ("inputs/sha256/notes.txt", "stray_object")
    ]
    assert result["inputs"] >= 2
    bucket.delete("inputs/sha256/notes.txt")
    with TestClient(create_app(settings), follow_redirects=False) as api:
        monkeypatch.setattr("cli.shell.RegistryClient", lambda *_, **__: over(api))

        def verify(*arguments: str) -> Result:
            return CliRunner().invoke(app, ["verify", *arguments, "--key", key])

        for tampered, difference in ((changed, "input_differs"), (None, "input_missing")):
            if tampered is None:
                bucket.delete(raw)
            else:
                overwrite(bucket, raw, tampered)
            [finding] = reconcile()["findings"]
            assert (finding["key"], finding["difference"]) == (raw, difference)
            said = verify(prefix)
            # The model's own files are right.
            assert said.exit_code == 0
            assert "! raw_source_data.zip, an input, is not in the bucket as it was recorded" in said.output
        # Who has the file itself needs no registry.
        downloads = tmp_path / "downloads"
        downloads.mkdir()
        (downloads / "raw_source_data.zip").write_bytes(changed)
        said = verify(str(folder), "--input", str(downloads))
        assert said.exit_code == 1
        assert f"✗ raw_source_data.zip {Fault.INPUT}" in said.output
        assert f"and not {sha256(content)}" in said.output
        (downloads / "raw_source_data.zip").write_bytes(content)
        assert verify(str(folder), "--input", str(downloads)).exit_code == 0
        overwrite(bucket, raw, content)
        assert reconcile()["findings"] == []
        assert "an input" not in verify(prefix).output


def test_a_model_is_verified_by_its_prefix(
    trained: Flow, settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    prefix = finish(trained)
    # Where somebody has downloaded it, the prefix still means the registry's files.
    (tmp_path / prefix).mkdir()
    monkeypatch.chdir(tmp_path)
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
