"""Builds looked up and listed."""

from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session, selectinload

from app.db.tables import Build
from app.registry.errors import NotFound
from app.registry.pages import Cursor, Page, paginate
from app.words import BuildState


def get(session: Session, build_id: UUID) -> Build:
    """The build with its steps. Raises NotFound."""
    build = session.get(Build, build_id, options=[selectinload(Build.steps), selectinload(Build.launches)])
    if build is None:
        msg = f"There is no build {build_id}. GET /builds lists them."
        raise NotFound(msg)
    return build


def find(
    session: Session,
    *,
    limit: int,
    cursor: Cursor | None = None,
    state: BuildState | None = None,
    prefix: str | None = None,
    branch: str | None = None,
) -> Page[Build]:
    """Builds, newest first, with their steps."""
    query = select(Build).options(selectinload(Build.steps), selectinload(Build.launches))
    if state is not None:
        query = query.where(Build.state == state)
    if prefix is not None:
        query = query.where(Build.prefix == prefix)
    if branch is not None:
        query = query.where(Build.branch == branch)
    return paginate(session, query, Build.created_at, Build.id, limit=limit, cursor=cursor)
