"""Runs the API in a server, and checks that not everyone in a network can change everything."""

import asyncio
import ipaddress
import logging
import socket
import sys
import threading
from contextlib import suppress
from http import HTTPStatus

import uvicorn
from fastapi import FastAPI
from sqlalchemy.exc import SQLAlchemyError
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from app.api.builds.following import Following
from app.api.common.edge import MAX_HEADER_BYTES
from app.api.common.errors import OF_STATUS, respond
from app.db.session import Database
from app.main import create_app
from app.registry.access import tokens
from app.registry.access.callers import AccessPolicy
from app.settings import Settings, SettingsError
from app.words import Access

_log = logging.getLogger(__name__)

HEAD_WITHIN_S = 20.0
STOP_WITHIN_S = 15
# Whoever takes the bytes of an answer more slowly than this is cut off, and can ask again.
WRITE_CHECK_S = 20.0
SLOWEST_BYTES_PER_S = 1024
_STOP_CHECK_S = 2.0
# What was sent and is not confirmed for this long was sent to a host that is gone.
_CONFIRM_WITHIN_MS = 60_000


def serve(settings: Settings, *, host: str, port: int) -> None:
    """Serve the API until SIGTERM or SIGINT. Raises SettingsError."""
    check_exposure(settings, host)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s %(message)s", level=logging.INFO)
    app = create_app(settings)
    # In a thread, because a database that cannot be reached must not hold up the start.
    threading.Thread(
        target=log_access, args=(app.state.admission.policy, app.state.database), daemon=True
    ).start()
    config = server_config(app, host, port)
    server = StreamingServer(config, app.state.following)
    server.run()
    if not server.started:
        # As uvicorn.run does.
        sys.exit(3)


def server_config(app: FastAPI, host: str, port: int) -> uvicorn.Config:
    """How the API is served."""
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        # With uvicorn's asyncio loop, Nagle's algorithm delays each request of a kept connection by 44 ms.
        loop="uvloop",
        http=LimitedProtocol,
        ws="none",
        log_level="warning",
        # A request that does not end, such as one whose reader does not read, must not keep the process.
        timeout_graceful_shutdown=STOP_WITHIN_S,
    )


def log_access(policy: AccessPolicy, database: Database) -> None:
    """Write into the log who may call."""
    created: bool | None = None
    if not policy.can_write:
        try:
            created = database.read(tokens.may_somebody_write)
        except SQLAlchemyError as exc:
            _log.warning("the database does not say which tokens there are: %s", type(exc).__name__)
    level = logging.WARNING if policy.is_surprising(created=created) else logging.INFO
    _log.log(level, "access is %s", policy.summary(created=created))


class StreamingServer(uvicorn.Server):
    """uvicorn's server, which waits for every answer when it stops. So it ends the streams first."""

    def __init__(self, config: uvicorn.Config, following: Following) -> None:
        super().__init__(config)
        self._following = following

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await self._following.close()
        await super().shutdown(sockets)


def check_exposure(settings: Settings, host: str) -> None:
    """Raises SettingsError if everyone in a network could change everything and no setting allows that."""
    if settings.access is Access.OPEN and not settings.open_to_network and not _is_loopback(host):
        message = (
            f"REGISTRY_ACCESS=open lets everyone who can reach {host} change everything. "
            "Listen on 127.0.0.1, or set REGISTRY_ACCESS to reads or tokens. "
            "If you want that, set REGISTRY_OPEN_TO_NETWORK=true."
        )
        raise SettingsError(message)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        # A host name other than localhost may stand for any address.
        return host == "localhost"


class LimitedProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol, with limits on the size of a request's head, and on the time that a head
    takes to arrive and an answer takes to be read.

    The head is the request line and the headers. uvicorn itself would wait for the rest of a head for ever,
    and keep everything that has arrived. The application limits the body (app/api/common/edge.py). It would
    also keep a connection, and what is to be sent on it, for as long as its reader does not read.
    """

    _timer: asyncio.TimerHandle | None = None
    # Whether the server is waiting for a head, and how many bytes of it have arrived.
    _in_head = True
    _head_bytes = 0
    _write_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        connection = transport.get_extra_info("socket")
        # Linux alone has this, and not for every kind of socket.
        if connection is not None and hasattr(socket, "TCP_USER_TIMEOUT"):
            with suppress(OSError):
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _CONFIRM_WITHIN_MS)
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        self._stop_write_timer()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._start_write_timer(WRITE_CHECK_S)

    def resume_writing(self) -> None:
        self._stop_write_timer()
        super().resume_writing()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > 2 * MAX_HEADER_BYTES:
                self._refuse(
                    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "The head of the request is too large."
                )
        if self._timer is None and (self._in_head or self.cycle.response_complete):
            # The data, such as an empty line, has stopped uvicorn's own timeout for the next request.
            self._start_timer()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head, self._head_bytes = True, 0

    def on_headers_complete(self) -> None:
        self._in_head, self._head_bytes = False, 0
        self._stop_timer()
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        self._refuse(HTTPStatus.BAD_REQUEST, f"{msg} Send HTTP/1.1.")

    def shutdown(self) -> None:
        super().shutdown()
        if self.flow.write_paused:
            # When the process stops, it does not wait for readers who do not read.
            self._start_write_timer(_STOP_CHECK_S)

    def _start_write_timer(self, within_s: float) -> None:
        self._stop_write_timer()
        unsent_bytes = self.transport.get_write_buffer_size()
        self._write_timer = self.loop.call_later(within_s, self._check_writing, within_s, unsent_bytes)

    def _stop_write_timer(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def _check_writing(self, within_s: float, unsent_bytes: int) -> None:
        # Nothing is added to the buffer while writing is paused.
        sent_bytes = unsent_bytes - self.transport.get_write_buffer_size()
        if sent_bytes < within_s * SLOWEST_BYTES_PER_S:
            _log.info("a reader who took %d bytes in %.0f s was cut off", sent_bytes, within_s)
            # To close would be to wait until everything is sent.
            self.transport.abort()
        else:
            self._start_write_timer(within_s)

    def _start_timer(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(HEAD_WITHIN_S, self._too_late)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_late(self) -> None:
        self._timer = None
        if self._head_bytes:
            self._refuse(
                HTTPStatus.REQUEST_TIMEOUT, "The head of the request did not arrive in time. Send it again."
            )
        else:
            self.transport.close()

    def _refuse(self, status: HTTPStatus, detail: str) -> None:
        if self.transport.is_closing():
            return
        answer = respond(
            OF_STATUS[status], detail, {"Connection": "close", "X-Content-Type-Options": "nosniff"}
        )
        head = b"".join(b"%b: %b\r\n" % header for header in answer.raw_headers)
        self.transport.write(STATUS_LINE[status] + head + b"\r\n" + bytes(answer.body))
        self.transport.close()
