"""Looks up and lists builds."""

from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session, selectinload

from app.db.tables import Build, BuildStep
from app.registry.errors import NotFound
from app.registry.pages import EVERYTHING, Cursor, Page, Search, paginate
from app.words import BuildKind, BuildState

# What an answer shows of a build, besides its row. How a step's worker goes on is not shown.
SHOWN = (selectinload(Build.steps).defer(BuildStep.checkpoint), selectinload(Build.launches))


def get(session: Session, build_id: UUID) -> Build:
    """The build with its steps and launches. Raises NotFound."""
    build = session.get(Build, build_id, options=SHOWN)
    if build is None:
        raise not_found(build_id)
    return build


def require(session: Session, build_id: UUID) -> None:
    """Raises NotFound unless there is such a build."""
    if session.scalar(select(Build.id).where(Build.id == build_id)) is None:
        raise not_found(build_id)


def not_found(build_id: UUID) -> NotFound:
    return NotFound(f"There is no build {build_id}. GET /builds lists the builds.")


def find(
    session: Session,
    *,
    limit: int,
    cursor: Cursor | None = None,
    state: BuildState | None = None,
    prefix: str | None = None,
    branch: str | None = None,
    version: str | None = None,
    kind: BuildKind | None = None,
    reproduces: UUID | None = None,
    search: Search = EVERYTHING,
) -> Page[Build]:
    """Builds, newest first, with their steps and launches. `reproduces` is the id of a model."""
    query = select(Build).options(*SHOWN)
    if state is not None:
        query = query.where(Build.state == state)
    if prefix is not None:
        query = query.where(Build.prefix == prefix)
    if branch is not None:
        query = query.where(Build.branch == branch)
    if version is not None:
        query = query.where(Build.version == version)
    if kind is not None:
        query = query.where(Build.kind == kind)
    if reproduces is not None:
        query = query.where(Build.reproduces == reproduces)
    query = search.narrow(query, Build.created_at, Build.prefix, Build.branch)
    return paginate(
        session,
        query,
        Build.created_at,
        Build.id,
        limit=limit,
        cursor=cursor,
        by_text=search.text is not None,
    )
