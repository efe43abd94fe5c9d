"""What a retry takes over from the builds that it repeats, as the database records it."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import literal, select
from sqlalchemy.orm import Session

from app.db.tables import Build, BuildStep
from app.registry import inputs
from app.registry.builds import events
from app.registry.builds.lease import Lease, fence
from app.registry.inputs import InputRecord
from app.words import EventType, StepName, StepState

# How many builds back a retry of a retry looks for something to take over.
_MOST_ANCESTORS = 20


@dataclass(frozen=True)
class Ancestor:
    """A build that was retried: the steps that it did, their outputs by name, and the inputs that it used."""

    build_id: UUID
    done: frozenset[str]
    outputs: Mapping[str, dict[str, Any]]
    inputs: tuple[InputRecord, ...]


def ancestors(session: Session, build_id: UUID) -> list[Ancestor]:
    """The build that this one retries, the one that that one retried, and so on."""
    ids = ancestor_ids(session, build_id)
    rows = session.scalars(
        select(BuildStep).where(BuildStep.build_id.in_(ids), BuildStep.state == StepState.SUCCEEDED)
    ).all()
    return [
        Ancestor(
            one,
            frozenset(row.name for row in rows if row.build_id == one),
            {row.name: row.output for row in rows if row.build_id == one and row.output is not None},
            tuple(inputs.of_build(session, one)),
        )
        for one in ids
    ]


def ancestor_ids(session: Session, build_id: UUID) -> list[UUID]:
    """The ids of these builds, nearest first."""
    chain = (
        select(Build.retry_of.label("id"), literal(1).label("distance"))
        .where(Build.id == build_id, Build.retry_of.is_not(None))
        .cte("chain", recursive=True)
    )
    chain = chain.union_all(
        select(Build.retry_of, chain.c.distance + 1)
        .join(chain, Build.id == chain.c.id)
        .where(Build.retry_of.is_not(None))
    )
    return list(session.scalars(select(chain.c.id).order_by(chain.c.distance).limit(_MOST_ANCESTORS)))


def take_over(
    session: Session,
    lease: Lease,
    source: UUID,
    names: Collection[StepName],
    output_of: Callable[[StepName, dict[str, Any] | None], dict[str, Any] | None],
) -> None:
    """Record that another build has done these steps already, and that its inputs are those of this build.

    `output_of` makes the output of a step from that of the other build. The steps keep the times at which
    they were done. Raises LeaseLost.
    """
    build = fence(session, lease)
    rows = session.scalars(select(BuildStep).where(BuildStep.build_id == source, BuildStep.name.in_(names)))
    found = {row.name: row for row in rows}
    for name in names:
        row = found[name]
        origin = row.taken_over_from or source
        session.add(
            BuildStep(
                build_id=build.id,
                name=name,
                state=StepState.SUCCEEDED,
                attempts=row.attempts,
                started_at=row.started_at,
                finished_at=row.finished_at,
                output=output_of(name, row.output),
                taken_over_from=origin,
            )
        )
        session.flush()
        told = {"step": name, "taken_over_from": str(origin)}
        events.add(session, build.id, EventType.STEP_SUCCEEDED, told)
    inputs.record(session, lease, inputs.of_build(session, source))


def made_by(session: Session, build_id: UUID) -> list[UUID]:
    """The builds whose logs tell how this build's files were made: the one that made them, first.

    The last one is the build itself.
    """
    origin = session.scalar(
        select(BuildStep.taken_over_from).where(
            BuildStep.build_id == build_id, BuildStep.name == StepName.COLLECT
        )
    )
    if origin is None:
        return [build_id]
    chain = ancestor_ids(session, build_id)
    return [*reversed(chain[: chain.index(origin) + 1]), build_id]
