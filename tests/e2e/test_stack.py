"""`tariff-registry up` and `make demo` start everything on one machine, and leave nothing behind."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from local.stack import free_port
from tests.e2e.service import ROOT, small_benchmarks, small_raw_data, unpack

# The demo trains this checkout's own configuration, on little data.
TOUR_S = 240


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    """A folder for a stack. Its path is short, and the user that Postgres runs as can read it."""
    folder = Path(f"/tmp/stack-{os.getpid()}-{time.monotonic_ns()}")
    folder.mkdir()
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Small inputs, in the folders that the demo takes them from."""
    folder = tmp_path / "data"
    unpack(small_raw_data(), folder)
    unpack(small_benchmarks(), folder / "benchmarking_data")
    (folder / "raw_source_data").mkdir()
    (folder / "raw_source_data" / "README").write_text("nothing here")
    return folder


def processes_of(state: Path) -> list[str]:
    """The command lines of living processes that have to do with the folder."""
    found = []
    for process in Path("/proc").iterdir():
        if not process.name.isdigit() or int(process.name) == os.getpid():
            continue
        try:
            about = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
        except OSError:
            continue
        if str(state).encode() in about:
            found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return found


def start(arguments: list[str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as file:
        return subprocess.Popen(
            [sys.executable, "-m", *arguments], cwd=ROOT, stdout=file, stderr=file, start_new_session=True
        )


def await_text(log: Path, pattern: str, process: subprocess.Popen[bytes], timeout_s: float = 90) -> str:
    ends = time.monotonic() + timeout_s
    while time.monotonic() < ends:
        if found := re.search(pattern, log.read_text(errors="replace")):
            return found.group()
        assert process.poll() is None, log.read_text(errors="replace")
        time.sleep(0.1)
    pytest.fail(f"no {pattern!r} in:\n{log.read_text(errors='replace')}")


def await_no_process_of(state: Path) -> None:
    ends = time.monotonic() + 40
    while left := processes_of(state):
        assert time.monotonic() < ends, left
        time.sleep(0.1)


def test_up_leaves_no_process_however_it_ends_and_loses_no_build(state: Path, tmp_path: Path) -> None:
    log = tmp_path / "up.log"
    arguments = ["cli", "up", "--state", str(state), "--port", str(free_port())]

    def up() -> tuple[subprocess.Popen[bytes], str]:
        process = start(arguments, log)
        return process, await_text(log, r"http://127\.0\.0\.1:\d+(?=/docs)", process)

    process, url = up()
    assert httpx.get(f"{url}/readyz").json()["ready"]
    assert len(processes_of(state)) > 3
    second = subprocess.run([sys.executable, "-m", *arguments], cwd=ROOT, capture_output=True, text=True)
    assert second.returncode == 3
    assert "Another run uses" in second.stderr.replace("\n", " ")

    config = 'name = "x"\nversion = "9.9.9"\ndigits = 6\ncn_data_file = "absent.csv"\n'
    body = {"sha": "e" * 40, "branch": "main", "search_config": config}
    build_id = httpx.post(f"{url}/builds", json=body).json()["build"]["id"]
    process.kill()
    process.wait()
    await_no_process_of(state)

    for stop in (signal.SIGINT, signal.SIGTERM):
        process, url = up()
        assert httpx.get(f"{url}/builds/{build_id}").json()["prefix"] == "9.9.9-eeeeeee"
        process.send_signal(stop)
        assert process.wait(30) == 0
        assert processes_of(state) == []


def test_the_demo_shows_the_whole_job_and_a_second_run_starts_where_it_left_off(
    state: Path, source: Path
) -> None:
    command = [
        sys.executable,
        "-m",
        "local.demo.tour",
        "--exit",
        "--state",
        str(state),
        "--source",
        str(source),
    ]

    def run() -> str:
        done = subprocess.run(
            command,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=TOUR_S,
            env={**os.environ, "COLUMNS": "120"},
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    first = run()
    prefix = re.search(r"Queued (\S+),", first)
    assert prefix
    for step in ("needs_model", "train", "terminate_instance", "publish"):
        assert f"✓ {step}" in first
    for key in (
        f"{prefix[1]}/model.zip",
        f"{prefix[1]}/passed",
        f"{prefix[1]}/provenance.json",
        "raw_source_data.zip",
        f"{prefix[1]}/development, 0 bytes",
    ):
        assert key in first
    assert "Its sha256 is the promised one" in first
    assert "mens cotton trousers" in first
    assert processes_of(state) == []

    again = run()
    assert "There is a build already, succeeded" in again
    assert prefix[1] in again
    assert "Its sha256 is the promised one" in again
    assert processes_of(state) == []
