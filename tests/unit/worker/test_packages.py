"""Two packages with tuned transformers, compared without torch."""

import json
import zipfile
from pathlib import Path

import pytest

from worker.steps.reproduction.packages import Package, unpack


def package(folder: Path, transformer: bytes | None) -> Package:
    folder.mkdir()
    with zipfile.ZipFile(folder / "model.zip", "w") as archive:
        archive.writestr("target/model.pt", b"weights")
        archive.writestr("target/subheadings.json", json.dumps(["010121"]))
        if transformer is not None:
            archive.writestr("transformer/tuned/model.safetensors", transformer)
    return unpack(folder / "model.zip", folder / "model.pt", lambda: None)


@pytest.mark.parametrize(("other", "alike"), [(b"one", True), (b"two", False), (None, False)])
def test_a_package_tells_whether_its_transformers_are_those_of_another(
    tmp_path: Path, other: bytes | None, *, alike: bool
) -> None:
    mine, theirs = package(tmp_path / "mine", b"one"), package(tmp_path / "theirs", other)
    assert mine.files["target/model.pt"] == theirs.files["target/model.pt"]
    assert (mine.transformers == theirs.transformers) is alike
