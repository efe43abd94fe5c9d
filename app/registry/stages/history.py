"""Stages: which model runs where, since when, and what ran there before."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import BindParameter, ColumnElement, Select, func, literal_column, select, tuple_
from sqlalchemy.orm import Session, joinedload

from app.db.tables import Artifact, Model, Promotion
from app.registry.pages import Cursor, Page, paginate
from app.words import Stage

# The first half of the lock's key distinguishes our locks from other advisory locks; the second is the stage.
_LOCK_CLASS = 0x7A51


def newest_promotion(
    stage: Stage | BindParameter[str] | ColumnElement[str],
    version: BindParameter[str] | ColumnElement[str] | None = None,
) -> Select[Promotion]:
    """The newest promotion to a stage, or of one version to a stage. It says which model runs there.

    This is the only place that decides the order of a stage's promotions: by time, and by id among equal
    times. Imports record old promotions with their old times, so the highest id need not be the newest.
    The query reads one index backwards to its first row, however many promotions there are.
    """
    query = select(Promotion).where(Promotion.stage == stage)
    if version is not None:
        query = query.where(Promotion.version == version)
    # If the limit were a parameter, Postgres would plan the prepared statement again for each request, and
    # that takes longer than running it.
    return query.order_by(*newest_first()).limit(literal_column("1"))


def newest_first() -> tuple[ColumnElement[Any], ColumnElement[Any]]:
    """The order of promotions to one stage, from the newest to the oldest."""
    return Promotion.promoted_at.desc(), Promotion.id.desc()


def before(promotion: Promotion) -> ColumnElement[bool]:
    """Whether another promotion to the stage is older than this one."""
    return tuple_(Promotion.promoted_at, Promotion.id) < (promotion.promoted_at, promotion.id)


def lock(session: Session, stage: Stage) -> None:
    """Make promotions to the stage follow one after the other. The lock is held to the transaction's end."""
    session.execute(select(func.pg_advisory_xact_lock(_LOCK_CLASS, list(Stage).index(stage))))


def running(session: Session, stage: Stage) -> Model | None:
    """The model that runs in the stage; None before the first promotion to it."""
    newest = newest_promotion(stage).subquery()
    return session.scalar(select(Model).join(newest, newest.c.model_id == Model.id))


@dataclass(frozen=True)
class Current:
    """The promotion by which a model runs in a stage, and the model's files that the bucket lacks."""

    promotion: Promotion
    model: Model
    missing: tuple[str, ...]


def current(session: Session, stage: Stage) -> Current | None:
    """What runs in the stage; None before the first promotion to it."""
    newest = session.scalar(newest_promotion(stage).options(joinedload(Promotion.model)))
    if newest is None:
        return None
    missing = session.scalars(
        select(Artifact.name)
        .where(Artifact.model_id == newest.model_id, Artifact.missing_since.is_not(None))
        .order_by(Artifact.name)
    )
    return Current(newest, newest.model, tuple(missing))


@dataclass(frozen=True)
class Period:
    """The time in which a model ran in a stage. `until` is None while it still runs there."""

    promotion: Promotion
    prefix: str
    until: datetime | None


def history(
    session: Session, stage: Stage, *, limit: int, cursor: Cursor | None = None, at: datetime | None = None
) -> Page[Period]:
    """What ran in the stage, newest first. With `at`, the first period is the one of that moment."""
    query = select(Promotion).where(Promotion.stage == stage).options(joinedload(Promotion.model))
    if at is not None:
        query = query.where(Promotion.promoted_at <= at)
    page = paginate(session, query, Promotion.promoted_at, Promotion.id, limit=limit, cursor=cursor)
    return Page(_periods(session, stage, page.items), page.next)


def _periods(session: Session, stage: Stage, promotions: Sequence[Promotion]) -> list[Period]:
    if not promotions:
        return []
    first = promotions[0]
    replaced_at = session.scalar(
        select(Promotion.promoted_at)
        .where(Promotion.stage == stage, ~before(first), Promotion.id != first.id)
        .order_by(Promotion.promoted_at, Promotion.id)
        .limit(1)
    )
    ends = [replaced_at, *(promotion.promoted_at for promotion in promotions[:-1])]
    return [
        Period(promotion, promotion.model.prefix, until)
        for promotion, until in zip(promotions, ends, strict=True)
    ]
