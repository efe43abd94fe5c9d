"""The pages behind the `type` of each problem: what it means, with an example of its answer."""

import json
from html import escape
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Path
from fastapi.responses import HTMLResponse

from app.api.common.errors import ProblemKind, all_kinds, example_of
from app.api.common.strict import PublicRoute
from app.registry.errors import NotFound

router = APIRouter(route_class=PublicRoute)

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>{title}</title></head>
<body>
<h1>{title}</h1>
<p>Problem type <code>/problems/{type}</code>, answered with the status {status} {phrase}.</p>
<p>{advice}</p>
<h2>An example of the answer</h2>
<pre>{example}</pre>
<p><a href="/problems">All problems</a> · <a href="/docs">The API</a></p>
</body>
</html>
"""
_INDEX = """<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>Problems</title></head>
<body>
<h1>The problems that this API answers with</h1>
<ul>
{items}
</ul>
</body>
</html>
"""


@router.get("/problems", include_in_schema=False)
async def index() -> HTMLResponse:
    items = [
        f'<li>{int(kind.status)} <a href="/problems/{kind.type}"><code>{kind.type}</code></a>: '
        f"{escape(kind.title)}</li>"
        for kind in sorted(all_kinds(), key=lambda kind: (kind.status, kind.type))
    ]
    return HTMLResponse(_INDEX.format(items="\n".join(items)))


@router.get("/problems/{name}", include_in_schema=False)
async def page(name: Annotated[str, Path()]) -> HTMLResponse:
    kind = next((kind for kind in all_kinds() if kind.type == name), None)
    if kind is None:
        message = f"There is no problem type {name!r}. GET /problems lists them."
        raise NotFound(message)
    example = json.dumps(example_of(kind), indent=2, ensure_ascii=False)
    return HTMLResponse(
        _PAGE.format(
            title=escape(kind.title),
            type=kind.type,
            status=int(kind.status),
            phrase=kind.status.phrase,
            advice=_advice(kind),
            example=escape(example),
        )
    )


def _advice(kind: ProblemKind) -> str:
    advice = "The <code>detail</code> of the answer says what is wrong and what to do next."
    if kind.retry_after_s is not None:
        return f"{advice} It helps to send the request again after {kind.retry_after_s} seconds."
    if kind.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return f"{advice} The cause lies with the registry or AWS, not with the request."
    return advice
