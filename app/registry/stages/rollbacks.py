"""Rollbacks: a stage goes back to a model that it ran before."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session, joinedload, selectinload

from app.db.session import Database
from app.db.tables import Model, Promotion
from app.registry.errors import BucketUnavailable, Conflict, Invalid, NothingToRollBackTo, RegistryError
from app.registry.models import catalogue, states, wholeness
from app.registry.models.wholeness import WHOLE
from app.registry.reasons import is_reason
from app.registry.stages import gates, history
from app.registry.stages.promotions import add, check_expected
from app.storage.bucket import Bucket
from app.words import Actor, AuditAction, ModelState, Stage

_log = logging.getLogger(__name__)

# How often a rollback is planned anew because the stage changed while S3 was asked.
_PLANS = 5
# How many earlier models a rollback looks at to find one whose files are all there.
_CANDIDATES = 50


@dataclass(frozen=True)
class RollbackRequest:
    """`expected` is the prefix to replace, `to` the one to go back to. Without it, the registry chooses."""

    stage: Stage
    expected: str
    note: str
    to: str | None = None
    override: bool = False


def roll_back(
    database: Database, bucket: Bucket, who: str, wanted: RollbackRequest, kind: Actor = Actor.TOKEN
) -> tuple[Promotion, str]:
    """Promote a model that ran in the stage before. It needs only whole files, whatever its verdict is.

    Returns the record and the prefix of that model.
    Raises StageChanged, Invalid (no reason, or nothing would change), NotFound, NothingToRollBackTo,
    ModelMarked, ModelCollected, GateRefused, BucketUnavailable, and Conflict if the stage keeps changing.
    """
    for _ in range(_PLANS):
        with database.transaction() as session:
            plan = _plan(session, wanted)
        target = _choose(bucket, wanted, plan.candidates)
        with database.transaction() as session:
            history.lock(session, wanted.stage)
            newest = _newest_expected(session, wanted)
            if newest.id != plan.newest_id:
                # The same model was promoted again in between, so other models may come before it.
                continue
            model = catalogue.get_with_artifacts(session, target.model.prefix, as_it_stays=True)
            if wanted.to is None and states.mark_of(model) is not None:
                # It was marked in between. Choose another one.
                continue
            states.refuse_unless_kept(model)
            if target.refusal is not None:
                _log.warning(
                    "override: %s rolls %s back: %s: %r", who, wanted.stage, target.refusal, wanted.note
                )
            promotion = Promotion(
                model_id=target.model.id,
                version=target.model.version,
                stage=wanted.stage,
                promoted_by=who,
                promoted_by_kind=kind,
                note=wanted.note,
                override=target.refusal is not None,
                rollback=True,
            )
            add(session, promotion, target.model.prefix, newest, AuditAction.ROLLED_BACK)
            return promotion, target.model.prefix
    message = f"The promotions to {wanted.stage} follow too fast on each other. Send the request again."
    raise Conflict(message)


@dataclass(frozen=True)
class _Plan:
    newest_id: int
    candidates: tuple[Model, ...]


@dataclass(frozen=True)
class _Target:
    """The model to go back to, and the closed gate that an override opens for it, if there is one."""

    model: Model
    refusal: RegistryError | None


def _plan(session: Session, wanted: RollbackRequest) -> _Plan:
    newest = _newest_expected(session, wanted)
    if not is_reason(wanted.note):
        message = "Say in `note` why the stage is rolled back."
        raise Invalid(message)
    if wanted.to is None:
        return _Plan(newest.id, _earlier_models(session, wanted.stage, newest))
    if wanted.to == wanted.expected:
        message = f"{wanted.stage} runs {wanted.to} already. Name another model in `to`, or leave it out."
        raise Invalid(message)
    model = catalogue.get_with_artifacts(session, wanted.to)
    states.refuse_unless_kept(model)
    if not gates.was_in(session, model, wanted.stage):
        message = (
            f"{wanted.to} never ran in {wanted.stage}, so the stage cannot be rolled back to it. "
            f"Promote it with POST /models/{wanted.to}/promotions."
        )
        raise NothingToRollBackTo(message)
    return _Plan(newest.id, (model,))


def _newest_expected(session: Session, wanted: RollbackRequest) -> Promotion:
    newest = session.scalar(history.newest_promotion(wanted.stage).options(joinedload(Promotion.model)))
    return check_expected(wanted.stage, wanted.expected, newest)


def _earlier_models(session: Session, stage: Stage, newest: Promotion) -> tuple[Model, ...]:
    """The models that ran in the stage before the current one and are kept, newest first.

    The position of the current model is its newest promotion that is not a rollback. So after a rollback, the
    next one goes further back, and never forward to the model that was rolled back from.
    """
    own = select(Promotion).where(Promotion.stage == stage, Promotion.model_id == newest.model_id)
    position = session.scalar(
        own.where(Promotion.rollback.is_(False)).order_by(*history.newest_first()).limit(1)
    )
    others = (
        select(
            Promotion.model_id,
            func.row_number().over(order_by=history.newest_first()).label("row"),
        )
        .join(Model, Model.id == Promotion.model_id)
        .where(
            Model.state == ModelState.KEPT,
            Promotion.stage == stage,
            Promotion.model_id != newest.model_id,
            history.before(position or newest),
        )
        .subquery()
    )
    latest = (
        select(others.c.model_id, func.min(others.c.row).label("row"))
        .group_by(others.c.model_id)
        .order_by(func.min(others.c.row))
        .limit(_CANDIDATES)
        .subquery()
    )
    return tuple(
        session.scalars(
            select(Model)
            .join(latest, latest.c.model_id == Model.id)
            .options(selectinload(Model.artifacts))
            .order_by(latest.c.row)
        )
    )


def _choose(bucket: Bucket, wanted: RollbackRequest, candidates: Sequence[Model]) -> _Target:
    """The first model whose files are whole. An override opens the gate for the model that `to` names.

    Without `to`, an override goes on without S3 where it does not answer.
    """
    at_most = None if wanted.to is not None else 1
    for model in candidates:
        known = gates.lacking(model, WHOLE)
        findings = WHOLE if known else wholeness.look(bucket, gates.files(model), at_most=at_most)
        refusal = next(gates.artifacts(model, findings), None)
        if refusal is None:
            return _Target(model, None)
        if wanted.override and (wanted.to is not None or isinstance(refusal, BucketUnavailable)):
            return _Target(model, refusal)
        if wanted.to is not None or isinstance(refusal, BucketUnavailable):
            raise refusal
    left_out = ", ".join(model.prefix for model in candidates)
    message = f"No other model ran in {wanted.stage} before {wanted.expected}" + (
        f", whose files are all in the bucket. Left out: {left_out}. "
        "Name one of them in `to` and send override, or promote another model."
        if left_out
        else ". Promote another model with POST /models/{prefix}/promotions."
    )
    raise NothingToRollBackTo(message)
