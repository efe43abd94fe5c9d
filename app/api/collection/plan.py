"""The plan of garbage collection: what would go and why, and what stays and why."""

from datetime import datetime
from typing import Annotated, Self

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from app.api.common import examples
from app.api.common.deps import Db, Limit, NextCursor, PageCursor, SettingsDep
from app.api.common.errors import problems
from app.api.common.shown import (
    ShownCollectionReason,
    ShownMessage,
    ShownModelState,
    ShownPlanVerdict,
)
from app.api.common.strict import StrictRoute
from app.api.common.text import Line
from app.db.tables import GitRepository
from app.registry.collection import plan
from app.registry.collection.kept_plan import KeptPlan
from app.registry.collection.plan import Plan, Planned, Total
from app.registry.pages import Cursor
from app.words import PlanVerdict

router = APIRouter(tags=["gc"], route_class=StrictRoute)


async def _get_kept_plan(request: Request) -> KeptPlan:
    kept: KeptPlan = request.app.state.kept_plan
    return kept


KeptPlanDep = Annotated[KeptPlan, Depends(_get_kept_plan)]


class ReasonOut(BaseModel):
    """Why a model stays or may go."""

    code: ShownCollectionReason
    text: ShownMessage


class PlannedOut(BaseModel):
    """A model, and what is to become of it."""

    prefix: str = Field(examples=[examples.PREFIX])
    verdict: ShownPlanVerdict
    reasons: list[ReasonOut]
    state: ShownModelState
    branch: str | None = Field(description="Null for an imported model.")
    published_at: datetime
    objects: int = Field(description="Its files and markers in the bucket.")
    size: int = Field(description="Their size in bytes.")

    @classmethod
    def of(cls, planned: Planned) -> Self:
        return cls(
            prefix=planned.prefix,
            verdict=planned.judgement.verdict,
            reasons=[ReasonOut(code=each.code, text=each.text) for each in planned.explained],
            state=planned.state,
            branch=planned.facts.branch,
            published_at=planned.facts.published_at,
            objects=planned.objects,
            size=planned.size_bytes,
        )


class TotalOut(BaseModel):
    """So many models, their objects in the bucket, and the size of these in bytes."""

    prefixes: int
    objects: int
    size: int

    @classmethod
    def of(cls, total: Total) -> Self:
        return cls(prefixes=total.prefixes, objects=total.objects, size=total.size_bytes)


class BranchesOut(BaseModel):
    """What is known of the branches of the git repository."""

    current: bool = Field(
        description="False if they are not known, or too old to count. Nothing is doomed then."
    )
    fetched_at: datetime | None = Field(description="When the repository was last read whole.")
    remote: str | None
    main_branch: str | None
    problem: ShownMessage | None = Field(
        description="Why the last attempt to read it failed. Null if it did not."
    )

    @classmethod
    def of(cls, repository: GitRepository | None, *, current: bool) -> Self:
        if repository is None:
            return cls(
                current=False,
                fetched_at=None,
                remote=None,
                main_branch=None,
                problem="No worker has looked at the git repository yet.",
            )
        return cls(
            current=current,
            fetched_at=repository.fetched_at,
            remote=repository.remote,
            main_branch=repository.main_branch,
            problem=repository.problem,
        )


class PlanOut(BaseModel):
    """The plan for all models whose files are there, and some of these models, newest first."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.PLAN]})

    digest: str = Field(
        description="The same as long as the same models are doomed for the same reasons, whatever the page."
    )
    computed_at: datetime
    branches: BranchesOut
    doomed: TotalOut
    kept: TotalOut
    reasons: dict[str, int] = Field(
        description="How many models each reason applies to. A model can have several reasons to stay."
    )
    items: list[PlannedOut]
    next: NextCursor


@router.get(
    "/gc/plan",
    operation_id="gc:plan",
    summary="What garbage collection would delete and why, and what it keeps and why",
    response_description="The plan, with a page of models",
    responses=problems(),
)
def get_plan(
    db: Db,
    settings: SettingsDep,
    kept: KeptPlanDep,
    cursor: PageCursor,
    limit: Limit = 50,
    verdict: Annotated[PlanVerdict | None, Query(description="Only models with this verdict.")] = None,
    prefix: Annotated[Line | None, Query(description="Only the model of this prefix.")] = None,
) -> PlanOut:
    """Nothing is changed. The totals, the reasons and the digest are of the whole plan on every page.

    Later pages are of the plan of the first one, if they are asked for within a minute and the same process
    answers. Otherwise the plan is computed anew, and only its digest says whether it is the same.

    Marked models are in the plan, because they can still be restored. Those that are being deleted, and
    those that were collected, are not.
    """
    found = None if cursor is None else kept.find(cursor.of)
    if found is None:
        found = kept.keep(plan.compute(db, settings))
    return answer(db, found, verdict=verdict, prefix=prefix, limit=limit, cursor=cursor)


def answer(
    session: Session,
    found: Plan,
    *,
    verdict: PlanVerdict | None = None,
    prefix: str | None = None,
    limit: int,
    cursor: Cursor | None = None,
) -> PlanOut:
    """The plan with one of its pages. Raises Invalid for the cursor of another list."""
    page = found.page(verdict, prefix, limit=limit, cursor=cursor)
    repository = session.get(GitRepository, 1)
    return PlanOut(
        digest=found.digest,
        computed_at=found.context.now,
        branches=BranchesOut.of(repository, current=found.context.current_branches is not None),
        doomed=TotalOut.of(found.totals[PlanVerdict.DOOMED]),
        kept=TotalOut.of(found.totals[PlanVerdict.KEPT]),
        reasons={str(reason): count for reason, count in found.counts.items()},
        items=[PlannedOut.of(each) for each in page.items],
        next=page.next_cursor,
    )
