"""Requests for builds, as CI makes them. Each prefix is built once, however often it is requested."""

from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session, selectinload, undefer

from app.db.tables import HOLDS_PREFIX, Build
from app.queue import enqueue_build
from app.registry.builds import events
from app.registry.builds.listing import get
from app.registry.errors import ConfigDiffers, Conflict, Invalid, InvalidConfig, PrefixCollision
from app.registry.prefixes import NotNeeded, Prefix, decide, parse_sha
from app.words import Actor, BuildState, EventType, Stage
from training.config import ConfigError, SearchConfig, parse_config


@dataclass(frozen=True)
class BuildRequest:
    """A request for the build of a commit. The configurations are TOML text."""

    sha: str
    branch: str
    search_config: str
    base_search_config: str | None = None
    promote_to: Stage | None = None
    force: bool = False
    requested_by: str = "anonymous"
    requested_by_kind: Actor = Actor.ANONYMOUS


@dataclass(frozen=True)
class BuildAnswer:
    outcome: Literal["queued", "exists", "not_needed"]
    prefix: str
    build: Build | None
    reason: NotNeeded | None = None


def request(session: Session, wanted: BuildRequest) -> BuildAnswer:
    """Record and enqueue the build of a commit's prefix, unless it has one already or does not need one.

    The row and its job are made in the caller's transaction, so a build cannot be committed without its job.
    However many callers ask at the same moment, a prefix gets one build.

    Raises InvalidConfig, Invalid (sha, promote_to), PrefixCollision and ConfigDiffers.
    """
    try:
        config = parse_config(wanted.search_config)
    except ConfigError as exc:
        raise InvalidConfig(f"search_config cannot be used: {exc}", problems=exc.problems) from exc
    except (ValueError, RecursionError) as exc:
        # The TOML parser cannot handle everything, such as huge numbers or a thousand nested arrays.
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
        "requested_by_kind": wanted.requested_by_kind,
    }
    # The build that prevents our insert can fail before we read it. Then try again.
    for _ in range(10):
        if build := _existing(session, prefix):
            _refuse_other_commit(build, sha)
            _refuse_other_config(build, config)
            return BuildAnswer("exists", prefix, build)
        if build := _insert(session, row):
            enqueue_build(session, build.id)
            return BuildAnswer("queued", prefix, build)
    msg = f"The builds of {prefix} keep starting and ending. Send the request again."
    raise Conflict(msg)


def _existing(session: Session, prefix: str) -> Build | None:
    return session.scalar(
        select(Build)
        .where(Build.prefix == prefix, HOLDS_PREFIX)
        .options(selectinload(Build.steps), selectinload(Build.launches), undefer(Build.search_config))
    )


def _insert(session: Session, row: dict[str, Any]) -> Build | None:
    """The new build, or None if another build already holds the prefix."""
    # If another transaction is inserting the same prefix, Postgres waits here until it commits or rolls back.
    build_id = session.scalar(
        insert(Build)
        .values(row)
        .on_conflict_do_nothing(index_elements=[Build.prefix], index_where=HOLDS_PREFIX)
        .returning(Build.id)
    )
    if build_id is None:
        return None
    events.add(session, build_id, EventType.STATE, {"state": BuildState.QUEUED})
    return get(session, build_id)


def _refuse_other_commit(build: Build, sha: str) -> None:
    # An earlier release stored the sha as it was sent, so it may have fewer than 40 digits.
    if not sha.startswith(build.sha):
        message = (
            f"{build.prefix} is the commit {build.sha}. Yours, {sha}, shares its version and first 7 digits. "
            "Raise the version in search-config.toml."
        )
        raise PrefixCollision(message, prefix=build.prefix, build=build.id)


def _refuse_other_config(build: Build, config: SearchConfig) -> None:
    """Raises ConfigDiffers if any value differs. Layout and comments do not count."""
    try:
        built = parse_config(build.search_config).model_dump()
    except (ValueError, RecursionError):
        # An earlier release accepted this configuration, and this one cannot read it.
        return
    wanted = config.model_dump()
    differing = tuple(sorted(key for key in wanted if wanted[key] != built.get(key)))
    if differing:
        message = (
            f"{build.prefix} has a build with other values of {', '.join(differing)}. Raise the version in "
            "search-config.toml, or send the configuration that it was built with."
        )
        raise ConfigDiffers(message, prefix=build.prefix, build=build.id, keys=differing)
