"""The registry's API, as the command line calls it."""

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import httpx

DEFAULT_URL = "http://127.0.0.1:8000"


class ApiError(Exception):
    """The registry refused, or could not be reached; the text says what to do."""

    def __init__(self, text: str, status: int | None = None) -> None:
        super().__init__(text)
        self.status = status


class RegistryClient:
    """Calls the API and turns its problem answers into ApiErrors."""

    def __init__(self, url: str, token: str | None = None) -> None:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        # A GET is repeated when the connection cannot be made; so is a POST, which was then never sent.
        transport = httpx.HTTPTransport(retries=3)
        self._http = httpx.Client(base_url=url, headers=headers, timeout=30, transport=transport)

    def get(self, path: str, **params: str | int | None) -> dict[str, Any]:
        return self._call(
            "GET", path, params={name: value for name, value in params.items() if value is not None}
        )

    def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        return self._call("POST", path, json=body)

    def text(self, path: str, **params: str | int) -> str:
        return self._send("GET", path, params=params).text

    def _call(self, method: str, path: str, **arguments: Any) -> dict[str, Any]:
        answer: dict[str, Any] = self._send(method, path, **arguments).json()
        return answer

    def _send(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        try:
            response = self._http.request(method, path, **arguments)
        except httpx.HTTPError as exc:
            message = (
                f"The registry at {self._http.base_url} does not answer ({exc}). Set REGISTRY_URL or --url."
            )
            raise ApiError(message) from exc
        if response.is_error:
            raise ApiError(_explain(response), response.status_code)
        return response

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _explain(response: httpx.Response) -> str:
    try:
        problem = response.json()
        return f"{problem['title']}: {problem['detail']}"
    except (ValueError, KeyError, TypeError):
        return (
            f"{response.request.method} {response.request.url}: {response.status_code} {response.text[:500]}"
        )
