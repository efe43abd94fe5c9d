"""The registry's API, as the command line calls it."""

import email.utils
import math
import random
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx
from httpx_sse import EventSource, ServerSentEvent, SSEError

from cli.answers import ApiError, LogPart, read

# Answers of a registry, or of a load balancer before it, that pass by themselves.
_TEMPORARY = frozenset({408, 425, 429, 502, 503, 504})
_FIRST_WAIT_S = 0.5
_LONGEST_WAIT_S = 15.0
# The most items that the registry puts on one page.
_PAGE = 200


def path(*segments: str) -> str:
    """A path of the API. Each segment is quoted, whatever it holds."""
    return "".join(f"/{quote(segment, safe='')}" for segment in segments)


class StreamLost(Exception):
    """A stream broke off, or could not be opened for a reason that passes by itself."""


class StreamSilent(StreamLost):
    """For too long, nothing arrived."""


class StreamRefused(Exception):
    """There is no such stream, or something in between does not let it through. The text says what came."""


class NothingFollows(Exception):
    """The build has ended, and everything was received."""


class RegistryClient:
    """Calls the API. Whatever is not the expected answer becomes an ApiError.

    A call that fails for a reason that passes by itself is tried again for up to `patience_s`. As long as
    nothing has ever answered, the URL is more likely wrong, and the patience is a few seconds.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        identity: httpx.Auth | None = None,
        patience_s: float = 60.0,
        note: Callable[[str], object] = lambda _: None,
        sleep: Callable[[float], object] = time.sleep,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """`note` is told, once for each call, that it is tried again and why.

        `identity` signs in where there is no token.
        """
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._http = httpx.Client(
            base_url=url, headers=headers, auth=identity, timeout=30, transport=transport
        )
        self.patience_s = patience_s
        self._note = note
        self._sleep = sleep
        self._answered = False

    def get(self, path: str, **params: str | int | None) -> dict[str, Any]:
        given = {name: value for name, value in params.items() if value is not None}
        return _document(self._send("GET", path, repeatable=True, params=given))

    def listed(self, path: str, limit: int | None = None, /, **params: str | None) -> dict[str, Any]:
        """The first page of a list with the items of as many pages as hold `limit` items, or of all pages.

        `next` is that of the last page that was read. Raises ApiError.
        """
        first: dict[str, Any] = {}
        items: list[Any] = []
        cursor: str | None = None
        while True:
            size = _PAGE if limit is None else min(_PAGE, limit - len(items))
            page = self.get(path, **params, limit=size, cursor=cursor)
            items += read(page, lambda page: list(page["items"]))
            cursor = read(page, lambda page: None if page["next"] is None else str(page["next"]))
            first = first or page
            if cursor is None or (limit is not None and len(items) >= limit):
                return first | {"items": items, "next": cursor}

    def post(self, path: str, body: Mapping[str, Any], *, repeatable: bool = False) -> dict[str, Any]:
        """`repeatable`: to post the same twice has the same effect as to post it once."""
        return _document(self._send("POST", path, repeatable=repeatable, json=body))

    def delete(self, path: str) -> dict[str, Any]:
        return _document(self._send("DELETE", path, repeatable=True))

    def text(self, path: str, **params: str | int) -> str:
        return self._send("GET", path, repeatable=True, params=params).text

    def download(self, path: str, to: Path) -> None:
        """Fetch a file from where the registry says that it is. The token is not sent there."""
        where = self._send("GET", path, repeatable=True, redirects=True).headers["Location"]
        try:
            with httpx.stream("GET", where, timeout=30) as response:
                if not response.is_success:
                    message = f"{to.name} cannot be fetched: {response.status_code} {response.reason_phrase}."
                    raise ApiError(message, response.status_code)
                # Not before: a file that is not there must not look like an empty one.
                with to.open("wb") as file:
                    for block in response.iter_bytes():
                        file.write(block)
        except httpx.HTTPError as exc:
            message = f"{to.name} cannot be fetched ({str(exc) or type(exc).__name__}). Try again."
            raise ApiError(message, passes=True) from exc

    def log(self, path: str, offset: int) -> LogPart:
        """What a build's log holds from this byte on, or the first part of it."""
        response = self._send("GET", path, repeatable=True, params={"offset": offset})
        size, next_offset = (response.headers.get(f"X-Log-{name}", "") for name in ("Size", "Next-Offset"))
        if not (size.isdecimal() and next_offset.isdecimal()):
            return LogPart(response.text, None, is_last=True)
        return LogPart(
            response.text, int(next_offset), is_last=not response.content or int(next_offset) >= int(size)
        )

    def events(self, path: str, last_id: str, silence_s: float) -> Iterator[ServerSentEvent]:
        """The server-sent events after the one with this id, until the stream ends.

        It is not tried again. Raises StreamLost, StreamRefused, NothingFollows.
        """
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
        if last_id:
            headers["Last-Event-ID"] = last_id
        timeout = httpx.Timeout(30, read=silence_s)
        try:
            with self._http.stream("GET", path, headers=headers, timeout=timeout) as response:
                self._answered = True
                if response.status_code == httpx.codes.NO_CONTENT:
                    raise NothingFollows
                if response.status_code in _TEMPORARY:
                    raise StreamLost
                if not response.is_success:
                    message = f"the stream was answered with {response.status_code} {response.reason_phrase}"
                    raise StreamRefused(message)
                yield from EventSource(response).iter_sse()
        except (SSEError, httpx.DecodingError) as exc:
            message = f"the answer is not a stream ({exc})"
            raise StreamRefused(message) from exc
        except httpx.ReadTimeout as exc:
            raise StreamSilent from exc
        except httpx.TransportError as exc:
            raise StreamLost from exc

    def end_of_log(self, path: str, size_bytes: int = 1 << 16) -> str:
        """The end of a log. One answer holds only a part of a long log, and says how long the whole is."""
        response = self._send("GET", path, repeatable=True)
        size, next_offset = (response.headers.get(f"X-Log-{name}", "") for name in ("Size", "Next-Offset"))
        if size.isdecimal() and next_offset.isdecimal() and int(size) > int(next_offset):
            offset = max(0, int(size) - size_bytes)
            response = self._send("GET", path, repeatable=True, params={"offset": offset})
        return response.text

    def _send(
        self, method: str, path: str, *, repeatable: bool, redirects: bool = False, **arguments: Any
    ) -> httpx.Response:
        """`redirects`: a redirect is the answer, and is not followed."""
        waited_s, attempt = 0.0, 0
        while True:
            retry_after_s, began = None, time.monotonic()
            try:
                response = self._http.request(method, path, **arguments)
            except httpx.TransportError as exc:
                error = ApiError(self._unreachable(exc), passes=True)
                # A request whose connection was not even made cannot have had an effect.
                passes = repeatable or isinstance(exc, httpx.ConnectError | httpx.ConnectTimeout)
                cause: Exception | None = exc
            except (httpx.HTTPError, httpx.InvalidURL) as exc:
                raise ApiError(self._unreachable(exc)) from exc
            else:
                self._answered = True
                if response.is_success or (redirects and response.has_redirect_location):
                    return response
                error = ApiError(
                    self._explain(response),
                    response.status_code,
                    passes=response.status_code in _TEMPORARY,
                )
                passes = response.status_code in _TEMPORARY and (
                    # With these the request was not carried out; after others, nobody knows.
                    repeatable or response.status_code in (429, 503)
                )
                retry_after_s = _retry_after_s(response)
                cause = None
            waited_s += time.monotonic() - began
            wait_s = retry_after_s if retry_after_s is not None else backoff_s(attempt)
            patience_s = self.patience_s if self._answered else min(self.patience_s, 3.0)
            if not passes or waited_s + wait_s > patience_s:
                raise error from cause
            if attempt == 0:
                self._note(f"{error} Trying again for up to {patience_s:.0f} s.")
            self._sleep(wait_s)
            waited_s += wait_s
            attempt += 1

    def _unreachable(self, exc: Exception) -> str:
        reason = str(exc) or type(exc).__name__
        return (
            f"The registry at {self._http.base_url} does not answer ({reason}). "
            "Set REGISTRY_URL or --url to its address."
        )

    def _explain(self, response: httpx.Response) -> str:
        request = response.request
        called = f"{request.method} {request.url.copy_with(query=None)}"
        if response.has_redirect_location:
            # Nothing is sent there, because the token is for the registry alone.
            return (
                f"{called} is redirected to {_target(response)}. "
                "Set REGISTRY_URL or --url to the registry's own address."
            )
        try:
            problem = response.json()
            return f"{problem['title']}: {problem['detail']}"
        except (ValueError, KeyError, TypeError):
            return f"{called} was answered with {response.status_code} {response.reason_phrase}."

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _target(response: httpx.Response) -> str:
    """Where a redirect leads, without what may be secret in it."""
    try:
        url = response.request.url.join(response.headers["Location"])
    except httpx.InvalidURL:
        return "an address that cannot be read"
    return str(url.copy_with(query=None, fragment=None, userinfo=b""))


def _document(response: httpx.Response) -> dict[str, Any]:
    try:
        document = response.json()
    except ValueError:
        document = None
    if isinstance(document, dict):
        return document
    kind = response.headers.get("Content-Type", "nothing that has a type")
    message = (
        f"{response.request.url.copy_with(query=None)} answered with {kind}, which no registry does. "
        "Set REGISTRY_URL or --url to the address of the registry's API."
    )
    raise ApiError(message)


def backoff_s(attempt: int) -> float:
    """How long to wait after so many attempts before this one."""
    # Spread, so that many jobs that wait for the same registry do not all come back at once.
    longest: float = min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2.0**attempt)
    return longest * random.uniform(0.75, 1.0)  # noqa: S311


def _retry_after_s(response: httpx.Response) -> float | None:
    """How long the answer asks to wait: a number of seconds or a date."""
    value = response.headers.get("Retry-After", "").strip()
    if value.isdecimal():
        return float(value)
    try:
        seconds = (email.utils.parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds()
    except (TypeError, ValueError):
        return None
    return float(max(0, math.ceil(seconds)))
