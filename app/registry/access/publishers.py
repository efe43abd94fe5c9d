"""Trusted publishers: the CI workflows that may sign in, and the short-lived tokens that they get.

A workflow is recognised by the ids of its repository and of the repository's owner, because names can be
given up and taken by others, by its file, and by the ref or the environment that it runs for.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from uuid import UUID

from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app.db.tables import Token, TrustedPublisher, UsedIdentityToken
from app.identity import LEEWAY_S, Claims
from app.registry.access import audit, tokens
from app.registry.access.callers import Caller
from app.registry.errors import Forbidden, IdentityRefused, Invalid, NotFound
from app.registry.pages import Cursor, Page, paginate
from app.words import Actor, AuditAction, Scope, known

LIFETIME = timedelta(minutes=15)

# The events that only somebody with write access to the repository can cause. Others, such as
# `pull_request_target`, `issue_comment` and `workflow_run`, also run for people who have a fork.
EVENTS = frozenset(
    {
        "create",
        "deployment",
        "merge_group",
        "pull_request",
        "push",
        "release",
        "repository_dispatch",
        "schedule",
        "workflow_dispatch",
    }
)


@dataclass(frozen=True)
class PublisherRequest:
    """A rule. In `ref`, `*` stands for anything. A rule has a ref, an environment, or both."""

    name: str
    repository_id: int
    repository_owner_id: int
    workflow: str
    scopes: frozenset[Scope]
    ref: str | None = None
    environment: str | None = None


def trust(session: Session, who: Caller, wanted: PublisherRequest) -> TrustedPublisher:
    """Add a rule. Raises Forbidden for a scope that its creator lacks, and Invalid."""
    if wanted.ref is None and wanted.environment is None:
        message = (
            "A rule needs `ref` or `environment`: without them, the workflow could sign in from every "
            'branch. If that is what you want, give the ref "*".'
        )
        raise Invalid(message)
    if Scope.ADMIN in wanted.scopes:
        message = "No workflow gets the scope admin. Create a token for a person with POST /tokens instead."
        raise Invalid(message)
    for scope in Scope:
        if scope in wanted.scopes and scope not in who.scopes:
            message = f"You lack the scope {scope}, so you cannot give it to a workflow."
            raise Forbidden(message, required_scope=scope)
    rule = TrustedPublisher(
        name=wanted.name,
        repository_id=wanted.repository_id,
        repository_owner_id=wanted.repository_owner_id,
        workflow=wanted.workflow,
        ref=wanted.ref,
        environment=wanted.environment,
        scopes=[scope for scope in Scope if scope in wanted.scopes],
        created_by=who.name,
        created_by_kind=who.kind,
    )
    session.add(rule)
    session.flush()
    audit.record(session, who.name, who.kind, AuditAction.PUBLISHER_TRUSTED, str(rule.id), after=_facts(rule))
    return rule


def find(session: Session, *, limit: int, cursor: Cursor | None = None) -> Page[TrustedPublisher]:
    """The rules that hold, newest first."""
    query = select(TrustedPublisher)
    return paginate(
        session, query, TrustedPublisher.created_at, TrustedPublisher.id, limit=limit, cursor=cursor
    )


def remove(session: Session, who: Caller, rule_id: UUID) -> TrustedPublisher:
    """Remove the rule. Tokens that were given by it stay valid until they expire. Raises NotFound."""
    rule = session.scalar(select(TrustedPublisher).where(TrustedPublisher.id == rule_id).with_for_update())
    if rule is None:
        message = f"There is no trusted publisher {rule_id}. GET /trusted-publishers lists them."
        raise NotFound(message)
    audit.record(
        session, who.name, who.kind, AuditAction.PUBLISHER_REMOVED, str(rule.id), before=_facts(rule)
    )
    session.delete(rule)
    session.flush()
    return rule


@dataclass(frozen=True)
class SignedIn:
    """The token of a workflow, its secret, and the rules by which it was given."""

    token: Token
    secret: str


def sign_in(session: Session, claims: Claims) -> SignedIn:
    """A token with the scopes of all rules that trust this workflow. Raises IdentityRefused."""
    if claims.event_name not in EVENTS:
        message = (
            f"The workflow runs for the event {claims.event_name!r}, which people without write access can "
            f"cause from a fork. Sign in from a workflow that runs for one of: {', '.join(sorted(EVENTS))}."
        )
        raise IdentityRefused(message)
    rules = [rule for rule in _of_repository(session, claims) if _trusts(rule, claims)]
    if not rules:
        raise IdentityRefused(_nobody(claims))
    _use_once(session, claims)
    scopes = {scope for rule in rules for word in rule.scopes if (scope := known(Scope, word)) is not None}
    token, secret = tokens.issue(
        session,
        name=f"{claims.repository}:{workflow_of(claims)}:{claims.run_id}.{claims.run_attempt}",
        scopes=scopes,
        lifetime=LIFETIME,
        rules=[rule.name for rule in rules],
    )
    facts = {
        "name": token.name,
        "scopes": token.scopes,
        "trusted_publishers": sorted(str(rule.id) for rule in rules),
        "repository": claims.repository,
        "ref": claims.ref,
        "event": claims.event_name,
        "environment": claims.environment,
        "sha": claims.sha,
    }
    audit.record(session, token.name, Actor.CI_WORKFLOW, AuditAction.SIGNED_IN, str(token.id), after=facts)
    return SignedIn(token, secret)


def workflow_of(claims: Claims) -> str | None:
    """The name of the workflow's file. None for a workflow of another repository, which nobody trusts."""
    folder = f"{claims.repository}/.github/workflows/"
    path, at, _ = claims.job_workflow_ref.partition("@")
    if not at or not path.casefold().startswith(folder.casefold()):
        return None
    return path[len(folder) :]


def _of_repository(session: Session, claims: Claims) -> Sequence[TrustedPublisher]:
    return session.scalars(
        select(TrustedPublisher)
        .where(
            TrustedPublisher.repository_id == int(claims.repository_id),
            TrustedPublisher.repository_owner_id == int(claims.repository_owner_id),
        )
        .order_by(TrustedPublisher.created_at, TrustedPublisher.id)
    ).all()


def _trusts(rule: TrustedPublisher, claims: Claims) -> bool:
    return (
        rule.workflow == workflow_of(claims)
        and (rule.ref is None or fnmatchcase(claims.ref, rule.ref))
        and (rule.environment is None or rule.environment == claims.environment)
    )


def _nobody(claims: Claims) -> str:
    return (
        f"No trusted publisher is this workflow: repository {claims.repository} (id {claims.repository_id}, "
        f"owner's id {claims.repository_owner_id}), workflow {claims.job_workflow_ref}, ref {claims.ref}, "
        f"environment {claims.environment or 'none'}. An administrator adds one with "
        "POST /trusted-publishers."
    )


def _use_once(session: Session, claims: Claims) -> None:
    """Raises IdentityRefused for a token that somebody has signed in with before."""
    # Those that are refused by their age anyway. A day more, because clocks differ.
    over = func.clock_timestamp() - timedelta(days=1, seconds=LEEWAY_S)
    session.execute(delete(UsedIdentityToken).where(UsedIdentityToken.expires_at < over))
    first = session.scalar(
        insert(UsedIdentityToken)
        .values(id=claims.id, expires_at=datetime.fromtimestamp(claims.expires_at, UTC))
        .on_conflict_do_nothing()
        .returning(UsedIdentityToken.id)
    )
    if first is None:
        message = "This identity token was used before. Ask GitHub for another one."
        raise IdentityRefused(message)


def _facts(rule: TrustedPublisher) -> dict[str, object]:
    return {
        "name": rule.name,
        "repository_id": rule.repository_id,
        "repository_owner_id": rule.repository_owner_id,
        "workflow": rule.workflow,
        "ref": rule.ref,
        "environment": rule.environment,
        "scopes": rule.scopes,
    }
