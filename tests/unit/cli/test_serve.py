"""The serving commands become other programs."""

import importlib.util
import os
import subprocess
import sys
import tomllib
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli import serve
from cli.main import app

ROOT = Path(__file__).resolve().parents[3]


class Replaced(Exception):
    """Stands for the process that would have been replaced."""


@pytest.fixture
def became(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    commands: list[list[str]] = []

    def execv(_: str, command: list[str]) -> None:
        commands.append(command)
        raise Replaced

    monkeypatch.setattr(os, "execv", execv)
    return commands


def without(monkeypatch: pytest.MonkeyPatch, *absent: str) -> None:
    found = importlib.util.find_spec

    def find_spec(name: str, package: str | None = None) -> ModuleSpec | None:
        return None if name in absent else found(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)


@pytest.mark.parametrize(
    ("typed", "becomes"),
    [
        (["api", "--port", "1234"], ["-m", "app", "api", "--host", "127.0.0.1", "--port", "1234"]),
        (["worker"], ["-m", "worker"]),
        (["migrate"], ["-m", "app", "migrate", "--", "head"]),
        (["migrate", "--down", "0003"], ["-m", "app", "migrate", "--down", "--", "0003"]),
        (["up", "--state", "/tmp/x"], ["-m", "local", "--state", "/tmp/x", "--port", "8000"]),
    ],
)
def test_a_serving_command_becomes_the_program_that_serves(
    typed: list[str], becomes: list[str], became: list[list[str]]
) -> None:
    result = CliRunner().invoke(app, typed)
    assert isinstance(result.exception, Replaced)
    [command] = became
    assert command[command.index("-m") :] == becomes


@pytest.mark.parametrize(
    ("command", "absent", "extra"),
    [("api", "fastapi", "service"), ("worker", "paramiko", "service"), ("up", "moto", "local")],
)
def test_a_serving_command_names_the_extra_that_is_not_installed(
    command: str, absent: str, extra: str, monkeypatch: pytest.MonkeyPatch, became: list[list[str]]
) -> None:
    without(monkeypatch, absent)
    result = CliRunner().invoke(app, [command])
    assert result.exit_code == 2
    assert f"pip install -e '.[{extra}]'" in result.output
    assert became == []


def test_every_extra_declares_the_libraries_that_are_looked_for() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for extra, modules in serve.EXTRAS.items():
        declared = " ".join(extras[extra]).replace("-", "_")
        assert [module for module in modules if module not in declared] == []


def test_a_folder_of_the_caller_is_not_taken_for_the_service(tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "__init__.py").write_text("")
    (tmp_path / "app" / "__main__.py").write_text("print('not the registry')")
    # As the installed script starts: the current folder is not on Python's path.
    script = "import sys; sys.path.remove(''); from cli.main import app; app(['api'])"
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "DATABASE_URL" in done.stderr
    assert "not the registry" not in done.stdout
