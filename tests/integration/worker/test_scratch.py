"""Scratch folders: a dead worker's are removed, a living one's are not."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from worker.process import scratch

# Makes its folder, says where it is, and lives until its standard input ends.
WORKER = """
import sys
from worker.process import scratch
folder = scratch.folder()
(folder / "model.zip").write_text("of a build")
print(folder, flush=True)
sys.stdin.read()
"""


def start() -> tuple[subprocess.Popen[str], Path]:
    process = subprocess.Popen(
        [sys.executable, "-c", WORKER], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_only_what_dead_workers_left_is_removed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    (dead, its_folder), (living, own_folder) = start(), start()
    assert scratch.remove_abandoned() == 0
    dead.kill()
    dead.communicate()
    assert (its_folder / "model.zip").exists()
    assert scratch.remove_abandoned() == 1
    assert not its_folder.exists()
    assert (own_folder / "model.zip").exists()
    living.communicate("")
    assert scratch.remove_abandoned() == 1
