"""Stages: which model runs where, the append-only record of promotions, and the gates in front of a stage."""

import logging
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import (
    BindParameter,
    Connection,
    Row,
    Select,
    String,
    bindparam,
    func,
    literal_column,
    select,
    true,
)
from sqlalchemy.dialects.postgresql import aggregate_order_by
from sqlalchemy.orm import InstrumentedAttribute, Session, aliased

from app.db.tables import Artifact, Model, Promotion
from app.registry import mirror, models
from app.registry.errors import GateRefused, Invalid, NothingPromoted
from app.registry.models import ArtifactRef
from app.registry.reasons import is_reason
from app.storage.keys import marker_key
from app.words import Actor, Stage, Verdict

_log = logging.getLogger(__name__)

# The first half of the lock's key distinguishes our locks from other advisory locks; the second is the stage.
_LOCK_CLASS = 0x7A51


def newest_promotion(
    stage: Stage | BindParameter[str], version: BindParameter[str] | None = None
) -> Select[Promotion]:
    """The newest promotion to a stage, or of one version to a stage. It says which model runs there.

    Promotions to one stage are made one after the other, so the highest id is the newest. The query reads one
    index backwards to its first row, however many promotions there are.
    """
    query = select(Promotion).where(Promotion.stage == stage)
    if version is not None:
        query = query.where(Promotion.version == version)
    # If the limit were a parameter, Postgres would plan the prepared statement again for each request, and
    # that takes longer than running it.
    return query.order_by(Promotion.id.desc()).limit(literal_column("1"))


def lock(session: Session, stage: Stage) -> None:
    """Make promotions to the stage follow one after the other, until the transaction ends."""
    session.execute(select(func.pg_advisory_xact_lock(_LOCK_CLASS, list(Stage).index(stage))))


def running(session: Session, stage: Stage) -> Model | None:
    """The model that runs in the stage; None before the first promotion to it."""
    newest = newest_promotion(stage).subquery()
    return session.scalar(select(Model).join(newest, newest.c.model_id == Model.id))


# The latest model, for the deploy job


@dataclass(frozen=True)
class Latest:
    """The model that runs in a stage, as the deploy job needs it."""

    promotion_id: int
    prefix: str
    version: str
    sha: str
    verdict: str
    promoted_at: datetime
    promoted_by: str
    artifacts: tuple[ArtifactRef, ...]


def _latest(*, of_version: bool) -> Select[Any]:
    """One query for everything that the deploy job needs. It returns the artifacts as arrays."""
    version = bindparam("version", type_=String) if of_version else None
    newest = aliased(Promotion, newest_promotion(bindparam("stage", type_=String), version).subquery())

    def by_name(column: InstrumentedAttribute[Any]) -> Any:
        return func.array_agg(aggregate_order_by(column, Artifact.name.asc()))

    artifacts = (
        select(
            by_name(Artifact.name).label("names"),
            by_name(Artifact.key).label("bucket_keys"),
            by_name(Artifact.sha256).label("digests"),
            by_name(Artifact.size_bytes).label("sizes"),
        )
        .where(Artifact.model_id == Model.id)
        .lateral()
    )
    return (
        select(
            newest.id,
            Model.prefix,
            Model.version,
            Model.sha,
            Model.verdict,
            newest.promoted_at,
            newest.promoted_by,
            artifacts.c.names,
            artifacts.c.bucket_keys,
            artifacts.c.digests,
            artifacts.c.sizes,
        )
        .join(Model, Model.id == newest.model_id)
        .join(artifacts, true())
    )


LATEST = _latest(of_version=False)
LATEST_OF_VERSION = _latest(of_version=True)


def latest(session: Session | Connection, stage: Stage, version: str | None = None) -> Latest:
    """The model most recently promoted to the stage, or the one of a version. This is one indexed query.

    Raises NothingPromoted.
    """
    row: Row[Any] | None
    if version is None:
        row = session.execute(LATEST, {"stage": stage.value}).one_or_none()
    else:
        row = session.execute(LATEST_OF_VERSION, {"stage": stage.value, "version": version}).one_or_none()
    if row is None:
        which = f"No model of version {version}" if version is not None else "No model"
        message = (
            f"{which} was ever promoted to {stage}. Promote one with POST /models/{{prefix}}/promotions."
        )
        raise NothingPromoted(message)
    artifacts = tuple(
        ArtifactRef(*of)
        for of in zip(row.names or [], row.bucket_keys or [], row.digests or [], row.sizes or [], strict=True)
    )
    return Latest(
        row.id, row.prefix, row.version, row.sha, row.verdict, row.promoted_at, row.promoted_by, artifacts
    )


# Promotions


@dataclass(frozen=True)
class PromotionRequest:
    stage: Stage
    note: str | None = None
    override: bool = False


def promote(
    session: Session, who: str, prefix: str, wanted: PromotionRequest, kind: Actor = Actor.TOKEN
) -> tuple[Promotion, bool]:
    """Record that the model now runs in the stage. Returns the record and whether it is new.

    If the stage already runs the model, nothing changes. A new promotion also puts the model's marker into
    the outbox, in the same transaction.
    The record's `override` says whether the promotion went through a closed gate.
    Raises NotFound, Invalid (an override without a reason) and GateRefused.
    """
    model = models.get_record(session, prefix)
    if wanted.override and not is_reason(wanted.note):
        message = "An override opens a closed gate. Say why in `note`."
        raise Invalid(message)
    lock(session, wanted.stage)
    newest = session.scalar(newest_promotion(wanted.stage))
    if newest is not None and newest.model_id == model.id:
        return newest, False
    been_in = set(session.scalars(select(Promotion.stage).where(Promotion.model_id == model.id).distinct()))
    refusal = _closed_gate(model, wanted.stage, been_in)
    if refusal is not None and not wanted.override:
        raise refusal
    promotion = Promotion(
        model_id=model.id,
        version=model.version,
        stage=wanted.stage,
        promoted_by=who,
        promoted_by_kind=kind,
        note=wanted.note,
        # An override that was not needed is not recorded: the record shows which promotions a gate refused.
        override=refusal is not None,
    )
    session.add(promotion)
    session.flush()
    if refusal is not None:
        _log.warning(
            "override: %s promoted %s to %s through the closed gate %s: %r",
            who,
            prefix,
            wanted.stage,
            refusal.gate,
            wanted.note,
        )
    mirror.ask(session, marker_key(prefix, wanted.stage))
    return promotion, True


def _closed_gate(model: Model, stage: Stage, been_in: set[str]) -> GateRefused | None:
    before = stage.before
    if before is not None and before not in been_in:
        message = (
            f"{model.prefix} was never in {before}, and {stage} takes only models that were. "
            f"Promote it to {before} first, or send override with a note that says why."
        )
        return GateRefused(message, gate="stage_order", required_stage=before)
    # Development is where a model that failed its validation can be examined.
    if stage is not Stage.DEVELOPMENT and model.verdict == Verdict.FAILED:
        message = (
            f"{model.prefix} failed its validation: {model.verdict_reason}. "
            "Train a better one, or send override with a note that says why."
        )
        return GateRefused(message, gate="verdict")
    return None
