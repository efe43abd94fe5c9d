"""The audit trail: who changed what."""

from datetime import datetime
from typing import Annotated, Any, Self

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from app.api.common import examples
from app.api.common.deps import BetweenDep, CanAdminister, Db, Limit, NextCursor, PageCursor
from app.api.common.errors import problems
from app.api.common.shown import ShownActor, ShownAuditAction
from app.api.common.strict import StrictRoute
from app.api.common.text import Line
from app.db.tables import AuditEntry
from app.registry.access import audit
from app.words import AuditAction

router = APIRouter(tags=["audit"], route_class=StrictRoute)


class AuditEntryOut(BaseModel):
    """One change."""

    id: int
    at: datetime
    who: str = Field(examples=["ci"])
    kind: ShownActor
    action: ShownAuditAction
    subject: str = Field(
        description="A prefix, or the id of a build, a run, a token or a rule.", examples=["0.0.2-aff1242"]
    )
    request_id: str | None = Field(
        description="The `X-Request-Id` of the request. Null for what the registry did by itself."
    )
    before: dict[str, Any] | None = Field(description="What the change replaced, if anything.")
    after: dict[str, Any] | None = Field(description="What has been true since the change.")

    @classmethod
    def of(cls, entry: AuditEntry) -> Self:
        return cls(
            id=entry.id,
            at=entry.at,
            who=entry.who,
            kind=entry.kind,
            action=entry.action,
            subject=entry.subject,
            request_id=entry.request_id,
            before=entry.before,
            after=entry.after,
        )


class AuditPage(BaseModel):
    """Entries, newest first."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"items": [examples.AUDIT_ENTRY], "next": None}]}
    )

    items: list[AuditEntryOut]
    next: NextCursor


@router.get(
    "/audit",
    operation_id="audit:list",
    summary="Who changed what",
    response_description="A page of entries",
    responses=problems(),
)
def list_entries(
    _who: CanAdminister,
    db: Db,
    cursor: PageCursor,
    between: BetweenDep,
    limit: Limit = 50,
    who: Annotated[Line | None, Query(description="Only changes by this name.")] = None,
    action: Annotated[AuditAction | None, Query(description="Only changes of this kind.")] = None,
    subject: Annotated[
        Line | None, Query(description="Only changes of this prefix, build, run, token or rule.")
    ] = None,
) -> AuditPage:
    """Every change that somebody asked for, newest first. Needs the scope `admin`.

    An entry is stored in the same transaction as its change, and nobody can change it afterwards.
    """
    page = audit.find(
        db, limit=limit, cursor=cursor, who=who, action=action, subject=subject, between=between
    )
    return AuditPage(items=[AuditEntryOut.of(entry) for entry in page.items], next=page.next_cursor)
