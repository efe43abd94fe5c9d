"""Runs the API in a server, and checks that not everyone in a network can change everything."""

import asyncio
import ipaddress
import logging
import socket
import sys
import threading
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
    """uvicorn's HTTP protocol, with limits on the size of a request's head and on its arrival time.

    The head is the request line and the headers. uvicorn itself would wait for the rest of a head for ever,
    and keep everything that has arrived. The application limits the body (app/api/common/edge.py).
    """

    _timer: asyncio.TimerHandle | None = None
    # Whether the server is waiting for a head, and how many bytes of it have arrived.
    _in_head = True
    _head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

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
