"""The promise about the age of `latest`: no process answers with what stopped being true 100 ms before."""

import hashlib
import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import make_url, text

from app.api.stages.kept import KeptAnswers
from app.main import create_app
from app.settings import Settings, Token
from app.storage.bucket import Bucket
from app.words import Access, Stage
from local.stack import free_port
from tests.integration.app.registry import Registry, listening

ROOT = Path(__file__).resolve().parents[3]
DEVELOPMENT, STAGING, PRODUCTION = Stage
PROMISED_S = 0.1


class Wire:
    """Forwards connections to Postgres, until it is cut: then nothing gets through, and nothing is closed."""

    def __init__(self, to: tuple[str, int] | str) -> None:
        self._to = to
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.whole = threading.Event()
        self.whole.set()
        self._ended = threading.Event()
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def _start(self, work: object, *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)  # type: ignore[arg-type]
        thread.start()
        self._threads.append(thread)

    def _accept(self) -> None:
        while not self._ended.is_set():
            if select.select([self._listener], [], [], 0.1)[0]:
                near, _ = self._listener.accept()
                self._start(self._forward, near)

    def _forward(self, near: socket.socket) -> None:
        if isinstance(self._to, str):
            far = socket.socket(socket.AF_UNIX)
            far.connect(self._to)
        else:
            far = socket.create_connection(self._to)
        other = {near: far, far: near}
        # Whoever ends with answers that nobody has read resets the connection, which is an end too.
        with closing(near), closing(far), suppress(ConnectionError):
            while not self._ended.is_set():
                ready, _, _ = select.select([near, far], [], [], 0.05)
                while not self.whole.wait(0.05):
                    if self._ended.is_set():
                        return
                for one in ready:
                    if not (data := one.recv(65536)):
                        return
                    other[one].sendall(data)

    def close(self) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()
        self._listener.close()


def place_of(url: str) -> tuple[str, int] | str:
    """Where the Postgres of this URL listens: an address, or the path of its socket."""
    parsed = make_url(url)
    port = parsed.port or 5432
    folder = parsed.query.get("host")
    if isinstance(folder, str):
        return f"{folder}/.s.PGSQL.{port}"
    return parsed.host or "127.0.0.1", port


@dataclass
class Reader:
    """Asks one process for `latest`, over and over, and remembers when it asked and what it was told."""

    url: str
    seen: list[tuple[float, float, str]] = field(default_factory=list)
    failed: list[float] = field(default_factory=list)
    stopped: threading.Event = field(default_factory=threading.Event)

    def read(self) -> None:
        with httpx.Client(base_url=self.url, timeout=1) as client:
            while not self.stopped.is_set():
                asked = time.monotonic()
                try:
                    answer = client.get("/models/development/latest")
                except httpx.HTTPError:
                    self.failed.append(asked)
                    continue
                if answer.status_code == 200:
                    self.seen.append((asked, time.monotonic(), answer.json()["prefix"]))
                else:
                    self.failed.append(asked)


@contextmanager
def served(settings: Settings, database_url: str) -> Iterator[str]:
    """A process of the API."""
    port = free_port()
    environment = os.environ | {
        "DATABASE_URL": database_url,
        "AWS_ENDPOINT_URL": settings.aws_endpoint_url or "",
        "AWS_REGION": settings.region,
        "REGISTRY_ACCESS": "open",
    }
    command = [sys.executable, "-m", "app", "api", "--port", str(port)]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL) as process:
        try:
            url = f"http://127.0.0.1:{port}"
            for _ in range(600):
                try:
                    if httpx.get(f"{url}/healthz").status_code == 200:
                        break
                except httpx.HTTPError:
                    assert process.poll() is None, "the API ended"
                    time.sleep(0.1)
            yield url
        finally:
            process.kill()


def test_no_process_gives_an_answer_that_is_older_than_promised(
    registry: Registry, settings: Settings
) -> None:
    """One of three processes is cut off from Postgres while the stage goes on changing."""
    models = [registry.model(f"1.{n}.0") for n in range(2)]
    url = settings.database_url.get_secret_value()
    # When each model was replaced, as seen after the commit: nobody may be told of it much later.
    periods: list[tuple[str, float, float]] = []

    def promote(prefix: str) -> None:
        before = time.monotonic()
        registry.promote(prefix, DEVELOPMENT)
        after = time.monotonic()
        if periods:
            last, began, _ = periods[-1]
            periods[-1] = (last, began, after)
        periods.append((prefix, before, float("inf")))

    with ExitStack() as opened:
        wire = opened.enter_context(closing(Wire(place_of(url))))
        parsed = make_url(url)
        through = parsed.set(host="127.0.0.1", port=wire.port, query={}).render_as_string(hide_password=False)
        processes = [opened.enter_context(served(settings, each)) for each in (url, url, through)]
        promote(models[0])
        readers = [Reader(process) for process in processes]
        threads = [threading.Thread(target=reader.read) for reader in readers]
        for thread in threads:
            thread.start()
        for turn in range(1, 13):
            if turn == 5:
                wire.whole.clear()
                cut_at = time.monotonic()
            if turn == 9:
                healed_at = time.monotonic()
                wire.whole.set()
            promote(models[turn % 2])
            time.sleep(0.25)
        # The process that was cut off finds back.
        until = time.monotonic() + 60
        while not any(asked > healed_at + 1 for asked, _, _ in readers[2].seen) and time.monotonic() < until:
            time.sleep(0.1)
        for reader in readers:
            reader.stopped.set()
        for thread in threads:
            thread.join()

    for reader in readers:
        assert len(reader.seen) > 10
        for asked, answered, prefix in reader.seen:
            assert any(
                prefix == ran and began <= answered and asked - PROMISED_S <= ended
                for ran, began, ended in periods
            ), f"{prefix} was answered to a question of {asked}: {periods}"
    # The others never noticed anything.
    assert readers[0].failed == readers[1].failed == []
    in_the_dark = [at for at, _, _ in readers[2].seen if cut_at + PROMISED_S < at < healed_at - 1]
    assert in_the_dark == []
    assert any(asked > healed_at + 1 for asked, _, _ in readers[2].seen)


# One process


@pytest.fixture
def keeping(settings: Settings, registry: Registry) -> Iterator[TestClient]:
    """The API with answers in memory that are good for so long that no busy machine uses it up."""
    registry.bucket = Bucket.of(settings)
    changed = settings.model_copy(update={"latest_max_age": timedelta(seconds=10)})
    with TestClient(create_app(changed), raise_server_exceptions=False) as client:
        yield client


def statements_of(client: TestClient, path: str, **more: dict[str, str]) -> int:
    assert isinstance(client.app, FastAPI)
    database = client.app.state.database
    with listening(database, database._reader) as read:
        assert client.get(path, **more).status_code in (200, 304)  # type: ignore[arg-type]
    return len(read.seen)


def test_an_answer_comes_from_memory_until_the_next_change(keeping: TestClient, registry: Registry) -> None:
    first, second = registry.model("1.0.0", stages=(DEVELOPMENT,)), registry.model("1.1.0")
    path = "/models/development/latest"
    assert [statements_of(keeping, path) for _ in range(3)] == [1, 0, 0]
    whole = keeping.get(path)
    assert whole.json()["prefix"] == first
    tag = {"If-None-Match": whole.headers["ETag"]}
    assert statements_of(keeping, path, headers=tag) == 0
    assert keeping.get(path, headers=tag).status_code == 304
    # Whoever promotes sees it at once.
    assert keeping.post(f"/models/{second}/promotions", json={"stage": "development"}).status_code == 201
    assert keeping.get(path).json()["prefix"] == second
    body = {"expected": second, "note": "it is bad"}
    assert keeping.post("/stages/development/rollback", json=body).status_code == 201
    assert keeping.get(path).json()["prefix"] == first


def test_versions_are_kept_apart_and_only_some_of_them(keeping: TestClient, registry: Registry) -> None:
    prefixes = {f"1.{n}.0": registry.model(f"1.{n}.0", stages=(DEVELOPMENT,)) for n in range(18)}
    for version, prefix in prefixes.items():
        answer = keeping.get("/models/development/latest", params={"version": version})
        assert answer.json()["prefix"] == prefix
    assert keeping.get("/models/development/latest").json()["prefix"] == prefixes["1.17.0"]
    assert statements_of(keeping, "/models/development/latest?version=1.17.0") == 0
    assert statements_of(keeping, "/models/development/latest?version=1.0.0") == 1


def test_what_is_not_there_is_asked_for_each_time(keeping: TestClient, registry: Registry) -> None:
    assert keeping.get("/models/staging/latest").status_code == 404
    prefix = registry.model(stages=(DEVELOPMENT, STAGING))
    assert keeping.get("/models/staging/latest").json()["prefix"] == prefix


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ("UPDATE models SET verdict = 'failed'", 200),
        ("UPDATE artifacts SET missing_since = now()", 503),
        ("UPDATE artifacts SET sha256 = repeat('b', 64)", 200),
        (
            "UPDATE models SET state = 'marked', marked_at = now(), mark_reason = '{}'"
            " WHERE version = '1.0.0'",
            410,
        ),
    ],
)
def test_a_change_that_another_process_made_is_seen(
    settings: Settings, registry: Registry, change: str, status: int
) -> None:
    registry.model("1.0.0", stages=(DEVELOPMENT,))
    registry.model("1.1.0", stages=(DEVELOPMENT,))
    changed = settings.model_copy(update={"latest_max_age": timedelta(milliseconds=100)})
    with TestClient(create_app(changed), raise_server_exceptions=False) as api:
        before = api.get("/models/development/latest?version=1.0.0")
        registry.execute(change)
        time.sleep(PROMISED_S)
        after = api.get("/models/development/latest?version=1.0.0")
        assert (before.status_code, after.status_code) == (200, status)
        assert before.content != after.content


def test_urls_of_an_earlier_period_are_not_handed_out(
    keeping: TestClient, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.model(stages=(DEVELOPMENT,))
    assert [statements_of(keeping, "/models/development/latest") for _ in range(2)] == [1, 0]
    monkeypatch.setattr(Bucket, "signing_period", lambda *_: 1)
    assert [statements_of(keeping, "/models/development/latest") for _ in range(2)] == [1, 0]


def test_the_task_ends_when_nobody_asks_any_more(
    registry: Registry, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An idle registry does not ask its database twenty times a second."""
    monkeypatch.setattr("app.api.stages.kept._IDLE_S", 0.2)
    registry.model(stages=(DEVELOPMENT,))
    changed = settings.model_copy(update={"latest_max_age": timedelta(milliseconds=100)})
    with TestClient(create_app(changed)) as api:
        assert api.get("/models/development/latest").status_code == 200
        assert isinstance(api.app, FastAPI)
        kept: KeptAnswers = api.app.state.kept
        task = kept._task
        assert task is not None
        until = time.monotonic() + 30
        while not task.done() and time.monotonic() < until:
            time.sleep(0.02)
        assert task.done()
        assert task.exception() is None
        assert api.get("/models/development/latest").status_code == 200
        assert kept._task is not task


def test_readers_that_come_at_the_same_moment_share_one_question(
    keeping: TestClient, registry: Registry
) -> None:
    registry.model(stages=(DEVELOPMENT,))
    assert isinstance(keeping.app, FastAPI)
    database = keeping.app.state.database
    together = threading.Barrier(8)

    def ask() -> int:
        together.wait()
        return keeping.get("/models/development/latest").status_code

    with listening(database, database._reader) as read, ThreadPoolExecutor(8) as threads:
        # The question waits as long as this lock is held, so that all of them are there before its answer.
        with registry.database.engine.begin() as connection:
            connection.execute(text("LOCK TABLE models IN ACCESS EXCLUSIVE MODE"))
            asked = [threads.submit(ask) for _ in range(8)]
            time.sleep(0.5)
        assert {each.result() for each in asked} == {200}
    assert len(read.seen) == 1


def test_an_answer_in_memory_is_only_for_those_who_may_read(settings: Settings, registry: Registry) -> None:
    registry.model(stages=(DEVELOPMENT,))
    token = Token.parse(f"deploy={hashlib.sha256(b'd3ploy').hexdigest()}:read")
    other = Token.parse(f"ci={hashlib.sha256(b'c1').hexdigest()}:build")
    changed = settings.model_copy(
        update={
            "access": Access.TOKENS,
            "api_tokens": (token, other),
            "latest_max_age": timedelta(seconds=10),
        }
    )
    with TestClient(create_app(changed)) as api:
        path, asked = "/models/development/latest", {"Authorization": "Bearer d3ploy"}
        assert statements_of(api, path, headers=asked) == 1
        assert statements_of(api, path, headers=asked) == 0
        assert api.get(path).status_code == 401
        assert api.get(path, headers={"Authorization": "Bearer c1"}).status_code == 403
