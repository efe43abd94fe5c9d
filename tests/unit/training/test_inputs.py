"""What a run reports of software, transformer, machine and reference data."""

import json
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from training.files import sha256_of_file
from training.inputs.environment import describe, python_environment
from training.inputs.hardware import cpu_model, driver_version, image_facts
from training.inputs.reference import reference_data
from training.lookup import Lookup


class Installed:
    """A distribution as `importlib.metadata` gives it. Without a name, its metadata are gone."""

    def __init__(self, name: str | None, version: str | None) -> None:
        self.version = version
        self._name = name

    @property
    def metadata(self) -> dict[str, str]:
        if self._name is None:
            raise TypeError("initial_value must be str or None")
        return {"Name": self._name}


def test_an_environment_is_described_by_the_packages_that_python_imports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [
        Installed("Zope.Interface", "6.0"),
        Installed("torch", "2.1"),
        # What is further back on the path is not imported.
        Installed("Torch", "1.0"),
        Installed(None, None),
        Installed("broken", None),
    ]
    monkeypatch.setattr(metadata, "distributions", lambda: found)
    described = describe(tmp_path, tmp_path)
    assert described["packages"] == [
        {"name": "torch", "version": "2.1"},
        {"name": "zope-interface", "version": "6.0"},
    ]
    assert described["lock"] is None


def test_the_lock_of_the_environment_comes_before_that_of_the_checkout(tmp_path: Path) -> None:
    environment, checkout = tmp_path / "environment", tmp_path / "checkout"
    for folder in (environment, checkout):
        folder.mkdir()
        (folder / "constraints.txt").write_text(folder.name)
    locks: list[Any] = [describe(environment, checkout)["lock"], describe(tmp_path, checkout)["lock"]]
    assert [(lock["of"], lock["sha256"]) for lock in locks] == [
        ("environment", sha256_of_file(environment / "constraints.txt")),
        ("checkout", sha256_of_file(checkout / "constraints.txt")),
    ]


def test_the_same_environment_gives_the_same_bytes(tmp_path: Path) -> None:
    first, second = python_environment(tmp_path / "a"), python_environment(tmp_path / "b")
    assert first == second
    content = json.loads((tmp_path / "a" / (first.content or "")).read_text())
    assert first.details["packages"] == len(content["packages"]) > 10


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19", "535.104.05"),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  550.54.15  Release Build", "550.54.15"),
        ("", None),
    ],
)
def test_the_driver_is_told_by_its_kernel_module(text: str, version: str | None) -> None:
    assert driver_version(text) == version


def test_the_cpu_is_told_by_its_model_name() -> None:
    assert cpu_model("processor\t: 0\nmodel name\t: AMD  EPYC 7R32\nmodel name\t: x\n") == "AMD EPYC 7R32"
    assert cpu_model("processor\t: 0\n") is None


def test_files_of_the_checkout_are_reported_and_those_of_the_raw_data_are_not(tmp_path: Path) -> None:
    unpacked, checkout = tmp_path / "checkout" / "output" / "raw", tmp_path / "checkout"
    for folder in (unpacked, checkout / "reference_data"):
        folder.mkdir(parents=True)
    (unpacked / "cn.csv").write_text("raw")
    (checkout / "reference_data" / "vague.csv").write_text("vague")
    lookup = Lookup(unpacked, checkout)
    lookup.find_file("cn.csv", what="source cn")
    lookup.find_file("reference_data/vague.csv", what="source vague_terms")
    lookup.find_file("reference_data/vague.csv", what="vague_terms_regex_file")
    [one] = reference_data(lookup, {"source cn": 5, "source vague_terms": 3})
    assert (one.kind, one.name, one.size_bytes) == ("reference_data", "reference_data/vague.csv", 5)
    assert one.details == {"used_for": "source vague_terms, vague_terms_regex_file", "rows": 3}


def test_the_description_of_an_image_is_reported_and_a_broken_one_does_no_harm() -> None:
    described = {
        "schema": 1,
        "image_version": "1.0.0",
        "commit": "c0ffee",
        "driver": "580",
        "base_image": None,
    }
    assert image_facts(json.dumps(described)) == {"image_version": "1.0.0", "image_commit": "c0ffee"}
    for broken in ("", "{", "[]", "null", '{"image_version": ["x"]}'):
        assert image_facts(broken) == {}


def test_the_lock_with_digests_comes_first(tmp_path: Path) -> None:
    for name in ("environment.lock", "constraints.txt"):
        (tmp_path / name).write_text(name)
    lock: Any = describe(tmp_path, tmp_path)["lock"]
    assert lock["name"] == "environment.lock"
    assert lock["sha256"] == sha256_of_file(tmp_path / "environment.lock")
