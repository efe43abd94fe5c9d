"""A build's events and log as a stream, for readers who follow it live."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Header, Path, Request, Response
from fastapi.responses import StreamingResponse
from starlette.types import Send

from app.api.builds.following import Following
from app.api.common import examples
from app.api.common.errors import problems
from app.api.common.strict import StrictRoute
from app.registry.builds.following import LOG, PROGRESS, Position
from app.registry.errors import NotFound
from app.words import EventType

router = APIRouter(tags=["builds"], route_class=StrictRoute)


class EventStream(StreamingResponse):
    """Ends what it sends together with the connection, so that nothing is kept for a reader who has gone."""

    def __init__(self, sent: AsyncGenerator[bytes]) -> None:
        # A proxy must pass each event on at once.
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(sent, media_type="text/event-stream", headers=headers)
        self._sent = sent

    async def stream_response(self, send: Send) -> None:
        async with aclosing(self._sent):
            await super().stream_response(send)


# One event of the stream, as OpenAPI 3.2 describes it.
_EVENT = {
    "type": "object",
    "properties": {
        "event": {"type": "string", "enum": [*EventType, LOG, PROGRESS]},
        "data": {"type": "string", "contentMediaType": "application/json"},
        "id": {"type": "string", "pattern": "^[0-9]+:[0-9]+$"},
        "retry": {"type": "integer"},
    },
}


async def get_following(request: Request) -> Following:
    following: Following = request.app.state.following
    return following


@router.get(
    "/builds/{id}/events",
    operation_id="builds:events",
    summary="Follow a build live",
    response_class=Response,
    responses={
        200: {
            "description": "Server-sent events, until the build has ended",
            "content": {"text/event-stream": {"itemSchema": _EVENT, "example": examples.EVENTS}},
        },
        204: {"description": "The build has ended, and nothing follows `Last-Event-ID`"},
        **problems(NotFound),
    },
)
async def events(
    id: Annotated[UUID, Path(description="The build's id.")],  # noqa: A002 - the contract's name
    following: Annotated[Following, Depends(get_following)],
    last_event_id: Annotated[
        str | None,
        Header(description="The id of the last event that arrived. The stream goes on after it."),
    ] = None,
) -> Response:
    """The build's events, the lines of its log and its progress, as server-sent events.

    The data of each is a JSON object. `state`, `step_started`, `step_succeeded`, `step_failed`, `note` and
    others are what happened. `log` has the next `text` of the log, and `progress` is that of the running job.
    An id has the form `event:offset`, where the offset is a byte of the log. With `Last-Event-ID`, a stream
    goes on exactly after it. The last event is the `state` in which the build has ended. If a stream ends
    without it, ask again.
    """
    since = Position() if last_event_id is None else Position.parse(last_event_id)
    first = await following.first(id, since)
    if first.ended and not first.body and not first.more:
        return Response(status_code=204)
    return EventStream(following.follow(id, since))
