"""Additional sources that are fetched over HTTP from a server on this machine."""

import gzip
import io
import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
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
    # Answers by path, with headers. Other paths are answered with ANSWER.
    answers: dict[str, tuple[bytes, dict[str, str]]]


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.paths.append(self.path)
        if self.server.failures > 0:
            self.server.failures -= 1
            self.send_error(503)
            return
        content, headers = self.server.answers.get(self.path, (json.dumps(ANSWER).encode(), {}))
        self.send_response(200)
        for name, value in ({"Content-Length": str(len(content))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as running:
        running.paths = []
        running.answers = {}
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


def test_the_url_of_another_day_can_be_meant(server: Server, tmp_path: Path) -> None:
    source = references(server, "/{year}-{month}-{day}.json").model_copy(update={"url_days_ago": 1})
    before = datetime.now(UTC)
    take_snapshot(source, None, tmp_path, QUIET)
    days = {f"/{day - timedelta(days=1):%Y-%m-%d}.json" for day in (before, datetime.now(UTC))}
    assert server.paths[0] in days
    (report,) = [one for one in DEFAULT_SOURCES if one.name == "commodities_report"]
    assert report.url_days_ago == 1


def test_compressed_answers_are_unpacked(server: Server, tmp_path: Path) -> None:
    server.answers["/references"] = (gzip.compress(json.dumps(ANSWER).encode()), {"Content-Encoding": "gzip"})
    assert json.loads(take_snapshot(references(server), None, tmp_path, QUIET).path.read_text()) == ANSWER


@pytest.mark.parametrize("compressed", [False, True])
def test_a_transfer_that_breaks_off_is_tried_again(server: Server, tmp_path: Path, compressed: bool) -> None:
    content = gzip.compress(json.dumps(ANSWER).encode())[:-9] if compressed else b'{"data": ['
    headers = {"Content-Encoding": "gzip"} if compressed else {"Content-Length": "1000"}
    server.answers["/references"] = (content, headers)
    with pytest.raises(TrainingError, match="in 3 attempts") as caught:
        take_snapshot(references(server), None, tmp_path, QUIET, pause_s=0)
    assert caught.value.reason is FailureCode.MISSING_SOURCE
    assert len(server.paths) == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"<!doctype html><html>Log in", "web page"),
        (b'{"errors": [{"title": "internal error"}]}', "internal error"),
    ],
)
def test_an_error_in_place_of_the_data_is_not_kept(
    server: Server, tmp_path: Path, content: bytes, message: str
) -> None:
    server.answers["/references"] = (content, {})
    with pytest.raises(TrainingError, match=message) as caught:
        take_snapshot(references(server), None, tmp_path, QUIET)
    assert caught.value.reason is FailureCode.UNREADABLE_SOURCE
    assert list(tmp_path.iterdir()) == []


def page(title: str, following: str | None) -> tuple[bytes, dict[str, str]]:
    attributes = ANSWER["data"][0]["attributes"] | {"negated_title": title}
    content = {"data": [{"attributes": attributes}], "links": {"next": following}}
    return json.dumps(content).encode(), {}


def test_all_pages_of_an_answer_are_fetched(server: Server, tmp_path: Path) -> None:
    server.answers = {
        "/references?page=1": page("kettle", "/references?page=2"),
        "/references?page=2": page("urn", "?page=3"),
        "/references?page=3": page("pot", None),
    }
    taken = take_snapshot(references(server, "/references?page=1"), None, tmp_path, QUIET)
    rows = read_source(references(server), [taken.path]).frame
    assert rows["description"].to_list() == ["kettle", "urn", "pot"]


@pytest.mark.parametrize("following", ["/references", "http://127.0.0.2:1/references", "file:///etc/passwd"])
def test_a_link_that_repeats_a_page_or_leaves_the_host_is_refused(
    server: Server, tmp_path: Path, following: str
) -> None:
    server.answers["/references"] = page("kettle", following)
    with pytest.raises(TrainingError, match=r"another host|repeats a page"):
        take_snapshot(references(server), None, tmp_path, QUIET)
