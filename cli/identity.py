"""Signs in with the identity that GitHub Actions gives a job, where no token is set."""

import os
from collections.abc import Generator

import httpx

from cli.answers import ApiError

_PATIENCE_S = 10.0


class GithubIdentity(httpx.Auth):
    """Signs in when the registry asks for a token, and again when the token has expired.

    A request that is answered with 401 was not carried out, so it can be sent again.
    """

    def __init__(self, registry: str, request_url: str, request_token: str) -> None:
        self._registry = registry.rstrip("/")
        self._request_url = httpx.URL(request_url)
        self._request_token = request_token
        self._token: str | None = None

    @classmethod
    def of_environment(cls, registry: str, audience: str | None) -> "GithubIdentity | None":
        """The identity of this job. None outside GitHub Actions, or without `id-token: write`.

        `audience` is what the registry expects; the registry's own address if it is not given.
        """
        url, token = (os.environ.get(f"ACTIONS_ID_TOKEN_REQUEST_{name}") for name in ("URL", "TOKEN"))
        if not url or not token:
            return None
        asked = httpx.URL(url).copy_set_param("audience", audience or registry.rstrip("/"))
        return cls(registry, str(asked), token)

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        if self._token is not None:
            request.headers["Authorization"] = f"Bearer {self._token}"
        response = yield request
        if response.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN) and (
            response.status_code == httpx.codes.UNAUTHORIZED or self._token is None
        ):
            self._token = self.sign_in()
            request.headers["Authorization"] = f"Bearer {self._token}"
            yield request

    def sign_in(self) -> str:
        """A token of the registry, for 15 minutes. Raises ApiError."""
        try:
            asked = httpx.get(
                self._request_url,
                headers={"Authorization": f"Bearer {self._request_token}"},
                timeout=_PATIENCE_S,
            )
            identity = asked.raise_for_status().json()["value"]
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as exc:
            message = (
                f"GitHub gave this job no identity token ({exc or type(exc).__name__}). Give the job the "
                "permission `id-token: write`, or set REGISTRY_TOKEN."
            )
            raise ApiError(message) from exc
        try:
            answer = httpx.post(
                f"{self._registry}/auth/github", json={"token": identity}, timeout=_PATIENCE_S
            )
        except httpx.HTTPError as exc:
            message = f"Signing in at {self._registry} failed ({exc or type(exc).__name__}). Try again."
            raise ApiError(message, passes=True) from exc
        try:
            document = answer.json()
            if answer.is_success:
                return str(document["token"])
            said = f"{document['title']}: {document['detail']}"
        except (ValueError, KeyError, TypeError):
            said = f"it answered with {answer.status_code} {answer.reason_phrase}"
        message = f"The registry does not let this workflow sign in. {said}"
        raise ApiError(message, answer.status_code)
