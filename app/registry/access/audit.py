"""The audit trail: who changed what, and when. An entry is written in the transaction of its change."""

from collections.abc import Mapping
from contextvars import ContextVar

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app.db.tables import AuditEntry
from app.registry.pages import EVERYTHING, Cursor, Page, Search, paginate
from app.words import Actor, AuditAction

# The id of the request that is being answered. It is None in the worker.
request_id: ContextVar[str | None] = ContextVar("request_id", default=None)


def record(
    session: Session,
    who: str,
    kind: Actor,
    action: AuditAction,
    subject: str,
    *,
    before: Mapping[str, object] | None = None,
    after: Mapping[str, object] | None = None,
) -> None:
    """Add an entry, which is committed together with the change, or not at all.

    `subject` is what was changed: a prefix, or the id of a build, a run, a token or a rule. `before` and
    `after` hold the facts that the change is about, and nothing secret.
    """
    session.execute(
        insert(AuditEntry).values(
            who=who,
            kind=kind,
            action=action,
            subject=subject,
            request_id=request_id.get(),
            before=None if before is None else dict(before),
            after=None if after is None else dict(after),
        )
    )


def find(
    session: Session,
    *,
    limit: int,
    cursor: Cursor | None = None,
    who: str | None = None,
    action: AuditAction | None = None,
    subject: str | None = None,
    between: Search = EVERYTHING,
) -> Page[AuditEntry]:
    """Entries, newest first. If there are several filters, an entry must match all of them."""
    query = between.narrow(select(AuditEntry), AuditEntry.at)
    if who is not None:
        query = query.where(AuditEntry.who == who)
    if action is not None:
        query = query.where(AuditEntry.action == action)
    if subject is not None:
        query = query.where(AuditEntry.subject == subject)
    return paginate(session, query, AuditEntry.at, AuditEntry.id, limit=limit, cursor=cursor)
