"""Inputs: everything that a model is made from. One row for each content, and one for each use by a build."""

from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app.db.tables import BuildInput, Input
from app.registry.builds.lease import Lease, fence
from app.registry.public import public_uri
from app.words import InputKind


@dataclass(frozen=True)
class InputRecord:
    """A build's use of an input. One without a sha256 is identified by its origin.

    `origin` is where it came from, as a URI.
    """

    kind: InputKind
    name: str
    sha256: str | None = None
    size_bytes: int | None = None
    origin: str | None = None


def record(session: Session, lease: Lease, used: Iterable[InputRecord]) -> None:
    """Record the inputs of the model. Recording them again changes nothing. Raises LeaseLost.

    Call it before the content is put into the bucket, so that the database knows everything that is there.
    """
    fence(session, lease)
    for item in used:
        if item.sha256 is not None:
            session.execute(
                insert(Input)
                .values(sha256=item.sha256, size_bytes=item.size_bytes)
                .on_conflict_do_update(
                    index_elements=["sha256"],
                    set_={"size_bytes": func.coalesce(Input.size_bytes, item.size_bytes)},
                )
            )
        origin = None if item.origin is None else public_uri(item.origin)
        values = {"sha256": item.sha256, "origin": origin}
        session.execute(
            insert(BuildInput)
            .values(build_id=lease.build_id, kind=item.kind, name=item.name, **values)
            .on_conflict_do_update(index_elements=["build_id", "kind", "name"], set_=values)
        )


def stored(session: Session, lease: Lease, sha256: str) -> None:
    """Record that the bucket holds the input's content. Raises LeaseLost."""
    fence(session, lease)
    session.execute(
        update(Input)
        .where(Input.sha256 == sha256, Input.stored_at.is_(None))
        .values(stored_at=func.clock_timestamp())
    )


def of_build(session: Session, build_id: UUID) -> list[InputRecord]:
    """Every input that the build has used so far."""
    rows = session.execute(
        select(BuildInput, Input.size_bytes)
        .outerjoin(Input, Input.sha256 == BuildInput.sha256)
        .where(BuildInput.build_id == build_id)
        .order_by(BuildInput.kind, BuildInput.name)
    )
    return [
        InputRecord(InputKind(row.kind), row.name, row.sha256, size_bytes, row.origin)
        for row, size_bytes in rows
    ]
