"""The rules by which administrators release models that were in staging or production."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Self
from uuid import UUID

from fastapi import APIRouter, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from app.api.common import examples
from app.api.common.deps import CanAdminister, DatabaseDep, Db, Limit, NextCursor, PageCursor
from app.api.common.errors import problems
from app.api.common.shown import ShownActor, ShownReleaseRuleState
from app.api.common.strict import StrictRoute
from app.api.common.text import Line, Lines
from app.api.stages.kept import KeptDep
from app.db.tables import ReleaseRule
from app.registry.collection import rules
from app.registry.collection.rules import RuleRequest
from app.registry.errors import Conflict, NotFound
from app.words import ReleaseRuleState

router = APIRouter(tags=["gc"], route_class=StrictRoute)


class ReleaseRuleCreate(BaseModel):
    """Which models may be collected although they were in staging or production, and why."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [examples.RELEASE_RULE_CREATE]})

    versions: Line | None = Field(
        default=None,
        min_length=1,
        max_length=200,
        description="A pattern of versions, such as `0.0.*`. `*` stands for any characters. A rule needs "
        "`versions` or `branches`; if it has both, a model must fit both.",
    )
    branches: Line | None = Field(
        default=None,
        min_length=1,
        max_length=200,
        description="A pattern of branches, such as `feature/*`, in which `*` also stands for slashes. An "
        "imported model has no branch, so it fits none.",
    )
    reason: Lines = Field(min_length=1, max_length=2000, description="Why. It is kept, and shown.")


class ReleaseRuleOut(BaseModel):
    """A rule that releases models, and how many it is about."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.RELEASE_RULE]})

    id: UUID
    state: ShownReleaseRuleState
    versions: str | None
    branches: str | None
    reason: str
    models: int = Field(
        description="How many models fit it now, of those that were in staging or production and whose files "
        "are there. GET /gc/plan says which of them may go, and what keeps the others."
    )
    created_at: datetime
    created_by: str
    created_by_kind: ShownActor
    revoked_at: datetime | None
    revoked_by: str | None
    revoked_by_kind: ShownActor | None

    @classmethod
    def of(cls, rule: ReleaseRule, models: int) -> Self:
        return cls(
            id=rule.id,
            state=rules.state_of(rule),
            versions=rule.versions,
            branches=rule.branches,
            reason=rule.reason,
            models=models,
            created_at=rule.created_at,
            created_by=rule.created_by,
            created_by_kind=rule.created_by_kind,
            revoked_at=rule.revoked_at,
            revoked_by=rule.revoked_by,
            revoked_by_kind=rule.revoked_by_kind,
        )


class ReleaseRulePage(BaseModel):
    """Release rules, newest first."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"items": [examples.RELEASE_RULE], "next": None}]}
    )

    items: list[ReleaseRuleOut]
    next: NextCursor


@router.post(
    "/gc/release-rules",
    operation_id="gc:release",
    summary="Set a rule that releases models that were in staging or production",
    status_code=201,
    response_description="The rule, and how many models it is about now",
    responses={
        200: {"model": ReleaseRuleOut, "description": "A rule with these patterns holds; nothing changed"},
        **problems(Conflict),
    },
)
def create(body: ReleaseRuleCreate, who: CanAdminister, db: Db, response: Response) -> ReleaseRuleOut:
    """Such models may go by the rule as if each of them had been released. Needs the scope `admin`.

    All other conditions stay: nothing goes before `REGISTRY_GC_RETIRE_AFTER`, or while a stage runs it or may
    go back to it. The rule also holds for models that are published or promoted later. It changes no model
    by itself: a collection that marks one makes the rule the model's release.
    """
    wanted = RuleRequest(body.versions, body.branches, body.reason)
    rule, new = rules.add(db, who.name, who.kind, wanted)
    if not new:
        response.status_code = 200
    return _shown(db, [rule])[0]


@router.get(
    "/gc/release-rules",
    operation_id="gc:rules",
    summary="The rules that release models",
    response_description="A page of release rules",
    responses=problems(),
)
def list_rules(
    db: Db,
    cursor: PageCursor,
    limit: Limit = 50,
    state: Annotated[ReleaseRuleState | None, Query(description="Only rules in this state.")] = None,
) -> ReleaseRulePage:
    """The release rules, newest first. Those that were revoked are listed too."""
    page = rules.find(db, limit=limit, cursor=cursor, state=state)
    return ReleaseRulePage(items=_shown(db, page.items), next=page.next_cursor)


@router.delete(
    "/gc/release-rules/{id}",
    operation_id="gc:revoke",
    summary="Revoke a rule that releases models",
    response_description="The revoked rule",
    responses=problems(NotFound),
)
def revoke(
    id: Annotated[UUID, Path(description="The release rule's id.")],  # noqa: A002 - the contract's name
    who: CanAdminister,
    database: DatabaseDep,
    kept: KeptDep,
) -> ReleaseRuleOut:
    """What the rule has released is kept again, and restored if it is marked. Needs the scope `admin`.

    It is too late for models whose files are being deleted. The rule stays in the list. Repeating the request
    changes nothing.
    """
    with database.transaction() as session:
        [answer] = _shown(session, [rules.revoke(session, id, who.name, who.kind)])
    kept.forget()
    return answer


def _shown(session: Session, found: Sequence[ReleaseRule]) -> list[ReleaseRuleOut]:
    models = rules.how_many_fit(session, found)
    return [ReleaseRuleOut.of(rule, models[rule.id]) for rule in found]
