"""The inputs of builds: what shapes their models."""

from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app.db.tables import BuildInput
from app.registry.builds.lease import Lease, fence
from app.words import InputKind


@dataclass(frozen=True)
class InputRecord:
    """An input of a build. One without a sha256 is identified by its origin."""

    kind: InputKind
    name: str
    sha256: str | None = None
    size_bytes: int | None = None
    origin: str | None = None


def record(session: Session, lease: Lease, inputs: Iterable[InputRecord]) -> None:
    """Record what shapes the model. Recording the same again changes nothing. Raises LeaseLost."""
    fence(session, lease)
    for item in inputs:
        values = {
            "sha256": item.sha256,
            "size_bytes": item.size_bytes,
            "origin": item.origin,
        }
        session.execute(
            insert(BuildInput)
            .values(build_id=lease.build_id, kind=item.kind, name=item.name, **values)
            .on_conflict_do_update(index_elements=["build_id", "kind", "name"], set_=values)
        )


def of_build(session: Session, build_id: UUID) -> list[InputRecord]:
    rows = session.scalars(
        select(BuildInput).where(BuildInput.build_id == build_id).order_by(BuildInput.kind, BuildInput.name)
    )
    return [
        InputRecord(InputKind(row.kind), row.name, row.sha256, row.size_bytes, row.origin) for row in rows
    ]
