"""What a person may ask a collection for, and what is refused."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.db.tables import BEING_COLLECTED, Model, Run
from app.registry.collection import batches, plan
from app.registry.collection.plan import Plan
from app.registry.errors import CollectionOff, CollectionTooLarge, PlanChanged
from app.registry.runs import lifecycle
from app.settings import Settings
from app.words import Actor, CollectionMode, ModelState, PlanVerdict, RunKind

# A run that deletes so few is never too large, however few models there are.
_ALWAYS_ALLOWED = 10


@dataclass(frozen=True)
class CollectionRequest:
    """`plan_digest` is that of the plan which the person has seen. `allow_large` lifts the limit."""

    dry_run: bool = True
    plan_digest: str | None = None
    allow_large: bool = False

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Self:
        """The request that a run has stored."""
        return cls(**{name: value for name, value in options.items() if name in cls.__dataclass_fields__})

    def as_options(self) -> dict[str, Any]:
        return asdict(self)


def request(session: Session, settings: Settings, wanted: CollectionRequest, who: str, actor: Actor) -> Run:
    """Ask for a collection. Its worker checks everything again.

    Raises CollectionOff, PlanChanged, CollectionTooLarge and RunActive.
    """
    if not wanted.dry_run:
        refuse_if_off(settings)
        refuse_unless_as_seen(session, settings, plan.compute(session, settings), wanted)
    elif wanted.plan_digest is not None:
        _refuse_unless_same(plan.compute(session, settings), wanted.plan_digest)
    return lifecycle.request(session, RunKind.COLLECTION, wanted.as_options(), who, actor)


def refuse_if_off(settings: Settings) -> None:
    """Raises CollectionOff."""
    if settings.gc is CollectionMode.OFF:
        raise CollectionOff


def refuse_unless_as_seen(
    session: Session, settings: Settings, current: Plan, wanted: CollectionRequest
) -> None:
    """Raises PlanChanged and CollectionTooLarge."""
    if wanted.plan_digest is not None:
        _refuse_unless_same(current, wanted.plan_digest)
    size = size_of(session, settings, current)
    if size.is_too_large and not wanted.allow_large:
        message = (
            f"This run would mark or delete {size.models} of {size.of} models, and at most {size.most} are "
            "allowed. Look at the result of a dry run. If it is right, send `allow_large` with its digest."
        )
        raise CollectionTooLarge(message, models=size.models, of=size.of, most=size.most)


def _refuse_unless_same(current: Plan, digest: str) -> None:
    if current.digest != digest:
        message = (
            f"The plan has the digest {current.digest} now, because other models may go than before. "
            "Look at the result of a new dry run, and send its digest."
        )
        raise PlanChanged(message, digest=current.digest)


@dataclass(frozen=True)
class Size:
    """How many models a run would mark or sweep, of how many, and how many are allowed."""

    models: int
    of: int
    most: int

    @property
    def is_too_large(self) -> bool:
        return self.models > self.most


def size_of(session: Session, settings: Settings, current: Plan) -> Size:
    """How large a run is that carries the plan out now.

    Models that are due count too, unless a person has allowed the run that marked them to be large.
    """
    doomed = {one.model_id: one.state for one in current.models(PlanVerdict.DOOMED)}
    new = sum(state is ModelState.KEPT for state in doomed.values())
    ready = [one for one in batches.due(session, settings.gc_grace, None) if one.model_id in doomed]
    runs = {one.marked_by_run for one in ready if one.marked_by_run is not None}
    allowed = set(
        session.scalars(
            select(Run.id).where(Run.id.in_(runs), Run.options["allow_large"].as_boolean().is_(True))
        )
    )
    half_swept = session.scalar(
        select(func.count()).where(BEING_COLLECTED, Model.state == ModelState.SWEEPING)
    )
    of = len(current.rows) + (half_swept or 0)
    due = sum(one.marked_by_run not in allowed for one in ready)
    return Size(new + due, of, max(_ALWAYS_ALLOWED, int(settings.gc_most_at_once * of)))
