"""What a collection does to some models in one transaction, and which models are next.

The release rules and the rows of the models are locked first, and the facts are read again under the locks.
So a promotion, a pin, a restoration or the end of a rule either comes before, and is seen, or waits and sees
what was done here.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import func, literal, select, tuple_
from sqlalchemy.orm import Session

from app.db.tables import BEING_COLLECTED, Artifact, Model, ReleaseRule
from app.registry.collection import plan, rules
from app.registry.collection.plan import Planned
from app.registry.errors import CollectionRefused
from app.registry.keeping import decisions, marks
from app.registry.keeping.marks import COLLECTED_BY, MarkReason
from app.settings import Settings
from app.words import Actor, KeepReason, ModelState

# They say that too little is known at the moment. A mark stays meanwhile, and nothing is deleted.
_NOT_KNOWN = frozenset({KeepReason.BRANCHES_UNKNOWN, KeepReason.COMMIT_UNKNOWN})


@dataclass
class Outcome:
    """What was done to the models of a batch, by prefix and with the reason. Others stay as they were."""

    marked: dict[str, str] = field(default_factory=dict)
    restored: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    sweeping: list[str] = field(default_factory=list)
    postponed: list[str] = field(default_factory=list)


def mark(session: Session, settings: Settings, planned: Iterable[Planned], run: UUID) -> Outcome:
    """Mark those of the models that may still go, and restore those that are marked and must be kept."""
    outcome = Outcome()
    for model, now in _rechecked(session, settings, [one.model_id for one in planned]):
        if not now.is_doomed:
            _restore_if_kept(session, model, now, outcome)
        elif model.state == ModelState.KEPT:
            try:
                outcome.marked[model.prefix] = _mark(session, model, now, run)
            except CollectionRefused as exc:
                outcome.refused[now.prefix] = exc.message
    return outcome


def _mark(session: Session, model: Model, now: Planned, run: UUID) -> str:
    """Mark the model, which a rule releases where nobody else has. Returns why. Raises CollectionRefused."""
    code, text = now.explained[0].code, now.explained[0].text
    if now.releasing_rule is None:
        marks.mark(session, model.id, MarkReason(code, text), run)
        return text
    # If the database refuses the mark, nothing was released either.
    with session.begin_nested():
        rule = session.get_one(ReleaseRule, now.releasing_rule.id)
        decisions.release_by_rule(session, model, rule, str(now.releasing_rule))
        marks.mark(session, model.id, MarkReason(code, text), run)
    return text


@dataclass(frozen=True)
class Due:
    """A marked model whose grace period is over."""

    model_id: UUID
    marked_at: datetime
    marked_by_run: UUID | None


def due(session: Session, grace: timedelta, after: Due | None, limit: int | None = None) -> list[Due]:
    """The next of these models, those that were marked first before others."""
    query = (
        select(Model.id, Model.marked_at, Model.marked_by_run)
        .where(
            BEING_COLLECTED,
            Model.state == ModelState.MARKED,
            Model.marked_at <= func.clock_timestamp() - literal(grace),
        )
        .order_by(Model.marked_at, Model.id)
        .limit(limit)
    )
    if after is not None:
        query = query.where(tuple_(Model.marked_at, Model.id) > (after.marked_at, after.model_id))
    return [
        Due(model_id, marked_at, run)
        for model_id, marked_at, run in session.execute(query)
        if marked_at is not None
    ]


def begin_sweep(
    session: Session,
    settings: Settings,
    due: Collection[Due],
    saved: Mapping[UUID, Mapping[str, bytes]],
) -> Outcome:
    """Begin to sweep those of the models that may still go. From the commit on, they cannot be restored.

    `saved` are the documents that stay readable. A model that was restored and marked again since it was due
    is left alone: its grace period has begun again.
    """
    outcome = Outcome()
    marked_at = {one.model_id: one.marked_at for one in due}
    for model, now in _rechecked(session, settings, marked_at.keys()):
        if model.state != ModelState.MARKED or model.marked_at != marked_at[model.id]:
            continue
        if not now.is_doomed:
            _restore_if_kept(session, model, now, outcome)
            continue
        try:
            marks.begin_sweep(session, model.id, saved.get(model.id, {}))
            outcome.sweeping.append(model.prefix)
        except CollectionRefused as exc:
            outcome.refused[model.prefix] = exc.message
    return outcome


def _rechecked(
    session: Session, settings: Settings, model_ids: Collection[UUID]
) -> list[tuple[Model, Planned]]:
    """The models with their rows locked, and what is to become of them according to facts read since."""
    # Before the models, as whoever revokes a rule does, so that the two cannot wait for each other.
    release_rules = rules.active(session, locked=True)
    models = session.scalars(
        select(Model)
        .where(Model.id.in_(model_ids))
        .order_by(Model.id)
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    ).all()
    prefixes = [model.prefix for model in models]
    now = plan.recheck(session, settings, prefixes, release_rules=release_rules)
    return [(model, now[model.prefix]) for model in models if model.prefix in now]


def _restore_if_kept(session: Session, model: Model, now: Planned, outcome: Outcome) -> None:
    """Take the mark off, unless the model is only kept because too little is known at the moment."""
    if model.state != ModelState.MARKED:
        return
    if is_postponed(now):
        outcome.postponed.append(model.prefix)
        return
    marks.unmark(session, model, COLLECTED_BY, Actor.SYSTEM)
    outcome.restored[model.prefix] = now.explained[0].text


def is_postponed(now: Planned) -> bool:
    """Whether a model is only kept because too little is known at the moment."""
    return not now.is_doomed and _NOT_KNOWN.issuperset(now.judgement.keep)


@dataclass(frozen=True)
class Swept:
    """A model whose objects are being deleted: the keys that were recorded, and their bytes."""

    model_id: UUID
    prefix: str
    keys: tuple[str, ...]
    size_bytes: int


def sweeping(session: Session, limit: int) -> list[Swept]:
    """The first models whose objects are being deleted."""
    models = session.execute(
        select(Model.id, Model.prefix)
        .where(BEING_COLLECTED, Model.state == ModelState.SWEEPING)
        .order_by(Model.marked_at, Model.id)
        .limit(limit)
    ).all()
    files: dict[UUID, list[tuple[str, int]]] = {}
    for model_id, key, size_bytes in session.execute(
        select(Artifact.model_id, Artifact.key, Artifact.size_bytes)
        .where(Artifact.model_id.in_([id_ for id_, _ in models]))
        .order_by(Artifact.key)
    ):
        files.setdefault(model_id, []).append((key, size_bytes))
    return [
        Swept(
            id_,
            prefix,
            tuple(key for key, _ in files.get(id_, ())),
            sum(size_bytes for _, size_bytes in files.get(id_, ())),
        )
        for id_, prefix in models
    ]


def collected(session: Session, models: Sequence[Swept]) -> None:
    """Record that the objects of these models are gone."""
    for model in sorted(models, key=lambda one: one.model_id):
        marks.collected(session, model.model_id)
