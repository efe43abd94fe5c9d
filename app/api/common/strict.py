"""Refuses unknown query parameters, other bodies than JSON, and broken JSON, before an endpoint runs."""

import json
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from http import HTTPStatus
from typing import Any, ClassVar

from fastapi import Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from app.api.common import bounded
from app.api.common.admission import Admission

_READS = ("GET", "HEAD")
_JSON = "application/json"

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class StrictRoute(APIRoute):
    """A route that identifies the caller, and refuses query parameters that are unknown or given twice, and
    bodies that are not announced as JSON.

    It does so before the body is read, because callers without a token must not cost memory. If unknown
    parameters were ignored, `?verison=1.0.0` would be answered as if no version had been asked for.
    """

    # Whether everyone may call it, whatever REGISTRY_ACCESS says.
    public: ClassVar[bool] = False

    def get_route_handler(self) -> Handler:
        handle = super().get_route_handler()
        known = sorted(_query_parameters(self.dependant))
        public = self.public
        takes_body = self.body_field is not None

        async def strict(request: Request) -> Response:
            if not public:
                admission: Admission = request.app.state.admission
                writes = request.method not in _READS
                request.state.caller = await admission.admit(_token(request), writes=writes)
            # Most calls have no query, so they skip the check.
            if request.scope["query_string"]:
                _refuse_unknown(request, known)
            if takes_body:
                _refuse_other_types(request)
            return await handle(StrictRequest(request.scope, request.receive))

        return strict


class PublicRoute(StrictRoute):
    """A route that needs no token: the health checks and the start page."""

    public = True


def _token(request: Request) -> str | None:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def _query_parameters(dependant: Dependant) -> Iterator[str]:
    """The names of the query parameters that the endpoint and its dependencies take."""
    for field in dependant.query_params:
        yield field.alias
    for dependency in dependant.dependencies:
        yield from _query_parameters(dependency)


def _refuse_unknown(request: Request, known: list[str]) -> None:
    counts = Counter(name for name, _ in request.query_params.multi_items())
    has = f"This call takes: {', '.join(known)}." if known else "This call takes no query parameters."
    problems = [
        ("extra_forbidden", name, f"There is no such query parameter. {has}")
        for name in counts
        if name not in known
    ]
    problems += [
        ("too_many", name, f"This query parameter came {count} times. Send it once.")
        for name, count in counts.items()
        if name in known and count > 1
    ]
    if problems:
        raise RequestValidationError(
            [{"type": type_, "loc": ("query", name), "msg": msg} for type_, name, msg in problems]
        )


def _refuse_other_types(request: Request) -> None:
    """Raises an HTTPException unless the body is announced as JSON that is not compressed.

    curl announces a form unless it is told otherwise, and a page of another site can send a form or a plain
    text with a browser's credentials.
    """
    given = request.headers.get("Content-Type", "")
    if given.partition(";")[0].strip().lower() != _JSON:
        came = f"with the content type {bounded.text(given, 100)!r}" if given else "without a content type"
        message = f"The body came {came}. Send JSON, with the header `Content-Type: {_JSON}`."
        raise HTTPException(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, message, headers={"Accept": _JSON})
    coding = request.headers.get("Content-Encoding", "identity").strip().lower()
    if coding not in ("", "identity"):
        message = (
            f"The body has the encoding {bounded.text(coding, 100)!r}. Send it uncompressed, without the "
            "header `Content-Encoding`."
        )
        headers = {"Accept-Encoding": "identity"}
        raise HTTPException(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, message, headers=headers)


class StrictRequest(Request):
    """A request that reads JSON strictly, as RFC 8259 defines it."""

    async def json(self) -> Any:
        if not hasattr(self, "_json"):
            self._json = parse_json(await self.body())
        return self._json


def parse_json(body: bytes) -> object:
    """Parse JSON strictly. Raises JSONDecodeError if the body is not valid or not unambiguous.

    Python's own parser would take the last of two equal keys, accept NaN and Infinity as numbers, and read
    encodings other than UTF-8.
    """
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as exc:
        message = "the body is not UTF-8. Send UTF-8, uncompressed"
        raise json.JSONDecodeError(message, "", exc.start) from exc
    try:
        return json.loads(text, object_pairs_hook=_without_doubles, parse_constant=_no_constant)
    except json.JSONDecodeError:
        raise
    except (ValueError, RecursionError) as exc:
        reason = "it is nested too deeply" if isinstance(exc, RecursionError) else str(exc)
        raise json.JSONDecodeError(reason, "", 0) from exc


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        [(name, _)] = Counter(name for name, _ in pairs).most_common(1)
        message = f"the key {name!r} comes twice in one object"
        raise ValueError(message)
    return found


def _no_constant(name: str) -> object:
    message = f"{name} is not a JSON number"
    raise ValueError(message)
