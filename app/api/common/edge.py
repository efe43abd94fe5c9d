"""What every request and answer has in common: limits on size and time, HEAD, and a security header."""

import asyncio
import re
from collections.abc import Awaitable, Callable, MutableMapping
from http import HTTPStatus
from typing import Any
from uuid import uuid4

from starlette.exceptions import HTTPException

from app.api.common.errors import OF_STATUS, respond
from app.registry.access.audit import request_id

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

# This is enough for two configurations of 1 MiB each, escaped as JSON.
MAX_BODY_BYTES = 4 << 20
MAX_HEADER_BYTES = 32 << 10
BODY_WITHIN_S = 60.0

_NO_SNIFFING = (b"x-content-type-options", b"nosniff")
# Answers tell what is true now, and errors pass. Only files that never change, such as the scripts of the
# docs, come with a header that says how a cache can use them.
_CACHING = frozenset({b"cache-control", b"etag", b"last-modified"})
_NO_STORE = (b"cache-control", b"no-store")
_CLOSE = {"Connection": "close"}
_REQUEST_ID = b"x-request-id"
_USUAL_ID = re.compile(rb"[0-9A-Za-z._-]{1,100}")


class Edge:
    """Limits requests, answers HEAD like GET without a body, and keeps browsers from guessing types,
    and caches from storing what changes.
    """

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = _request_id(scope)
        # Whatever the request changes is recorded together with this id.
        request_id.set(given)
        is_head = scope["method"] == "HEAD"
        if is_head:
            # The scope is copied, because the server reads its own to know that HEAD gets no body.
            scope = {**scope, "method": "GET"}

        is_answered = False

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [
                    *message.get("headers", ()),
                    _NO_SNIFFING,
                    (_REQUEST_ID, given.encode()),
                ]
                if _CACHING.isdisjoint(name for name, _ in headers):
                    headers.append(_NO_STORE)
                message["headers"] = headers
            elif is_head:
                nonlocal is_answered
                if is_answered:
                    return
                # A stream has no end of its own, so its head must not wait for one.
                is_answered = True
                message = {**message, "body": b"", "more_body": False}
            await send(message)

        if (status := _too_large(scope)) is not None:
            await respond(OF_STATUS[status], _DETAILS[status], _CLOSE)(scope, receive, answer)
            return
        await self._app(scope, _Body(receive).receive, answer)


def _request_id(scope: Scope) -> str:
    """The id that a proxy or the caller has given the request, if it has the usual form, or a new one."""
    for name, value in scope["headers"]:
        if name == _REQUEST_ID and _USUAL_ID.fullmatch(value):
            return str(value, "ascii")
    return uuid4().hex


_DETAILS = {
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: f"The body is larger than {MAX_BODY_BYTES:,} bytes. Send less.",
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE: f"The headers and the URL together are larger than "
    f"{MAX_HEADER_BYTES:,} bytes. Send less.",
    HTTPStatus.REQUEST_TIMEOUT: "The body did not arrive in time. Send the request again.",
}


def _too_large(scope: Scope) -> HTTPStatus | None:
    """The status for headers or an announced body that are too large. None if the request may go on."""
    size, announced = len(scope.get("raw_path") or b"") + len(scope["query_string"]), b""
    for name, value in scope["headers"]:
        size += len(name) + len(value)
        if name == b"content-length":
            announced = value
    if size > MAX_HEADER_BYTES:
        return HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
    if announced.isdigit() and int(announced) > MAX_BODY_BYTES:
        return HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    return None


class _Body:
    """Reads the body of one request, and limits its size and the time that it may take to arrive."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._ends: float | None = None
        self._size = 0
        self._whole = False

    async def receive(self) -> Message:
        """Raises HTTPException, which the application answers like any other."""
        if self._whole:
            # The body is complete. From here on, the application only waits for the client to disconnect.
            return await self._receive()
        if self._ends is None:
            self._ends = asyncio.get_running_loop().time() + BODY_WITHIN_S
        try:
            async with asyncio.timeout_at(self._ends):
                message = await self._receive()
        except TimeoutError:
            raise _refused(HTTPStatus.REQUEST_TIMEOUT) from None
        self._size += len(message.get("body", b""))
        if self._size > MAX_BODY_BYTES:
            raise _refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        self._whole = not message.get("more_body", False)
        return message


def _refused(status: HTTPStatus) -> HTTPException:
    return HTTPException(status, _DETAILS[status], headers=_CLOSE)
