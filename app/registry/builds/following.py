"""What has happened to a build since a reader last looked: its events and its log, in one order."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self
from uuid import UUID

from sqlalchemy import String, and_, func, select
from sqlalchemy.orm import Session

from app.db.tables import Build, BuildEvent, BuildLogChunk, BuildStep
from app.registry.builds import log
from app.registry.builds.listing import not_found
from app.registry.errors import Invalid
from app.words import BuildState, EventType, known

_EVENTS = 500
_LOG_BYTES = 128 << 10

_POSITION = re.compile(r"(\d{1,18}):(\d{1,18})")


@dataclass(frozen=True)
class Position:
    """How far a reader has got: the last event, and the bytes of the log. The start is 0:0."""

    event: int = 0
    log: int = 0

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises Invalid."""
        found = _POSITION.fullmatch(text)
        if found is None:
            message = (
                f"Last-Event-ID is {text[:100]!r}, which is not the id of an event. Send the id of the "
                "last event that arrived, such as 57:4096, or leave the header out to read from the start."
            )
            raise Invalid(message)
        return cls(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        return f"{self.event}:{self.log}"


@dataclass(frozen=True)
class Item:
    """An event of the build or a piece of its log, and the position after it."""

    after: Position
    type: str
    at: datetime
    data: Mapping[str, Any]


@dataclass(frozen=True)
class News:
    """What follows a position. `more` means that there is more than one answer holds."""

    items: tuple[Item, ...]
    after: Position
    more: bool
    ended: bool
    progress: dict[str, Any] | None


def news(session: Session, build_id: UUID, since: Position) -> News:
    """The next events and log lines after the position, in the order in which they were written.

    The cost depends on how much the answer holds, not on how long the build's log is.
    Raises NotFound, and Invalid for a position that the build has never had.
    """
    # The order of these queries matters: what an ended build has written was all there when it ended, so
    # whatever is read after its state is complete.
    build = session.execute(
        select(Build.finished_at, Build.progress).where(Build.id == build_id)
    ).one_or_none()
    if build is None:
        raise not_found(build_id)
    events = _events(session, build_id, since.event)
    size = log.size_of(session, build_id)
    if since.log > size:
        message = (
            f"Last-Event-ID names byte {since.log} of the log, which has {size} bytes. "
            "Send the id of an event of this build, or leave the header out to read from the start."
        )
        raise Invalid(message)
    chunks = _chunks(session, build_id, since.log)
    more_events, more_log = len(events) > _EVENTS, bool(chunks) and chunks[-1][1] < size
    items = tuple(_merged(events[:_EVENTS], chunks, since, more_events=more_events, more_log=more_log))
    after = items[-1].after if items else since
    more = more_events or after.log < size or any(event.after.event > after.event for event in events)
    return News(items, after, more, build.finished_at is not None, build.progress)


def _events(session: Session, build_id: UUID, after: int) -> list[Item]:
    rows = session.execute(
        select(BuildEvent, BuildStep)
        .outerjoin(
            BuildStep,
            and_(
                BuildStep.build_id == BuildEvent.build_id,
                BuildEvent.type == EventType.STEP_SUCCEEDED,
                BuildStep.name == BuildEvent.data["step"].astext.cast(String),
            ),
        )
        .where(BuildEvent.build_id == build_id, BuildEvent.id > after)
        .order_by(BuildEvent.id)
        .limit(_EVENTS + 1)
    )
    found = []
    for event, step in rows:
        data = dict(event.data)
        if step is not None:
            data |= {"output": step.output or {}, "seconds": _seconds(step)}
        found.append(Item(Position(event.id), event.type, event.at, data))
    return found


def _seconds(step: BuildStep) -> float | None:
    return None if step.finished_at is None else (step.finished_at - step.started_at).total_seconds()


def _chunks(session: Session, build_id: UUID, offset: int) -> list[tuple[datetime, int, str]]:
    """Pieces of the log from the offset on: when each was written, the byte after it, and its text."""
    first = (
        select(func.coalesce(func.max(BuildLogChunk.start), 0))
        .where(BuildLogChunk.build_id == build_id, BuildLogChunk.start <= offset)
        .scalar_subquery()
    )
    rows = session.execute(
        select(BuildLogChunk.start, BuildLogChunk.written_at, BuildLogChunk.content)
        .where(
            BuildLogChunk.build_id == build_id,
            BuildLogChunk.start >= first,
            BuildLogChunk.start < offset + _LOG_BYTES,
        )
        .order_by(BuildLogChunk.start)
    )
    found, left = [], _LOG_BYTES
    for start, written_at, content in rows:
        text = content.encode()[max(0, offset - start) :]
        part = log.whole_characters(bytearray(text), left)
        if part:
            begins = max(start, offset)
            found.append((written_at, begins + len(part), part.decode(errors="replace")))
        left -= len(part)
        if len(part) < len(text) or left < 4:
            break
    return found


def _merged(
    events: list[Item],
    chunks: list[tuple[datetime, int, str]],
    since: Position,
    *,
    more_events: bool,
    more_log: bool,
) -> Iterator[Item]:
    """Both in the order of their times, which the lock on the build's row has put into the same order.

    What follows something that was not read yet waits for the next answer. A state that ends the build comes
    after its whole log, so it is the last item of all.
    """
    at, events, chunks = since, list(events), list(chunks)
    while events or chunks:
        if (not events and more_events) or (not chunks and more_log):
            return
        if events and (not chunks or (events[0].at <= chunks[0][0] and not _is_end(events[0]))):
            event = events.pop(0)
            at = Position(event.after.event, at.log)
            yield Item(at, event.type, event.at, event.data)
        else:
            written_at, end, text = chunks.pop(0)
            at = Position(at.event, end)
            yield Item(at, LOG, written_at, {"text": text})


LOG = "log"
PROGRESS = "progress"


def _is_end(event: Item) -> bool:
    state = known(BuildState, str(event.data.get("state")))
    return event.type == EventType.STATE and state is not None and not state.active
