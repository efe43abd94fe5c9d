"""Answers every error as `application/problem+json` (RFC 9457), by means of one table."""

import logging
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.encoders import jsonable_encoder
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException

from app.api.common import bounded
from app.api.common.problem_examples import PROBLEMS
from app.aws import CloudError
from app.registry import errors
from app.registry.errors import RegistryError

MEDIA_TYPE = "application/problem+json"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ProblemKind:
    """How errors of one kind are answered. `type` is what callers branch on, so it never changes."""

    status: HTTPStatus
    type: str
    title: str
    # After how many seconds it makes sense to send the request again.
    retry_after_s: int | None = None


UNAVAILABLE = ProblemKind(
    HTTPStatus.SERVICE_UNAVAILABLE, "database-unavailable", "The database is not available", 5
)
CONFLICT = ProblemKind(HTTPStatus.CONFLICT, "conflict", "The request contradicts what is recorded")
MARKED = ProblemKind(HTTPStatus.GONE, "model-marked", "The model is marked for garbage collection")
INTERNAL = ProblemKind(HTTPStatus.INTERNAL_SERVER_ERROR, "internal-error", "Unexpected error")

# The exceptions that an endpoint may raise. A class that is not listed is answered like its base class.
KINDS: dict[type[Exception], ProblemKind] = {
    errors.NotFound: ProblemKind(HTTPStatus.NOT_FOUND, "not-found", "There is no such thing"),
    errors.NothingPromoted: ProblemKind(
        HTTPStatus.NOT_FOUND, "nothing-promoted", "No model was promoted to this stage"
    ),
    errors.Conflict: CONFLICT,
    errors.PrefixCollision: ProblemKind(
        HTTPStatus.CONFLICT, "prefix-collision", "Another commit has this prefix"
    ),
    errors.ConfigDiffers: ProblemKind(
        HTTPStatus.CONFLICT, "config-differs", "The prefix was built with another configuration"
    ),
    errors.BuildEnded: ProblemKind(HTTPStatus.CONFLICT, "build-ended", "The build has ended already"),
    errors.RetryRefused: ProblemKind(HTTPStatus.CONFLICT, "retry-refused", "The build cannot be retried"),
    errors.NotReproducible: ProblemKind(
        HTTPStatus.CONFLICT, "not-reproducible", "The model cannot be made again exactly"
    ),
    errors.GateRefused: ProblemKind(HTTPStatus.CONFLICT, "gate-refused", "A promotion gate is closed"),
    errors.RunActive: ProblemKind(HTTPStatus.CONFLICT, "run-active", "Another run of this kind is under way"),
    errors.StageChanged: ProblemKind(HTTPStatus.CONFLICT, "stage-changed", "The stage runs another model"),
    errors.NothingToRollBackTo: ProblemKind(
        HTTPStatus.CONFLICT, "nothing-to-roll-back-to", "The stage has no such earlier model"
    ),
    errors.NotKept: MARKED,
    errors.ModelMarked: MARKED,
    errors.ModelCollected: ProblemKind(HTTPStatus.GONE, "model-collected", "The model was collected"),
    errors.PrefixCollected: ProblemKind(
        HTTPStatus.CONFLICT, "prefix-collected", "The model of this prefix was collected"
    ),
    # No endpoint marks models. The worker does, and its run says what was refused.
    errors.CollectionRefused: CONFLICT,
    errors.CollectionOff: ProblemKind(HTTPStatus.CONFLICT, "collection-off", "Garbage collection is off"),
    errors.PlanChanged: ProblemKind(
        HTTPStatus.CONFLICT, "plan-changed", "The plan of garbage collection has changed"
    ),
    errors.CollectionTooLarge: ProblemKind(
        HTTPStatus.CONFLICT, "collection-too-large", "The run would delete too many models"
    ),
    errors.NotAStray: ProblemKind(
        HTTPStatus.CONFLICT, "not-a-stray", "The registry knows or may still need this prefix"
    ),
    errors.ArtifactsMissing: ProblemKind(
        HTTPStatus.SERVICE_UNAVAILABLE, "artifacts-missing", "Files of the model are missing", 60
    ),
    errors.BucketUnavailable: ProblemKind(
        HTTPStatus.SERVICE_UNAVAILABLE, "bucket-unavailable", "S3 cannot be asked", 5
    ),
    errors.TokenNameTaken: ProblemKind(
        HTTPStatus.CONFLICT, "token-name-taken", "Another token has this name"
    ),
    errors.TokensUnavailable: UNAVAILABLE,
    errors.Invalid: ProblemKind(
        HTTPStatus.UNPROCESSABLE_ENTITY, "invalid-request", "The content of the request is not valid"
    ),
    errors.InvalidConfig: ProblemKind(
        HTTPStatus.UNPROCESSABLE_ENTITY, "invalid-search-config", "The search configuration is not valid"
    ),
    errors.InvalidThresholds: ProblemKind(
        HTTPStatus.UNPROCESSABLE_ENTITY, "invalid-thresholds", "The thresholds are not valid"
    ),
    errors.Unauthorized: ProblemKind(HTTPStatus.UNAUTHORIZED, "unauthorized", "This call needs a token"),
    errors.IdentityRefused: ProblemKind(
        HTTPStatus.UNAUTHORIZED, "identity-refused", "The identity token is not accepted"
    ),
    errors.IdentityUnavailable: ProblemKind(
        HTTPStatus.SERVICE_UNAVAILABLE, "identity-unavailable", "The keys of the issuer cannot be fetched", 10
    ),
    errors.SignInOff: ProblemKind(HTTPStatus.CONFLICT, "sign-in-off", "No workflow can sign in here"),
    errors.Forbidden: ProblemKind(HTTPStatus.FORBIDDEN, "forbidden", "The caller may not do this"),
    OperationalError: UNAVAILABLE,
    PoolTimeout: UNAVAILABLE,
    CloudError: ProblemKind(HTTPStatus.BAD_GATEWAY, "cloud-error", "AWS refused or did not answer"),
}

# The errors that the framework and the server answer with by themselves, by status.
OF_STATUS: dict[int, ProblemKind] = {
    kind.status: kind
    for kind in (
        ProblemKind(HTTPStatus.BAD_REQUEST, "bad-request", "The request cannot be read"),
        ProblemKind(HTTPStatus.NOT_FOUND, "path-not-found", "The API has no such path"),
        ProblemKind(
            HTTPStatus.METHOD_NOT_ALLOWED, "method-not-allowed", "The path does not take this method"
        ),
        ProblemKind(HTTPStatus.REQUEST_TIMEOUT, "request-timeout", "The request did not arrive in time"),
        ProblemKind(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "body-too-large", "The body is too large"),
        ProblemKind(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", "The body is not plain JSON"
        ),
        ProblemKind(
            HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "headers-too-large", "The headers are too large"
        ),
        INTERNAL,
    )
}


def kind_of(error: type[Exception]) -> ProblemKind:
    return next((KINDS[base] for base in error.__mro__ if base in KINDS), INTERNAL)


def all_kinds() -> set[ProblemKind]:
    """Every kind of problem that the API can answer with."""
    return {*KINDS.values(), *OF_STATUS.values()}


class Problem(BaseModel):
    """An error: a stable `type`, and a `detail` that says what is wrong and what to do next."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(description="Stable. Programs branch on this.", examples=["/problems/not-found"])
    title: str = Field(examples=["There is no such thing"])
    status: int = Field(examples=[404])
    detail: str = Field(examples=["There is no model 0.0.2-aff1242. GET /models lists the models."])


# What every endpoint can raise: any caller can lack a token or a scope, send a parameter that is wrong, meet
# a database that is away, or find a defect. The last is not in the table, so it counts as an internal error.
_ALWAYS = (errors.Unauthorized, errors.Forbidden, errors.Invalid, OperationalError, Exception)

# What the reading of a body can end with, whatever the endpoint is.
_OF_BODIES = (
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
)


def problems(*raised: type[Exception]) -> dict[int | str, dict[str, Any]]:
    """The `responses` of an endpoint that can raise these, in addition to what every endpoint can raise."""
    return _responses(kind_of(error) for error in (*raised, *_ALWAYS))


def _responses(kinds: Iterable[ProblemKind]) -> dict[int | str, dict[str, Any]]:
    by_status: dict[int, list[ProblemKind]] = {}
    for kind in dict.fromkeys(kinds):
        by_status.setdefault(kind.status, []).append(kind)
    return {
        status: {
            "description": "; ".join(f"{kind.title} (`/problems/{kind.type}`)" for kind in of_status),
            "content": {
                MEDIA_TYPE: {
                    "schema": {"$ref": "#/components/schemas/Problem"},
                    "examples": {kind.type: {"value": example_of(kind)} for kind in of_status},
                }
            },
        }
        for status, of_status in sorted(by_status.items())
    }


def example_of(kind: ProblemKind) -> dict[str, object]:
    """An answer of this kind, as the documentation shows it."""
    return _content(kind, *PROBLEMS[kind.type])


def _content(kind: ProblemKind, detail: str, facts: dict[str, Any]) -> dict[str, object]:
    return {
        "type": f"/problems/{kind.type}",
        "title": kind.title,
        "status": int(kind.status),
        "detail": detail,
        **facts,
    }


# Times end in Z here as in every other answer.
_AS_ELSEWHERE = {datetime: lambda at: at.isoformat().replace("+00:00", "Z")}


def respond(
    kind: ProblemKind, detail: str, headers: dict[str, str] | None = None, **facts: object
) -> JSONResponse:
    content = _content(
        kind, bounded.text(detail), jsonable_encoder(bounded.facts(facts), custom_encoder=_AS_ELSEWHERE)
    )
    if kind.retry_after_s is not None:
        headers = {"Retry-After": str(kind.retry_after_s), **(headers or {})}
    return JSONResponse(content, kind.status, headers=headers, media_type=MEDIA_TYPE)


def _problem(error: dict[str, Any]) -> dict[str, str]:
    where = ".".join(str(part) for part in error["loc"])
    # Pydantic keeps the reason why JSON is invalid beside its general message.
    reason = error["ctx"]["error"] if error["type"] == "json_invalid" else None
    message = f"is not readable JSON: {reason}" if reason else error["msg"].removeprefix("Value error, ")
    return {"where": where, "message": message}


def document(app: FastAPI) -> None:
    """Make the OpenAPI document describe the problems. FastAPI's own error bodies are never sent."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            whole = generate()
            schemas = whole["components"]["schemas"]
            schemas["Problem"] = Problem.model_json_schema()
            for unused in ("HTTPValidationError", "ValidationError"):
                schemas.pop(unused, None)
            for methods in whole["paths"].values():
                for operation in methods.values():
                    _complete(operation)
        return app.openapi_schema or {}

    app.openapi = openapi  # type: ignore[method-assign]


def _complete(operation: dict[str, Any]) -> None:
    """Add what follows for an operation from what it has: the problems of bodies, and the optional token."""
    for parameter in operation.get("parameters", ()):
        parameter["schema"] = _as_it_comes(parameter)
    responses = operation["responses"]
    if "requestBody" in operation:
        of_bodies = _responses(OF_STATUS[status] for status in _OF_BODIES)
        added = responses | {str(status): response for status, response in of_bodies.items()}
        operation["responses"] = dict(sorted(added.items()))
    if str(int(HTTPStatus.UNAUTHORIZED)) in responses:
        # Reading needs a token or not, as REGISTRY_ACCESS says. `{}` stands for no token.
        operation.setdefault("security", [{}, {"HTTPBearer": []}])


def _as_it_comes(parameter: dict[str, Any]) -> dict[str, Any]:
    """The schema of a parameter. One that may be left out is not a null: a URL or a header has none."""
    schema = dict(parameter["schema"])
    given = [each for each in schema.pop("anyOf", ()) if each != {"type": "null"}]
    for each in given:
        schema |= each
    if parameter["in"] == "header" and schema.get("type") == "array":
        # The lines of a header are one list, which a caller writes with commas.
        schema |= {"type": "string"}
        del schema["items"]
    return schema


def _methods(app: FastAPI) -> Callable[[str], set[str]]:
    """A function that gives all methods of a path. FastAPI names only those of one matching endpoint."""

    @lru_cache(maxsize=1)
    def patterns() -> list[tuple[re.Pattern[str], set[str]]]:
        # This is read when it is first needed, because the OpenAPI document is not made at the start.
        return [
            (re.compile(re.sub(r"\\{\w+\\}", "[^/]+", re.escape(path))), {method.upper() for method in of})
            for path, of in app.openapi()["paths"].items()
        ]

    def methods_of(path: str) -> set[str]:
        found = {method for pattern, of in patterns() if pattern.fullmatch(path) for method in of}
        # HEAD is answered wherever GET is.
        return found | {"HEAD"} if "GET" in found else found

    return methods_of


def install(app: FastAPI) -> None:
    document(app)
    methods_of = _methods(app)

    @app.exception_handler(RegistryError)
    def registry_error(request: Request, exc: RegistryError) -> JSONResponse:
        kind = kind_of(type(exc))
        if isinstance(exc, errors.Unauthorized | errors.Forbidden | errors.GateRefused):
            client = request.client.host if request.client else "unknown"
            _log.warning("refused %s %r from %s: %s", request.method, request.url.path, client, exc)
        headers = {"WWW-Authenticate": "Bearer"} if kind.status is HTTPStatus.UNAUTHORIZED else None
        return respond(kind, exc.message, headers, **exc.facts)

    @app.exception_handler(RequestValidationError)
    def invalid_request(_: Request, exc: RequestValidationError) -> JSONResponse:
        found = [_problem(error) for error in exc.errors()]
        detail = bounded.joined([f"{problem['where']}: {problem['message']}" for problem in found])
        return respond(kind_of(errors.Invalid), detail, problems=found)

    @app.exception_handler(HTTPException)
    def http_error(request: Request, exc: HTTPException) -> JSONResponse:
        detail, headers = exc.detail, dict(exc.headers or {})
        if exc.status_code == HTTPStatus.NOT_FOUND:
            detail = f"The API has no path {request.url.path}. GET /docs lists what it has."
        elif exc.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            allowed = methods_of(request.url.path)
            headers["Allow"] = ", ".join(sorted(allowed)) or headers.get("Allow", "GET")
            detail = f"{request.url.path} takes only {headers['Allow']}. See GET /docs."
        return respond(OF_STATUS[exc.status_code], detail, headers)

    @app.exception_handler(OperationalError)
    @app.exception_handler(PoolTimeout)
    def no_database(_: Request, exc: Exception) -> JSONResponse:
        _log.error("database unavailable", exc_info=exc)
        # A commit whose answer was lost may have happened, but every write can be repeated.
        detail = "The database did not answer. Send the request again; repeating it does no harm."
        return respond(UNAVAILABLE, detail)

    @app.exception_handler(CloudError)
    def no_cloud(_: Request, exc: CloudError) -> JSONResponse:
        _log.error("AWS failed", exc_info=exc)
        return respond(kind_of(CloudError), str(exc))

    @app.exception_handler(Exception)
    def unexpected(request: Request, exc: Exception) -> JSONResponse:
        _log.error("unexpected error at %s %s", request.method, request.url.path, exc_info=exc)
        detail = "This is a defect of the registry; its log has the details. Nothing was changed."
        return respond(INTERNAL, detail)
