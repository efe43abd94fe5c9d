"""Which inputs the bucket should keep, and what a reconciliation remembers of them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Select, and_, func, literal, select, update
from sqlalchemy.orm import Session

from app.db.tables import Input
from app.storage import keys

# The inputs whose content a build has put into the bucket, and that no collection deletes or has deleted.
KEPT: ColumnElement[bool] = and_(Input.stored_at.is_not(None), Input.sweeping_at.is_(None))


@dataclass(frozen=True)
class RecordedInput:
    """What the database says about the content of an input.

    `kept` is whether the bucket should hold it. `verified_etag` is the ETag that its object had when its
    content was last compared with the digest.
    """

    sha256: str
    size_bytes: int | None
    kept: bool
    verified_etag: str | None

    @property
    def key(self) -> str:
        return keys.input_key(self.sha256)


def in_range(session: Session, after: str, upto: str | None) -> list[RecordedInput]:
    """The inputs with after < key <= upto, in the order in which S3 lists keys."""
    key = literal(keys.INPUTS).concat(Input.sha256).collate("C")
    query = _recorded().where(key > after).order_by(key)
    return _read(session, query if upto is None else query.where(key <= upto))


def of_content(session: Session, digests: Iterable[str]) -> dict[str, RecordedInput]:
    """These inputs, by their sha256."""
    return {one.sha256: one for one in _read(session, _recorded().where(Input.sha256.in_(list(digests))))}


def count(session: Session) -> int:
    return session.scalar(select(func.count()).select_from(Input).where(KEPT)) or 0


def _recorded() -> Select[str, int | None, bool, str | None]:
    return select(Input.sha256, Input.size_bytes, KEPT.label("kept"), Input.verified_etag)


def _read(session: Session, query: Select[str, int | None, bool, str | None]) -> list[RecordedInput]:
    return [RecordedInput(*row) for row in session.execute(query)]


def remember(
    session: Session, *, missing: Iterable[str], present: Iterable[str], verified: Mapping[str, str]
) -> None:
    """Record of which inputs the bucket does not hold the content, and of which it does again.

    All are given by their sha256, and `verified` with the ETags of objects whose content was compared.
    """
    session.execute(
        update(Input)
        .where(Input.sha256.in_(list(missing)), Input.missing_since.is_(None))
        .values(missing_since=func.clock_timestamp())
    )
    session.execute(
        update(Input)
        .where(Input.sha256.in_(list(present)), Input.missing_since.is_not(None))
        .values(missing_since=None)
    )
    for sha256, etag in verified.items():
        session.execute(update(Input).where(Input.sha256 == sha256).values(verified_etag=etag))
