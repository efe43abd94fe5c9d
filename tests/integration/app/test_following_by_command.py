"""`tariff-registry follow` and `build`, as processes without a terminal, over connections that break."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from uuid import UUID

import pytest

from app.registry.builds import ending, log, steps
from app.settings import Settings
from app.words import BuildState, StepName
from tests.integration.app.proxy import proxied
from tests.integration.app.registry import Registry
from tests.integration.app.serving import ROOT, free_port, served

LINES = [f"{number}: größer 🚢" for number in range(3000)]


@pytest.fixture
def port(settings: Settings) -> Iterator[int]:
    number = free_port()
    with served(settings, number):
        yield number


def start(*arguments: str, port: int) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "cli", *arguments],
        cwd=ROOT,
        env={**os.environ, "REGISTRY_URL": f"http://127.0.0.1:{port}", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )


def carry(registry: Registry, build_id: UUID) -> None:
    """Do a step, write the log in pieces that end anywhere, and fail."""
    lease = registry.take(build_id)
    with registry.database.transaction() as session:
        steps.start(session, lease, StepName.TRAIN)
    text = "".join(f"{line}\n" for line in LINES)
    for at in range(0, len(text), 997):
        with registry.database.transaction() as session:
            log.append(session, lease, text[at : at + 997])
    with registry.database.transaction() as session:
        steps.fail(session, lease, steps.Failure(StepName.TRAIN, "killed", "It was killed."))
    with registry.database.transaction() as session:
        ending.end(session, lease, BuildState.FAILED)


def logged(output: str) -> list[str]:
    return [line[4:] for line in output.splitlines() if line.startswith("    ")]


@pytest.mark.parametrize("which", ["id", "prefix"])
def test_a_build_is_printed_once_though_its_connections_are_cut(
    which: str, port: int, registry: Registry
) -> None:
    build_id = registry.queue()
    prefix = registry.value("SELECT prefix FROM builds")
    work = threading.Thread(target=carry, args=(registry, build_id))
    with proxied(port, cut_after=20_000, cuts=3) as proxy:
        command = start("follow", str(build_id) if which == "id" else prefix, port=proxy.port)
        work.start()
        output, errors = command.communicate(timeout=120)
        assert proxy.cuts == 0
    work.join()
    assert logged(output) == LINES, errors
    assert output.count("✗ train") == 1
    assert output.count("It was killed.") == 1
    assert command.returncode == 1


def test_a_build_is_printed_once_where_no_stream_gets_through(
    port: int, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_id = registry.queue()
    work = threading.Thread(target=carry, args=(registry, build_id))
    work.start()
    with proxied(port, refuses=b"/events") as proxy:
        command = start("follow", str(build_id), port=proxy.port)
        output, errors = command.communicate(timeout=120)
    work.join()
    assert logged(output) == LINES, errors
    assert output.count("✗ train") == 1
    assert command.returncode == 1
