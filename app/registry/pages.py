"""Keyset pagination: newest first, by time and id."""

import base64
import binascii
from dataclasses import dataclass
from datetime import datetime
from string import ascii_lowercase, ascii_uppercase
from typing import Any, Generic, Self, TypeVar
from uuid import UUID

from sqlalchemy import Select, func, or_, select, tuple_
from sqlalchemy.orm import InstrumentedAttribute, Session

from app.registry.errors import Invalid


@dataclass(frozen=True)
class Cursor:
    """The position after the last item of a page. Rows have either UUIDs or numbers as their ids.

    `of` is the digest of a list that is computed for each request, and may be another one for the next page.
    """

    at: datetime
    id: UUID | int
    of: str | None = None

    def __str__(self) -> str:
        parts = (self.at.isoformat(), str(self.id), *(() if self.of is None else (self.of,)))
        return base64.urlsafe_b64encode(" ".join(parts).encode()).decode().rstrip("=")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises Invalid for a text that did not come from a page of this registry."""
        try:
            padded = text + "=" * (-len(text) % 4)
            at, id_, *more = base64.urlsafe_b64decode(padded.encode("ascii")).decode().split(" ", 2)
            of = more[0] if more else None
            cursor = cls(datetime.fromisoformat(at), int(id_) if id_.isdecimal() else UUID(id_), of)
        except (ValueError, binascii.Error) as exc:
            raise Invalid(_unknown(text)) from exc
        if cursor.at.tzinfo is None:
            raise Invalid(_unknown(text))
        return cursor

    def check(self, kind: type[UUID] | type[int]) -> None:
        """Raises Invalid for the cursor of a list whose rows have another kind of ids."""
        if not isinstance(self.id, kind):
            raise Invalid(_unknown(str(self)))


def _unknown(text: str) -> str:
    return f"{text!r} is not a cursor of this registry. Pass the `next` of the previous page, unchanged."


Item = TypeVar("Item")


# Only these letters, because the database lowers texts by the rules of the collation "C", which are the
# fastest ones, and the same everywhere.
_TO_LOWER = str.maketrans(ascii_uppercase, ascii_lowercase)


@dataclass(frozen=True)
class Search:
    """Filters that every list has.

    `text` is a part of one of the list's texts. The case of the letters A to Z does not matter.
    """

    text: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def narrow(
        self,
        query: Select[Item],
        at: InstrumentedAttribute[datetime],
        *texts: InstrumentedAttribute[str] | InstrumentedAttribute[str | None],
    ) -> Select[Item]:
        """Only rows from `since` on and before `until`, with the text in one of these columns."""
        if self.since is not None:
            query = query.where(at >= self.since)
        if self.until is not None:
            query = query.where(at < self.until)
        if self.text is not None:
            wanted = self.text.translate(_TO_LOWER)
            lowered = [func.lower(column.collate("C")) for column in texts]
            query = query.where(or_(*(text.contains(wanted, autoescape=True) for text in lowered)))
        return query


EVERYTHING = Search()


@dataclass(frozen=True)
class Page(Generic[Item]):
    """Up to `limit` items, and the cursor of the next page if there is one."""

    items: list[Item]
    next: Cursor | None

    @property
    def next_cursor(self) -> str | None:
        """The cursor of the next page as answers show it."""
        return None if self.next is None else str(self.next)


def paginate(
    session: Session,
    query: Select[Item],
    at: InstrumentedAttribute[Any],
    id_: InstrumentedAttribute[Any],
    *,
    limit: int,
    cursor: Cursor | None,
    by_text: bool = False,
) -> Page[Item]:
    """One page of the query, newest first. With an index on (at, id), it reads only the rows of the page.

    `by_text` says that the query searches for a text, so that many rows must be looked at. Then the ids of
    the page are found first, with an index that holds the texts, and only the rows of the page are read.

    Raises Invalid for the cursor of another list.
    """
    if cursor is not None:
        cursor.check(id_.type.python_type)
        query = query.where(tuple_(at, id_) < (cursor.at, cursor.id))
    # One row more than was asked for shows whether there is a next page.
    newest, length = (at.desc(), id_.desc()), limit + 1
    if by_text and query.whereclause is not None:
        ids = select(id_).where(query.whereclause).order_by(*newest).limit(length).correlate(None)
        query = query.where(id_.in_(ids))
    rows = list(session.scalars(query.order_by(*newest).limit(length)))
    items = rows[:limit]
    more = len(rows) > limit
    return Page(items, Cursor(getattr(items[-1], at.key), getattr(items[-1], id_.key)) if more else None)
