"""Inputs: everything that a model is made from. One row for each content, and one for each use by a build."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import func, null, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app.db.tables import BuildInput, Input, InputPart
from app.registry import late_deletes
from app.registry.builds.lease import Lease, fence
from app.registry.public import public_uri
from app.words import InputKind, known

# One statement has at most 65,535 parameters.
_PARTS_AT_ONCE = 5_000

# The inputs that say on what hardware a model was trained: what EC2 was asked for, and what was found there.
INSTANCE_TYPE = "instance type"
TRAINING_MACHINE = "training machine"

# What else is known of a use, by the names that docs/api.md lists.
Details = Mapping[str, str | int | bool | Mapping[str, int]]


@dataclass(frozen=True)
class InputRecord:
    """A build's use of an input. One without a sha256 is identified by its origin.

    `origin` is where it came from, as a URI. `details` is what else is known of this use.
    """

    kind: InputKind
    name: str
    sha256: str | None = None
    size_bytes: int | None = None
    origin: str | None = None
    details: Details = field(default_factory=dict)


@dataclass(frozen=True)
class Part:
    """A file that an input consists of, such as one inside an archive.

    `lines` counts the lines of a table that is text, with its header.
    """

    path: str
    sha256: str
    size_bytes: int
    lines: int | None = None


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
        values = {"sha256": item.sha256, "origin": origin, "details": dict(item.details) or None}
        session.execute(
            insert(BuildInput)
            .values(build_id=lease.build_id, kind=item.kind, name=item.name, **values)
            .on_conflict_do_update(index_elements=["build_id", "kind", "name"], set_=values)
        )


def claim(session: Session, lease: Lease, sha256: str) -> timedelta | None:
    """Claim the right to put the content into the bucket, in the transaction that has recorded its use.

    Returns None if the bucket may be written now, and otherwise how long to wait before the next try.

    Garbage collection deletes only what no active build uses, and decides that under the lock that this
    function holds. If it has decided before, the object that is there now is not to be trusted: this waits
    until no delete of it can arrive any more. Raises LeaseLost.
    """
    fence(session, lease)
    sweeping_at, at = session.execute(
        select(Input.sweeping_at, func.clock_timestamp()).where(Input.sha256 == sha256).with_for_update()
    ).one()
    values: dict[str, object] = {"upload_begun_at": func.clock_timestamp()}
    if sweeping_at is not None:
        over_at = sweeping_at + late_deletes.OVER_AFTER
        if at < over_at:
            wait: timedelta = over_at - at
            return wait
        values |= {"sweeping_at": null(), "collected_at": null()}
    session.execute(update(Input).where(Input.sha256 == sha256).values(**values))
    return None


def stored(session: Session, lease: Lease, sha256: str) -> None:
    """Record that the bucket holds the input's content. Raises LeaseLost."""
    fence(session, lease)
    session.execute(
        update(Input)
        .where(Input.sha256 == sha256, or_(Input.stored_at.is_(None), Input.missing_since.is_not(None)))
        .values(stored_at=func.coalesce(Input.stored_at, func.clock_timestamp()), missing_since=None)
    )


def add_details(session: Session, lease: Lease, kind: InputKind, name: str, details: Details) -> None:
    """Record more of a use that was recorded before. Raises LeaseLost."""
    fence(session, lease)
    used = session.get(BuildInput, (lease.build_id, kind, name))
    if used is not None:
        used.details = {**(used.details or {}), **details}


def describe(session: Session, lease: Lease, sha256: str, content: dict[str, Any]) -> None:
    """Record what a content that was recorded before consists of. Raises LeaseLost."""
    fence(session, lease)
    session.execute(
        update(Input).where(Input.sha256 == sha256, Input.content.is_(None)).values(content=content)
    )


def has_parts(session: Session, sha256: str) -> bool:
    """Whether somebody has looked at the files in this archive already."""
    query = select(Input.parts_recorded_at).where(Input.sha256 == sha256)
    return session.scalar(query) is not None


def record_parts(
    session: Session, lease: Lease, container: str, parts: Iterable[Part], problem: str | None = None
) -> None:
    """Record the files in an archive, or the problem for which they are not known. Raises LeaseLost.

    They follow from the archive's content, so they are recorded once. Recording them again changes nothing.
    """
    fence(session, lease)
    rows = [
        {
            "container": container,
            "path": part.path,
            "sha256": part.sha256,
            "size_bytes": part.size_bytes,
            "lines": part.lines,
        }
        for part in parts
    ]
    for start in range(0, len(rows), _PARTS_AT_ONCE):
        few = rows[start : start + _PARTS_AT_ONCE]
        session.execute(insert(InputPart).values(few).on_conflict_do_nothing())
    session.execute(
        update(Input)
        .where(Input.sha256 == container, Input.parts_recorded_at.is_(None))
        .values(parts_recorded_at=func.clock_timestamp(), parts_problem=problem)
    )


def kept_of_build(session: Session, build_id: UUID, kind: InputKind, name: str) -> InputRecord | None:
    """The input of the build that the bucket keeps, if it has used such a one before."""
    row = session.execute(
        select(BuildInput, Input.size_bytes)
        .join(Input, Input.sha256 == BuildInput.sha256)
        .where(BuildInput.build_id == build_id, BuildInput.kind == kind, BuildInput.name == name)
        .where(Input.stored_at.is_not(None), Input.missing_since.is_(None), Input.sweeping_at.is_(None))
    ).one_or_none()
    if row is None:
        return None
    used, size_bytes = row
    return InputRecord(kind, used.name, used.sha256, size_bytes, used.origin, used.details or {})


def of_build(session: Session, build_id: UUID) -> list[InputRecord]:
    """Every input that the build has used so far."""
    rows = session.execute(
        select(BuildInput, Input.size_bytes)
        .outerjoin(Input, Input.sha256 == BuildInput.sha256)
        .where(BuildInput.build_id == build_id)
        .order_by(BuildInput.kind, BuildInput.name)
    )
    return [
        InputRecord(kind, row.name, row.sha256, size_bytes, row.origin, row.details or {})
        for row, size_bytes in rows
        # A kind that only a newer release knows is left out, while both run side by side.
        if (kind := known(InputKind, row.kind)) is not None
    ]
