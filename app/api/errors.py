"""Every error as `application/problem+json` (RFC 9457), written in one place."""

import logging
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException

from app.api import examples
from app.aws import CloudError
from app.registry.errors import Invalid, RegistryError

MEDIA_TYPE = "application/problem+json"
_log = logging.getLogger(__name__)


class Problem(BaseModel):
    """An error: a stable `type`, what is wrong, with the values, and what to do next."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(description="stable; branch on this", examples=["/problems/not-found"])
    title: str = Field(examples=["There is no such thing"])
    status: int = Field(examples=[404])
    detail: str = Field(examples=["There is no model 0.0.2-aff1242. GET /models lists them."])


class DatabaseUnavailable(RegistryError):
    """The database is not available."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    type = "database-unavailable"


class CloudTrouble(RegistryError):
    """AWS refused or did not answer."""

    status = HTTPStatus.BAD_GATEWAY
    type = "cloud-error"


def problems(*kinds: type[RegistryError]) -> dict[int | str, dict[str, Any]]:
    """The `responses` of an endpoint that can raise these, besides what every one can."""
    by_status: dict[int, list[type[RegistryError]]] = {}
    everywhere: tuple[type[RegistryError], ...] = (Invalid, DatabaseUnavailable)
    for kind in dict.fromkeys(kinds + everywhere):
        by_status.setdefault(kind.status, []).append(kind)
    return {
        status: {
            "description": "; ".join(f"{kind.title()} (`/problems/{kind.type}`)" for kind in of_status),
            "content": {
                MEDIA_TYPE: {
                    "schema": {"$ref": "#/components/schemas/Problem"},
                    "examples": {kind.type: {"value": _example(kind)} for kind in of_status},
                }
            },
        }
        for status, of_status in sorted(by_status.items())
    }


def _example(kind: type[RegistryError]) -> dict[str, object]:
    detail, facts = examples.PROBLEMS[kind.type]
    return _content(kind.status, kind.type, kind.title(), detail, facts)


def _content(status: int, type_: str, title: str, detail: str, facts: dict[str, Any]) -> dict[str, object]:
    return {"type": f"/problems/{type_}", "title": title, "status": int(status), "detail": detail, **facts}


def respond(
    status: int, type_: str, title: str, detail: str, headers: dict[str, str] | None = None, **facts: object
) -> JSONResponse:
    content = _content(status, type_, title, detail, facts)
    return JSONResponse(content, status, headers=headers, media_type=MEDIA_TYPE)


def document(app: FastAPI) -> None:
    """Have the OpenAPI document describe the problems: FastAPI's own error bodies are never sent."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schemas = generate()["components"]["schemas"]
            schemas["Problem"] = Problem.model_json_schema()
            for unused in ("HTTPValidationError", "ValidationError"):
                schemas.pop(unused, None)
        return app.openapi_schema or {}

    app.openapi = openapi  # type: ignore[method-assign]


def install(app: FastAPI) -> None:
    document(app)

    @app.exception_handler(RegistryError)
    def registry_error(_: Request, exc: RegistryError) -> JSONResponse:
        headers = {"WWW-Authenticate": "Bearer"} if exc.status is HTTPStatus.UNAUTHORIZED else None
        return respond(exc.status, exc.type, exc.title(), exc.detail, headers, **exc.facts)

    @app.exception_handler(RequestValidationError)
    def invalid_request(request: Request, exc: RequestValidationError) -> JSONResponse:
        found = [
            {"where": ".".join(str(part) for part in error["loc"]), "message": error["msg"]}
            for error in exc.errors()
        ]
        detail = "; ".join(f"{problem['where']}: {problem['message']}" for problem in found)
        if request.method != "GET" and "json" not in request.headers.get("Content-Type", ""):
            # What curl sends unless told otherwise is taken for a form.
            detail += ". Send JSON, and the header `Content-Type: application/json`."
        return respond(422, "invalid-request", "The request's content is not valid", detail, problems=found)

    @app.exception_handler(HTTPException)
    def http_error(request: Request, exc: HTTPException) -> JSONResponse:
        detail = exc.detail
        if exc.status_code == HTTPStatus.NOT_FOUND:
            detail = f"There is no {request.url.path}. GET /docs shows what there is."
        elif exc.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            allowed = (exc.headers or {}).get("Allow", "other methods")
            detail = f"{request.url.path} does not take {request.method}, but {allowed}. See GET /docs."
        phrase = HTTPStatus(exc.status_code).phrase
        type_ = phrase.lower().replace(" ", "-")
        return respond(exc.status_code, type_, phrase, detail, dict(exc.headers or {}))

    @app.exception_handler(OperationalError)
    @app.exception_handler(PoolTimeout)
    def no_database(_: Request, exc: Exception) -> JSONResponse:
        _log.error("database unavailable", exc_info=exc)
        kind = DatabaseUnavailable
        # A commit whose answer was lost may have happened: but every write can be repeated.
        detail = "The database did not answer. Send the request again: repeating it does no harm."
        return respond(kind.status, kind.type, kind.title(), detail, {"Retry-After": "5"})

    @app.exception_handler(CloudError)
    def no_cloud(_: Request, exc: CloudError) -> JSONResponse:
        _log.error("AWS failed", exc_info=exc)
        return respond(CloudTrouble.status, CloudTrouble.type, CloudTrouble.title(), str(exc))

    @app.exception_handler(Exception)
    def unexpected(request: Request, exc: Exception) -> JSONResponse:
        _log.error("unexpected error at %s %s", request.method, request.url.path, exc_info=exc)
        detail = "This is a defect of the registry; its log has the details. Nothing was changed."
        return respond(500, "internal-error", "Unexpected error", detail)
