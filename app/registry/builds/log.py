"""A build's log. It is stored in chunks, written under the lease, and read by byte offset."""

from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.db.storable import text_of
from app.db.tables import BuildLogChunk
from app.registry.builds import events
from app.registry.builds.lease import Lease, fence
from app.registry.public import public_text

_PIECE_BYTES = 64 << 10


def append(session: Session, lease: Lease, content: str) -> None:
    """Raises LeaseLost."""
    if not content:
        return
    fence(session, lease)
    # This comes before the size is computed, because some characters are replaced by longer ones.
    content = public_text(text_of(content))
    start, text = size_of(session, lease.build_id), content.encode()
    # A reader who wants a part of the log must not have to read much more than that part.
    while text:
        piece = whole_characters(bytearray(text), _PIECE_BYTES)
        session.add(
            BuildLogChunk(build_id=lease.build_id, start=start, size_bytes=len(piece), content=piece.decode())
        )
        start, text = start + len(piece), text[len(piece) :]
    session.flush()
    events.notify(session, lease.build_id)


def read(session: Session, build_id: UUID, offset: int, limit_bytes: int) -> tuple[bytes, int]:
    """Up to `limit_bytes` (at least 4) of the log in UTF-8 from byte `offset` on, and the whole log's size.

    The text never ends in the middle of a character. The cost depends on the limit, not on the log's size.
    """
    # The primary key alone finds the chunk that contains the offset and those that begin within the limit.
    first = (
        select(func.coalesce(func.max(BuildLogChunk.start), 0))
        .where(BuildLogChunk.build_id == build_id, BuildLogChunk.start <= offset)
        .scalar_subquery()
    )
    rows = session.execute(
        select(BuildLogChunk.start, BuildLogChunk.content)
        .where(
            BuildLogChunk.build_id == build_id,
            BuildLogChunk.start >= first,
            BuildLogChunk.start < offset + limit_bytes,
        )
        .order_by(BuildLogChunk.start)
    )
    found = bytearray()
    for start, content in rows:
        found += content.encode()[max(0, offset - start) :]
    # The size is read after the rows, so that it is never smaller than what they contain.
    return whole_characters(found, limit_bytes), size_of(session, build_id)


def size_of(session: Session, build_id: UUID) -> int:
    """The size of the log so far, in bytes."""
    end = session.scalar(
        select(BuildLogChunk.start + BuildLogChunk.size_bytes)
        .where(BuildLogChunk.build_id == build_id)
        .order_by(BuildLogChunk.start.desc())
        .limit(1)
    )
    return end or 0


def whole_characters(text: bytearray, limit_bytes: int) -> bytes:
    """The first `limit_bytes` of the UTF-8 text, without a character that would be cut at the end."""
    end = min(limit_bytes, len(text))
    # A byte of the form 10xxxxxx continues the character of the bytes before it.
    while 0 < end < len(text) and text[end] & 0xC0 == 0x80:
        end -= 1
    return bytes(text[:end])
