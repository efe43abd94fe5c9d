"""Posts one message to a target, and says what the target answered."""

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import httpx

from worker.errors import NoAnswer

# From the start of a request to the last header of its answer, so that no target holds a worker for long,
# however slowly it sends. Together, both are much shorter than a worker's claim on the message.
_ANSWER_S = 15.0
_BODY_S = 3.0
_CONNECT_S = 5.0

# Of the body of an answer, so much is read.
_EXCERPT = 500


@dataclass(frozen=True)
class Answer:
    """What a target answered. `retry_after_s` is how long it wants to be left alone."""

    status: int
    excerpt: str
    retry_after_s: float | None


class Sender:
    """Sends messages one after the other, over a connection that it keeps. Use it as a context manager."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self._client: httpx.AsyncClient | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        del kind, error, trace
        if self._client is not None:
            self._runner.run(self._client.aclose())
        self._runner.close()

    def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Raises NoAnswer. No redirect is followed: the message could end up anywhere."""
        return self._runner.run(self._post(url, body, headers))

    async def _post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        if self._client is None:
            self._client = httpx.AsyncClient(
                follow_redirects=False, timeout=httpx.Timeout(_ANSWER_S, connect=_CONNECT_S)
            )
        # The answer is not to be compressed: what is read of it is limited before anything is unpacked.
        sent = {"User-Agent": "tariff-model-registry", "Accept-Encoding": "identity", **headers}
        request = self._client.build_request("POST", url, content=body, headers=sent)
        try:
            async with asyncio.timeout(_ANSWER_S):
                response = await self._client.send(request, stream=True)
        except TimeoutError as exc:
            message = f"There was no answer within {_ANSWER_S:.0f} s."
            raise NoAnswer(message) from exc
        except (httpx.HTTPError, OSError) as exc:
            message = f"{type(exc).__name__}: {exc}"
            raise NoAnswer(message) from exc
        excerpt = await _excerpt(response)
        return Answer(response.status_code, excerpt, _seconds(response.headers.get("Retry-After")))


async def _excerpt(response: httpx.Response) -> str:
    """The beginning of the body. Whatever goes wrong with it, the status has been answered."""
    found = b""
    with contextlib.suppress(httpx.HTTPError, OSError, TimeoutError):
        async with asyncio.timeout(_BODY_S):
            async for block in response.aiter_raw():
                found += block
                if len(found) > _EXCERPT:
                    break
    with contextlib.suppress(httpx.HTTPError, OSError):
        await response.aclose()
    return found[:_EXCERPT].decode(errors="replace").strip()


def _seconds(retry_after: str | None) -> float | None:
    """The header in seconds. Its other form, a date, is not used by those who limit rates."""
    return float(retry_after) if retry_after is not None and retry_after.strip().isdecimal() else None
