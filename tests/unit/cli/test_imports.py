"""A deploy job installs the client alone: its commands must work without the service's libraries."""

import json
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from app.words import Scope, Stage
from cli import words

ROOT = Path(__file__).resolve().parents[3]

# Runs `python -m cli` as if the modules of sys.argv[1] were not installed.
WITHOUT = """
import json, runpy, sys

class Finder:
    finders = list(sys.meta_path)
    absent = frozenset(json.loads(sys.argv[1]))

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.absent:
            return None
        specs = (finder.find_spec(name, path, target) for finder in self.finders)
        return next((spec for spec in specs if spec is not None), None)

sys.meta_path[:] = [Finder()]
sys.argv = ["tariff-registry", *sys.argv[2:]]
runpy.run_module("cli", run_name="__main__", alter_sys=True)
"""


def client_distributions() -> set[str]:
    """The distributions that the client declares, and whatever these need."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    waiting = [Requirement(each) for each in project["dependencies"]]
    found: set[str] = set()
    while waiting:
        name = canonicalize_name(waiting.pop().name)
        if name in found:
            continue
        found.add(name)
        needed = [Requirement(each) for each in requires(name) or []]
        waiting += [each for each in needed if each.marker is None or each.marker.evaluate({"extra": ""})]
    return found


def modules_that_a_client_lacks() -> list[str]:
    clients = client_distributions()
    foreign = [
        module
        for module, owners in packages_distributions().items()
        if not clients & {canonicalize_name(owner) for owner in owners}
    ]
    return sorted({*foreign, "app", "worker", "training", "local"} - {"cli"})


@pytest.mark.parametrize(
    ("command", "status", "says"),
    [
        ("--help", 0, "tariff model registry"),
        ("api --help", 0, "Serve the API"),
        ("latest production", 3, "does not answer"),
        ("build", 3, "does not answer"),
        ("promote 0.0.2-aff1242 staging", 3, "does not answer"),
        ("api", 2, "pip install -e '.[service]'"),
    ],
)
def test_a_command_runs_with_only_the_clients_libraries(command: str, status: int, says: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, json.dumps(modules_that_a_client_lacks()), *command.split()],
        cwd=ROOT,
        # No registry listens there.
        env={"PATH": "/usr/bin:/bin", "REGISTRY_URL": "http://127.0.0.1:9", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == status, done.stderr
    assert says in done.stdout + done.stderr


def test_the_command_line_has_the_words_of_the_api() -> None:
    assert [stage.value for stage in words.Stage] == [stage.value for stage in Stage]
    assert [scope.value for scope in words.Scope] == [scope.value for scope in Scope]
