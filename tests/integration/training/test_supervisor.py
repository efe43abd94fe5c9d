"""Runs that are killed, as Linux does when memory runs out, and cannot report it themselves."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from local.simcloud.processes import carrying

MARK = "OF_THIS_TEST"
REPOSITORY = Path(__file__).parents[3]
# Replaces training.cli, which takes seconds to load. It writes down its process id and runs `then`.
PROGRAM = """
import os, signal, sys, time
from pathlib import Path
from training.processes import end_with_parent
end_with_parent()
Path("pid.tmp").write_text(str(os.getpid()))
Path("pid.tmp").rename("pid")
{then}
time.sleep(60)
"""


@pytest.fixture
def worktree(tmp_path: Path) -> Path:
    """A worktree with the real supervisor and the modules that it needs."""
    for name in (
        "__init__",
        "__main__",
        "job/__init__",
        "job/supervisor",
        "job/result",
        "processes",
        "files",
        "errors",
        "storable",
    ):
        copy = tmp_path / "training" / f"{name}.py"
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text((REPOSITORY / "training" / f"{name}.py").read_text())
    return tmp_path


def start(worktree: Path, then: str = "", *arguments: str, keep: int | None = None) -> subprocess.Popen[str]:
    (worktree / "training" / "cli.py").write_text(PROGRAM.format(then=textwrap.dedent(then)))
    return subprocess.Popen(
        [sys.executable, "-m", "training", *(arguments or ("train", "--output", "out"))],
        cwd=worktree,
        env=os.environ | {MARK: str(worktree)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        pass_fds=() if keep is None else (keep,),
    )


@pytest.fixture
def running(worktree: Path) -> Iterator[subprocess.Popen[str]]:
    with start(worktree) as process:
        pid_of_work(worktree)
        yield process
        process.kill()


def pid_of_work(worktree: Path) -> int:
    deadline = time.monotonic() + 30
    while not (worktree / "pid").exists():
        assert time.monotonic() < deadline, "it never started"
        time.sleep(0.02)
    return int((worktree / "pid").read_text())


def result(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return content


def test_out_of_memory_is_reported_when_the_run_is_killed(
    worktree: Path, running: subprocess.Popen[str]
) -> None:
    os.kill(pid_of_work(worktree), signal.SIGKILL)
    _, said = running.communicate(timeout=30)
    assert running.returncode == 5
    left = result(worktree / "out")
    assert (left["command"], left["outcome"], left["code"]) == ("train", "failed", "out_of_memory")
    assert "larger instance" in left["message"]
    assert left["message"] in said


def test_a_run_that_another_signal_ends_is_a_crash_that_names_the_signal(worktree: Path) -> None:
    process = start(worktree, "os.abort()", "benchmark", "--output=out")
    process.communicate(timeout=30)
    assert process.returncode == 1
    left = result(worktree / "out")
    assert (left["command"], left["code"]) == ("benchmark", "crashed")
    assert "SIGABRT" in left["message"]


def test_the_result_of_a_job_is_written_beside_its_job_file(worktree: Path) -> None:
    folder = worktree / "job"
    folder.mkdir()
    process = start(worktree, "os.kill(os.getpid(), signal.SIGKILL)", "train", "--job", "job/job.json")
    process.communicate(timeout=30)
    assert result(folder)["code"] == "out_of_memory"


def test_the_result_of_an_earlier_attempt_is_removed_first(worktree: Path) -> None:
    (worktree / "out").mkdir()
    (worktree / "out" / "result.json").write_text('{"outcome": "succeeded"}')
    process = start(worktree, "sys.exit(Path('out/result.json').exists())")
    process.communicate(timeout=30)
    assert process.returncode == 0


@pytest.mark.parametrize("status", [0, 3, 77])
def test_the_exit_status_is_passed_on(worktree: Path, status: int) -> None:
    process = start(worktree, f"sys.exit({status})")
    process.communicate(timeout=30)
    assert process.returncode == status
    assert not (worktree / "out" / "result.json").exists()


def test_a_result_that_was_written_before_the_end_stays(worktree: Path) -> None:
    process = start(
        worktree,
        """
        os.mkdir("out")
        Path("out/result.json").write_text('{"outcome": "succeeded"}')
        os.kill(os.getpid(), signal.SIGKILL)
        """,
    )
    process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGKILL
    assert result(worktree / "out") == {"outcome": "succeeded"}


def test_commands_without_a_result_leave_none(worktree: Path) -> None:
    process = start(worktree, "os.kill(os.getpid(), signal.SIGKILL)", "classify", "--output", "out", "kettle")
    process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGKILL
    assert not (worktree / "out").exists()


def test_the_child_process_inherits_the_lock_of_its_supervisor(worktree: Path) -> None:
    with (worktree / "lock").open("w") as lock:
        number = lock.fileno()
        found = f"Path('/proc/self/fd/{number}').resolve() == Path('lock').resolve()"
        process = start(worktree, f"sys.exit(0 if {found} else 9)", keep=number)
    process.communicate(timeout=30)
    assert process.returncode == 0


def test_the_run_ends_on_sigterm(worktree: Path, running: subprocess.Popen[str]) -> None:
    running.terminate()
    running.communicate(timeout=30)
    assert running.returncode == 6
    left = result(worktree / "out")
    assert left["code"] == "interrupted"
    assert "SIGTERM" in left["message"]


def test_the_run_ends_when_its_supervisor_is_killed(worktree: Path, running: subprocess.Popen[str]) -> None:
    pid_of_work(worktree)
    running.kill()
    deadline = time.monotonic() + 30
    while carrying(f"{MARK}={worktree}"):
        assert time.monotonic() < deadline, "it went on"
        time.sleep(0.05)
