"""Promotions: the append-only record of what was deployed, and when."""

import logging
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session, joinedload

from app.db.session import Database
from app.db.tables import Model, Promotion
from app.registry import mirror, notifications
from app.registry.access import audit
from app.registry.errors import Invalid, RegistryError, StageChanged
from app.registry.models import catalogue, signatures, states, wholeness
from app.registry.models.wholeness import WHOLE, Findings
from app.registry.reasons import is_reason
from app.registry.stages import gates, history
from app.storage.bucket import Bucket
from app.storage.keys import marker_key
from app.words import Actor, AuditAction, Stage

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PromotionRequest:
    """`expected` is the prefix that the promotion is meant to replace."""

    stage: Stage
    note: str | None = None
    override: bool = False
    expected: str | None = None


def promote(
    database: Database,
    bucket: Bucket,
    who: str,
    prefix: str,
    wanted: PromotionRequest,
    kind: Actor = Actor.TOKEN,
) -> tuple[Promotion, bool]:
    """Ask S3 whether the model's files are there and signed, then record the promotion, as `record` does.

    Raises what `record` raises.
    """
    with database.transaction() as session:
        case = _judge(session, prefix, wanted, WHOLE)
        if case.newest is not None and case.runs_already:
            return case.newest, False
        if case.refusal is not None and not wanted.override:
            raise case.refusal
        files = gates.files(case.model)
        key = signatures.key_of(session, case.model) if wanted.stage is Stage.PRODUCTION else None
    findings = wholeness.look(bucket, files)
    if key is not None:
        findings = signatures.look(bucket, files, key, findings)
    with database.transaction() as session:
        return record(session, who, prefix, wanted, kind, findings)


def record(
    session: Session,
    who: str,
    prefix: str,
    wanted: PromotionRequest,
    kind: Actor = Actor.TOKEN,
    findings: Findings = WHOLE,
) -> tuple[Promotion, bool]:
    """Record that the model now runs in the stage. Returns the record and whether it is new.

    `findings` is what S3 said about the model's files. If the stage already runs the model, nothing changes.
    The record's `override` says whether the promotion went through a closed gate.
    Raises StageChanged, NotFound, ModelMarked, ModelCollected, Invalid (an override without a reason),
    GateRefused and BucketUnavailable.
    """
    history.lock(session, wanted.stage)
    case = _judge(session, prefix, wanted, findings, as_it_stays=True)
    if case.newest is not None and case.runs_already:
        return case.newest, False
    if case.refusal is not None:
        if not wanted.override:
            raise case.refusal
        _log.warning("override: %s promotes %s: %s: %r", who, prefix, case.refusal, wanted.note)
    promotion = Promotion(
        model_id=case.model.id,
        version=case.model.version,
        stage=wanted.stage,
        promoted_by=who,
        promoted_by_kind=kind,
        note=wanted.note,
        # An override that was not needed is not recorded: the record shows which promotions a gate refused.
        override=case.refusal is not None,
    )
    add(session, promotion, prefix, case.newest, AuditAction.PROMOTED)
    return promotion, True


def add(
    session: Session, promotion: Promotion, prefix: str, newest: Promotion | None, action: AuditAction
) -> None:
    """Add the newest promotion to its stage, whose lock is held, and have its marker written.

    `newest` is the promotion that it replaces, with its model loaded.
    """
    # The time is taken under the lock. It is never earlier than that of the promotion before, even if the
    # clock was set back, so that the newest promotion is always the last one that was made.
    now = func.clock_timestamp()
    promotion.promoted_at = session.execute(
        select(now if newest is None else func.greatest(now, newest.promoted_at))
    ).scalar_one()
    session.add(promotion)
    session.flush()
    audit.record(
        session,
        promotion.promoted_by,
        Actor(promotion.promoted_by_kind),
        action,
        prefix,
        before={"stage": promotion.stage, "prefix": None if newest is None else newest.model.prefix},
        after={
            "stage": promotion.stage,
            "prefix": prefix,
            "override": promotion.override,
            "note": promotion.note,
        },
    )
    notifications.promoted(session, promotion, prefix, None if newest is None else newest.model.prefix)
    # The queue's lock comes after the stage's. mirror.ask says why.
    mirror.ask(session, marker_key(prefix, Stage(promotion.stage)))


@dataclass(frozen=True)
class _Case:
    """A promotion that is asked for: the model, what the stage runs, and why it is refused, if it is."""

    model: Model
    newest: Promotion | None
    refusal: RegistryError | None

    @property
    def runs_already(self) -> bool:
        return self.newest is not None and self.newest.model_id == self.model.id


def _judge(
    session: Session, prefix: str, wanted: PromotionRequest, findings: Findings, *, as_it_stays: bool = False
) -> _Case:
    """Raises what no override helps against: StageChanged, Invalid, NotFound, ModelMarked and ModelCollected.

    `as_it_stays` holds the model's verdict and state until the transaction's end, so that what is decided
    stays true.
    """
    newest = session.scalar(history.newest_promotion(wanted.stage).options(joinedload(Promotion.model)))
    if wanted.expected is not None:
        check_expected(wanted.stage, wanted.expected, newest)
    if wanted.override and not is_reason(wanted.note):
        message = "An override opens a closed gate. Say why in `note`."
        raise Invalid(message)
    model = catalogue.get_with_artifacts(session, prefix, as_it_stays=as_it_stays)
    states.refuse_unless_kept(model)
    refusals = gates.closed(session, model, wanted.stage, findings)
    return _Case(model, newest, next(refusals, None))


def check_expected(stage: Stage, expected: str, newest: Promotion | None) -> Promotion:
    """The newest promotion, if it is one of the expected model. Raises StageChanged."""
    if newest is not None and newest.model.prefix == expected:
        return newest
    runs = None if newest is None else newest.model.prefix
    message = (
        f"{stage} runs {runs or 'nothing'}, and the request expects {expected}. If an earlier try of the "
        "same request has done this, nothing is left to do. Otherwise look at GET /stages and decide again."
    )
    raise StageChanged(message, expected=expected, running=runs)
