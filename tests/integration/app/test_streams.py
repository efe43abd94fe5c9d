"""Streams of events in a real server: readers that do not read, a database that goes away, and the end."""

import asyncio
import signal
import socket
import threading
import time
from collections.abc import Callable
from uuid import UUID

import httpx
import psycopg
import pytest
from sqlalchemy import make_url

import app.server
from app.registry.builds import ending, log, steps
from app.registry.builds.lease import Lease
from app.settings import Settings
from app.words import BuildState, StepName
from tests.integration.app.registry import Registry
from tests.integration.app.serving import api_process, free_port, served

LONG = "".join(f"{number} {'x' * 1000}\n" for number in range(12_000))
WITHIN_S = 60


def eventually(true: Callable[[], bool]) -> None:
    ends = time.monotonic() + WITHIN_S
    while not true():
        assert time.monotonic() < ends, "this did not happen"
        time.sleep(0.05)


def append(registry: Registry, lease: Lease, text: str) -> None:
    with registry.database.transaction() as session:
        log.append(session, lease, text)


def end(registry: Registry, lease: Lease) -> None:
    with registry.database.transaction() as session:
        steps.fail(session, lease, steps.Failure(StepName.TRAIN, "killed", "It was killed."))
        ending.end(session, lease, BuildState.FAILED)


class Reader:
    """Reads one stream in a thread, as far as it goes."""

    def __init__(self, port: int, build_id: UUID, last_id: str = "0:0") -> None:
        self.text = ""
        self.ended_well = False
        self._url = f"http://127.0.0.1:{port}/builds/{build_id}/events"
        self._last_id = last_id
        self.thread = threading.Thread(target=self._read)
        self.thread.start()

    def _read(self) -> None:
        headers = {"Last-Event-ID": self._last_id}
        with httpx.stream("GET", self._url, headers=headers, timeout=WITHIN_S) as answer:
            for text in answer.iter_text():
                self.text += text
        self.ended_well = True

    def has(self, text: str) -> bool:
        return text in self.text

    @property
    def last_id(self) -> str:
        whole = self.text[: self.text.rindex("\n\n")]
        return whole[whole.rindex("\nid: ") + 5 :].partition("\n")[0]


def never_read(port: int, build_id: UUID) -> socket.socket:
    """A reader who asks for the stream and then does nothing."""
    idle = socket.socket()
    idle.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    idle.connect(("127.0.0.1", port))
    idle.sendall(f"GET /builds/{build_id}/events HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    return idle


def test_a_reader_that_never_reads_is_cut_off_and_the_others_go_on(
    registry: Registry, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app.server, "WRITE_CHECK_S", 1.0)
    build_id = registry.queue()
    lease = registry.take(build_id)
    append(registry, lease, LONG)
    port = free_port()
    with served(settings, port) as following, never_read(port, build_id):
        eventually(lambda: following.readers == 1)
        reader = Reader(port, build_id)
        eventually(lambda: reader.has("11999 xxx"))
        eventually(lambda: following.readers == 1)
        end(registry, lease)
        reader.thread.join(WITHIN_S)
        assert reader.ended_well
        assert reader.has('"state": "failed"')
        eventually(lambda: following.readers == 0)


def test_a_reader_that_goes_away_is_forgotten(registry: Registry, settings: Settings) -> None:
    build_id = registry.queue()
    port = free_port()
    with served(settings, port) as following:
        with never_read(port, build_id):
            eventually(lambda: following.readers == 1)
        eventually(lambda: following.readers == 0)


def test_a_process_that_is_told_to_stop_ends_its_streams_and_another_one_resumes_them(
    registry: Registry,
) -> None:
    build_id = registry.queue()
    lease = registry.take(build_id)
    append(registry, lease, LONG)
    url, (first, second) = registry.database.conninfo, (free_port(), free_port())
    with api_process(url, first) as process, never_read(first, build_id):
        readers = [Reader(first, build_id) for _ in range(3)]
        for reader in readers:
            eventually(lambda reader=reader: reader.has("11999 xxx"))  # type: ignore[misc]
        process.send_signal(signal.SIGTERM)
        for reader in readers:
            reader.thread.join(WITHIN_S)
        assert all(reader.ended_well for reader in readers)
        # The process does not wait for the reader who never reads, either.
        process.wait(WITHIN_S)
        assert process.stderr is not None
        assert b"Traceback" not in process.stderr.read()
    append(registry, lease, "the last line\n")
    end(registry, lease)
    with api_process(url, second):
        resumed = Reader(second, build_id, readers[0].last_id)
        resumed.thread.join(WITHIN_S)
    assert resumed.has("the last line")
    assert not resumed.has("xxx")
    assert resumed.has('"state": "failed"')


def test_hundreds_who_ask_at_once_are_all_answered(registry: Registry, settings: Settings) -> None:
    build_id = registry.queue()
    port = free_port()

    async def ask() -> list[int]:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(limits=limits, timeout=WITHIN_S) as client:
            url = f"http://127.0.0.1:{port}/builds/{build_id}"
            answers = await asyncio.gather(*(client.get(url) for _ in range(200)))
            return [answer.status_code for answer in answers]

    with served(settings, port):
        assert set(asyncio.run(ask())) == {200}


def test_lines_arrive_although_the_connection_that_listens_is_lost(
    registry: Registry, settings: Settings
) -> None:
    build_id = registry.queue()
    lease = registry.take(build_id)
    port = free_port()
    with served(settings, port):
        reader = Reader(port, build_id)
        for number in range(4):
            registry.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND application_name LIKE '%% events'"
            )
            append(registry, lease, f"line {number}\n")
            eventually(lambda number=number: reader.has(f"line {number}"))  # type: ignore[misc]
        end(registry, lease)
        reader.thread.join(WITHIN_S)
    assert reader.text.count("line 2") == 1


def test_a_stream_survives_an_outage_of_the_database(
    registry: Registry, settings: Settings, postgres: str, caplog: pytest.LogCaptureFixture
) -> None:
    build_id = registry.queue()
    lease = registry.take(build_id)
    port = free_port()
    name = make_url(registry.database.conninfo).database
    with served(settings, port), psycopg.connect(postgres, autocommit=True) as administrator:
        readers = [Reader(port, build_id) for _ in range(3)]
        append(registry, lease, "before\n")
        for reader in readers:
            eventually(lambda reader=reader: reader.has("before"))  # type: ignore[misc]
        administrator.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false".encode())
        administrator.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,)
        )
        eventually(lambda: "readers of builds wait for the database" in caplog.text)
        # Who comes now is told to come back.
        assert httpx.get(f"http://127.0.0.1:{port}/builds/{build_id}/events").status_code == 503
        administrator.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true".encode())
        append(registry, lease, "after\n")
        end(registry, lease)
        for reader in readers:
            reader.thread.join(WITHIN_S)
    assert [(reader.text.count("before"), reader.text.count("after")) for reader in readers] == [(1, 1)] * 3
    assert caplog.text.count("readers of builds wait for the database") == 1
