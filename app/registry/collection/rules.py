"""Release rules: what a person with `admin` says at once about all models of some versions or branches.

A rule takes the place of the releases of single models, for those that were in staging or production. It
releases nothing by itself: a collection that marks such a model makes the rule its release. When the rule is
revoked, what it released is kept again, unless its files are being deleted already.
"""

from collections.abc import Collection
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import exists, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app.db.tables import Model, Promotion, ReleaseRule
from app.registry.access import audit
from app.registry.collection.retention import Rule
from app.registry.errors import Conflict, Invalid, NotFound
from app.registry.keeping import decisions
from app.registry.pages import Cursor, Page, paginate
from app.registry.reasons import is_reason
from app.words import Actor, AuditAction, ModelState, ReleaseRuleState


@dataclass(frozen=True)
class RuleRequest:
    """A rule that somebody wants. A model must fit each of the patterns that are given."""

    versions: str | None
    branches: str | None
    reason: str


def add(session: Session, who: str, kind: Actor, wanted: RuleRequest) -> tuple[ReleaseRule, bool]:
    """Set the rule. Returns it, and whether it is new: one with the same patterns stays as it is.

    Raises Invalid, and Conflict if that one is revoked at this moment.
    """
    if wanted.versions is None and wanted.branches is None:
        message = (
            "A rule needs `versions` or `branches`: without them, it would release every model that reached "
            'staging or production. If that is what you want, give the versions "*".'
        )
        raise Invalid(message)
    if not is_reason(wanted.reason):
        message = "Models that a rule releases can be deleted for ever. Say in `reason` why they may be."
        raise Invalid(message)
    rule = session.scalar(
        insert(ReleaseRule)
        .values(
            versions=wanted.versions,
            branches=wanted.branches,
            reason=wanted.reason,
            created_by=who,
            created_by_kind=kind,
        )
        .on_conflict_do_nothing()
        .returning(ReleaseRule)
    )
    if rule is not None:
        audit.record(session, who, kind, AuditAction.RELEASE_RULE_SET, str(rule.id), after=_facts(rule))
        return rule, True
    same = session.scalar(
        select(ReleaseRule).where(
            ReleaseRule.revoked_at.is_(None),
            ReleaseRule.versions.is_not_distinct_from(wanted.versions),
            ReleaseRule.branches.is_not_distinct_from(wanted.branches),
        )
    )
    if same is None:
        message = "A rule with these patterns was revoked at this moment. Send the request again."
        raise Conflict(message)
    return same, False


def revoke(session: Session, rule_id: UUID, who: str, kind: Actor) -> ReleaseRule:
    """End the rule, and take back what it released. A rule that was revoked stays as it is.

    Raises NotFound.
    """
    # This waits for a collection that marks models by the rule, and those are found below.
    rule = session.scalar(select(ReleaseRule).where(ReleaseRule.id == rule_id).with_for_update())
    if rule is None:
        message = f"There is no release rule {rule_id}. GET /gc/release-rules lists them."
        raise NotFound(message)
    if rule.revoked_at is None:
        rule.revoked_at = session.execute(select(func.clock_timestamp())).scalar_one()
        rule.revoked_by, rule.revoked_by_kind = who, kind
        session.flush()
        audit.record(session, who, kind, AuditAction.RELEASE_RULE_REVOKED, str(rule.id), before=_facts(rule))
        decisions.withdraw_what_a_rule_gave(session, rule.id, who, kind)
    return rule


def find(
    session: Session, *, limit: int, cursor: Cursor | None = None, state: ReleaseRuleState | None = None
) -> Page[ReleaseRule]:
    """The rules, newest first."""
    query = select(ReleaseRule)
    if state is not None:
        holds = state is ReleaseRuleState.ACTIVE
        query = query.where(
            ReleaseRule.revoked_at.is_(None) if holds else ReleaseRule.revoked_at.is_not(None)
        )
    return paginate(session, query, ReleaseRule.created_at, ReleaseRule.id, limit=limit, cursor=cursor)


def active(session: Session, *, locked: bool = False) -> tuple[Rule, ...]:
    """The rules that hold, in the order in which they were set.

    If they are locked, nobody revokes one of them before the end of the transaction.
    """
    query = (
        select(ReleaseRule)
        .where(ReleaseRule.revoked_at.is_(None))
        .order_by(ReleaseRule.created_at, ReleaseRule.id)
    )
    return tuple(map(_rule, session.scalars(query.with_for_update(read=True) if locked else query)))


def state_of(rule: ReleaseRule) -> ReleaseRuleState:
    return ReleaseRuleState.ACTIVE if rule.revoked_at is None else ReleaseRuleState.REVOKED


def how_many_fit(session: Session, rules: Collection[ReleaseRule]) -> dict[UUID, int]:
    """For each of the rules, the number of models that it is about: they were in staging or production."""
    query = (
        select(Model.version, Model.branch, func.count())
        .where(
            Model.state.in_([state for state in ModelState if not state.gone]),
            exists().where(Promotion.model_id == Model.id, Promotion.stage.in_(decisions.GUARDED)),
        )
        .group_by(Model.version, Model.branch)
    )
    models = session.execute(query).all()
    fitting = {rule.id: _rule(rule).fits for rule in rules}
    return {
        rule_id: sum(count for version, branch, count in models if fits(version, branch))
        for rule_id, fits in fitting.items()
    }


def _rule(rule: ReleaseRule) -> Rule:
    return Rule(rule.id, rule.versions, rule.branches, rule.created_by)


def _facts(rule: ReleaseRule) -> dict[str, object]:
    return {"versions": rule.versions, "branches": rule.branches, "reason": rule.reason}
