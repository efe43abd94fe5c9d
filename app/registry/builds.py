"""Builds as CI and engineers see them: requested, listed, looked up."""

from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session, selectinload

from app.db.tables import HOLDS_PREFIX, Build, BuildLogChunk, BuildStep
from app.queue import enqueue_build
from app.registry.errors import Conflict, Invalid, InvalidConfig, NotFound, PrefixCollision
from app.registry.pages import Cursor, Page, paginate
from app.registry.prefixes import NotNeeded, Prefix, decide, parse_sha
from app.words import BuildState, Stage, StepName
from training.config import ConfigError, parse_config


@dataclass(frozen=True)
class BuildRequest:
    """What CI asks for. The configurations are TOML text."""

    sha: str
    branch: str
    search_config: str
    base_search_config: str | None = None
    promote_to: Stage | None = None
    force: bool = False
    requested_by: str = "anonymous"


@dataclass(frozen=True)
class BuildAnswer:
    outcome: Literal["queued", "exists", "not_needed"]
    prefix: str
    build: Build | None
    reason: NotNeeded | None = None


def request(session: Session, wanted: BuildRequest) -> BuildAnswer:
    """Record and enqueue the build of a commit's prefix, unless it needs none or has one.

    The row and its job are made in the caller's transaction: nothing is committed and not queued.
    However many ask at the same moment, a prefix gets one build.

    Raises InvalidConfig, Invalid (sha, promote_to) and PrefixCollision.
    """
    try:
        config = parse_config(wanted.search_config)
    except ConfigError as exc:
        raise InvalidConfig(f"search_config cannot be used: {exc}", problems=exc.problems) from exc
    except (ValueError, RecursionError) as exc:
        # TOML beyond what its parser takes: numbers without end, a thousand nested arrays.
        raise InvalidConfig(f"search_config cannot be read: {exc}. Write it more simply.") from exc
    sha = parse_sha(wanted.sha)
    prefix = str(Prefix.of(config.version, sha))
    if wanted.promote_to is not None and wanted.promote_to.before is not None:
        msg = (
            f"promote_to can only be {Stage.DEVELOPMENT}: a new model was never in "
            f"{wanted.promote_to.before}. "
            f"Promote it further with POST /models/{prefix}/promotions."
        )
        raise Invalid(msg)
    if not wanted.force and (reason := decide(config.version, wanted.base_search_config)):
        return BuildAnswer("not_needed", prefix, None, reason)

    row = {
        "prefix": prefix,
        "version": config.version,
        "sha": sha,
        "branch": wanted.branch,
        "search_config": wanted.search_config,
        "base_search_config": wanted.base_search_config,
        "promote_to": wanted.promote_to,
        "forced": wanted.force,
        "requested_by": wanted.requested_by,
    }
    # The build that is in our way can fail between our two looks: then look again.
    for _ in range(10):
        if build := _existing(session, prefix):
            _refuse_other_commit(build, sha)
            return BuildAnswer("exists", prefix, build)
        if build := _insert(session, row):
            enqueue_build(session, build.id)
            return BuildAnswer("queued", prefix, build)
    msg = f"The builds of {prefix} keep starting and ending. Send the request again."
    raise Conflict(msg)


def _existing(session: Session, prefix: str) -> Build | None:
    return session.scalar(
        select(Build).where(Build.prefix == prefix, HOLDS_PREFIX).options(selectinload(Build.steps))
    )


def _insert(session: Session, row: dict[str, Any]) -> Build | None:
    """The new build, or None when another transaction's build holds the prefix."""
    # Waits for a transaction that is just inserting the same prefix, and yields to it when it commits.
    build_id = session.scalar(
        insert(Build)
        .values(row)
        .on_conflict_do_nothing(index_elements=[Build.prefix], index_where=HOLDS_PREFIX)
        .returning(Build.id)
    )
    if build_id is None:
        return None
    session.add_all(
        BuildStep(build_id=build_id, name=name, position=position)
        for position, name in enumerate(StepName, start=1)
    )
    session.flush()
    return get(session, build_id)


def _refuse_other_commit(build: Build, sha: str) -> None:
    if not (build.sha.startswith(sha) or sha.startswith(build.sha)):
        msg = (
            f"{build.prefix} is commit {build.sha}; yours, {sha}, shares its version and first 7 digits. "
            "Raise the version in search-config.toml."
        )
        raise PrefixCollision(msg, prefix=build.prefix, build=build.id)


def get(session: Session, build_id: UUID) -> Build:
    """The build with its steps. Raises NotFound."""
    build = session.get(Build, build_id, options=[selectinload(Build.steps)])
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
    query = select(Build).options(selectinload(Build.steps))
    if state is not None:
        query = query.where(Build.state == state)
    if prefix is not None:
        query = query.where(Build.prefix == prefix)
    if branch is not None:
        query = query.where(Build.branch == branch)
    return paginate(session, query, Build.created_at, Build.id, limit=limit, cursor=cursor)


def read_log(session: Session, build_id: UUID, offset: int, limit_bytes: int) -> tuple[bytes, int]:
    """Up to `limit_bytes` (4 at least) of the log's UTF-8 from byte `offset` on, and its whole size.

    It ends between two characters. What it reads depends on the limit, not on the log's size.
    """
    # By the primary key alone: the chunk that holds the offset, and those that begin within the limit.
    first = (
        select(func.coalesce(func.max(BuildLogChunk.start), 0))
        .where(BuildLogChunk.build_id == build_id, BuildLogChunk.start <= offset)
        .scalar_subquery()
    )
    rows = session.execute(
        select(BuildLogChunk.start, BuildLogChunk.content)
        .where(
            BuildLogChunk.build_id == build_id,
            BuildLogChunk.start >= first,
            BuildLogChunk.start < offset + limit_bytes,
        )
        .order_by(BuildLogChunk.start)
    )
    found = bytearray()
    for start, content in rows:
        found += content.encode()[max(0, offset - start) :]
    # Asked after the rows, so that it is never less than what they hold.
    return _whole_characters(found, limit_bytes), log_size(session, build_id)


def log_size(session: Session, build_id: UUID) -> int:
    """Bytes of the log so far."""
    end = session.scalar(
        select(BuildLogChunk.start + BuildLogChunk.size_bytes)
        .where(BuildLogChunk.build_id == build_id)
        .order_by(BuildLogChunk.start.desc())
        .limit(1)
    )
    return end or 0


def _whole_characters(text: bytearray, limit_bytes: int) -> bytes:
    """The first `limit_bytes` of UTF-8, less the character that would be cut in two."""
    end = min(limit_bytes, len(text))
    # A byte 10xxxxxx goes on with the character of the bytes before it.
    while 0 < end < len(text) and text[end] & 0xC0 == 0x80:
        end -= 1
    return bytes(text[:end])
