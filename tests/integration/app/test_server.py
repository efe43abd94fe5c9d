"""The server on its socket: half-sent requests end, and their connections do not pile up."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import uvicorn

import app.server
from app.api.common import edge
from app.api.common.edge import MAX_HEADER_BYTES
from app.main import create_app
from app.server import LimitedProtocol
from app.settings import Settings
from tests.integration.app.registry import Registry

HEAD_WITHIN_S = 0.6
BODY_WITHIN_S = 0.6


@pytest.fixture
def port(unchanged: Registry, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The API, served as in production but less patient."""
    monkeypatch.setattr(app.server, "HEAD_WITHIN_S", HEAD_WITHIN_S)
    monkeypatch.setattr(edge, "BODY_WITHIN_S", BODY_WITHIN_S)
    settings = Settings.model_validate(
        {
            "database_url": unchanged.database.conninfo,
            "aws_endpoint_url": "http://127.0.0.1:1",
            "access": "open",
        }
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        number: int = free.getsockname()[1]
    config = uvicorn.Config(
        create_app(settings), port=number, loop="uvloop", http=LimitedProtocol, ws="none", log_level="error"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield number
    server.should_exit = True
    thread.join()


@contextmanager
def connected(port: int) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        yield connection


def until_closed(connection: socket.socket) -> bytes:
    """Everything that the server sends until it closes the connection, which it must do within seconds."""
    found = b""
    while block := connection.recv(65536):
        found += block
    return found


def healthy(connection: socket.socket, times: int = 1) -> bool:
    """Whether that many answers of /healthz come, whole."""
    found = b""
    while found.count(b'{"status":"ok"}') < times:
        block = connection.recv(65536)
        if not block:
            return False
        found += block
    return found.count(b"HTTP/1.1 200") == times


def refused(answer: bytes, status: int) -> str:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status), answer
    assert b"content-type: application/problem+json" in head
    assert b"connection: close" in head.lower()
    assert b"x-content-type-options: nosniff" in head
    detail: str = json.loads(body)["detail"]
    return detail


@pytest.mark.parametrize(
    "sent",
    [b"GET /healthz HTTP/1.1\r\nHost: x\r\n", b"GE", b"GET /healthz HTTP/1.1\r\nX-Long: xxxx"],
    ids=["no end", "two letters", "half a header"],
)
def test_a_head_that_does_not_end_is_answered_and_its_connection_closed(port: int, sent: bytes) -> None:
    with connected(port) as connection:
        connection.sendall(sent)
        assert "did not arrive in time" in refused(until_closed(connection), 408)


def test_a_head_that_drips_in_gets_no_more_time(port: int) -> None:
    with connected(port) as connection:
        answer = b""
        connection.settimeout(0.05)  # 50 s for all letters, many times as long as a head may take
        for letter in b"GET /healthz HTTP/1.1\r\nX: " + b"x" * 1000:
            connection.sendall(bytes([letter]))
            try:
                answer = connection.recv(65536)
            except TimeoutError:
                continue
            break
        assert b"408" in answer.splitlines()[0]


@pytest.mark.parametrize("sent", [b"", b"\r\n"], ids=["nothing", "an empty line"])
def test_a_connection_that_asks_nothing_is_closed(port: int, sent: bytes) -> None:
    with connected(port) as connection:
        connection.sendall(sent)
        until_closed(connection)


def test_a_second_request_that_does_not_end_is_closed_too(port: int) -> None:
    with connected(port) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert healthy(connection)
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost")
        refused(until_closed(connection), 408)


@pytest.mark.parametrize("sent", [b"", b'{"sha": '], ids=["nothing", "half of it"])
def test_a_body_that_does_not_end_is_answered_and_its_connection_closed(port: int, sent: bytes) -> None:
    head = (
        b"POST /builds HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n"
    )
    with connected(port) as connection:
        connection.sendall(head + sent)
        assert "did not arrive in time" in refused(until_closed(connection), 408)


def test_headers_without_end_are_refused_before_they_fill_the_memory(port: int) -> None:
    with connected(port) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nX-Long: " + b"x" * (3 * MAX_HEADER_BYTES))
        refused(until_closed(connection), 431)


def test_what_is_not_http_is_answered_with_a_problem_document(port: int) -> None:
    with connected(port) as connection:
        connection.sendall(b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n")
        assert "Send HTTP/1.1" in refused(until_closed(connection), 400)


def test_requests_that_follow_each_other_on_one_connection_are_all_answered(port: int) -> None:
    """Longer than a head may take, with pauses."""
    request = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    with connected(port) as connection:
        for _ in range(4):
            connection.sendall(request)
            assert healthy(connection)
            time.sleep(HEAD_WITHIN_S / 2)
        connection.sendall(request * 5)
        assert healthy(connection, 5)


def test_head_has_no_body_on_the_wire(port: int) -> None:
    with connected(port) as connection:
        connection.sendall(b"HEAD /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = until_closed(connection)
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"content-length: 15" in answer
    assert answer.endswith(b"\r\n\r\n")
