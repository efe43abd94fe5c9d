"""Additional sources that are fetched over HTTP from a server on this machine."""

import io
import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from training.config import DEFAULT_SOURCES, SourceConfig
from training.errors import FailureCode, TrainingError
from training.progress import Progress
from training.sources.read import read_source
from training.sources.snapshot import dated, take_snapshot

QUIET = Progress(log=io.StringIO())
ANSWER = {
    "data": [
        {
            "attributes": {
                "referenced_class": "Commodity",
                "negated_title": "kettle",
                "goods_nomenclature_item_id": "8516108000",
            }
        }
    ]
}


class Server(ThreadingHTTPServer):
    """Answers with ANSWER, after answering with 503 for the first `failures` times."""

    failures = 0
    paths: list[str]


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.paths.append(self.path)
        if self.server.failures > 0:
            self.server.failures -= 1
            self.send_error(503)
            return
        content = json.dumps(ANSWER).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as running:
        running.paths = []
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def references(server: Server, path: str = "/references") -> SourceConfig:
    (default,) = [one for one in DEFAULT_SOURCES if one.name == "search_references"]
    return default.model_copy(update={"url": f"http://127.0.0.1:{server.server_port}{path}"})


def test_a_snapshot_is_kept_and_trained_from(server: Server, tmp_path: Path) -> None:
    taken = take_snapshot(references(server), None, tmp_path, QUIET)
    assert json.loads(taken.path.read_text()) == ANSWER
    assert taken.path == tmp_path / "search_references.json"
    rows = read_source(references(server), [taken.path]).frame
    assert rows.select("code", "description").rows() == [("8516108000", "kettle")]


def test_a_source_with_a_snapshot_is_not_fetched(server: Server, tmp_path: Path) -> None:
    first = take_snapshot(references(server), None, tmp_path / "first", QUIET)
    again = take_snapshot(references(server), tmp_path / "first", tmp_path / "second", QUIET)
    assert again.sha256 == first.sha256
    assert len(server.paths) == 1
    assert not (tmp_path / "second").exists()


def test_a_url_may_contain_the_date(server: Server, tmp_path: Path) -> None:
    take_snapshot(references(server, "/{year}/{month}/{day}.json"), None, tmp_path, QUIET)
    _, year, month, day = server.paths[0].split("/")
    assert (len(year), len(month), len(day)) == (4, 2, len("01.json"))


def test_a_server_that_recovers_is_asked_again(server: Server, tmp_path: Path) -> None:
    server.failures = 2
    take_snapshot(references(server), None, tmp_path, QUIET, pause_s=0)
    assert len(server.paths) == 3


def test_a_server_that_does_not_recover_is_a_missing_source(server: Server, tmp_path: Path) -> None:
    server.failures = 9
    with pytest.raises(TrainingError, match="--snapshots") as caught:
        take_snapshot(references(server), None, tmp_path, QUIET, pause_s=0)
    assert caught.value.reason is FailureCode.MISSING_SOURCE
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("url", ["file:///etc/passwd", "https://user:s3cret@example.com/a", "https://h/{x}"])
def test_a_url_that_was_not_checked_before_is_checked_on_the_machine(
    server: Server, tmp_path: Path, url: str
) -> None:
    source = references(server).model_copy(update={"url": url})
    with pytest.raises(TrainingError, match="source search_references: the URL") as caught:
        take_snapshot(source, None, tmp_path, QUIET)
    assert caught.value.reason is FailureCode.INVALID_CONFIG
    assert "s3cret" not in caught.value.message


def test_a_signature_in_a_url_is_sent_but_neither_recorded_nor_logged(server: Server, tmp_path: Path) -> None:
    log = io.StringIO()
    source = references(server, "/references?sig=s3cret&day={day}")
    taken = take_snapshot(source, None, tmp_path / "first", Progress(log=log))
    assert "sig=s3cret" in server.paths[0]
    again = take_snapshot(source, tmp_path / "first", tmp_path / "second", Progress(log=log))
    server.failures = 9
    with pytest.raises(TrainingError) as caught:
        take_snapshot(source, None, tmp_path / "third", Progress(log=log), pause_s=0)
    for shown in (taken.url, again.url, log.getvalue(), caught.value.message):
        assert "s3cret" not in shown
    assert taken.url == f"http://127.0.0.1:{server.server_port}/references"


def test_only_the_placeholders_of_a_date_are_replaced() -> None:
    day = datetime(2026, 1, 2, tzinfo=UTC)
    url = "https://h/{year}-{month}-{day}/{year.__class__}/{day!r}/{{day}}/{nope}"
    assert dated(url, day) == "https://h/2026-01-02/{year.__class__}/{day!r}/{02}/{nope}"
