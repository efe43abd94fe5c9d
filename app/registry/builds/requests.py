"""Requests for builds, as CI makes them. Each prefix is built once, however often it is requested."""

from dataclasses import dataclass, replace
from typing import Literal

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db.tables import Build, Model
from app.registry.access import audit
from app.registry.builds import holders, listing
from app.registry.builds.holders import Holder, holder_of
from app.registry.builds.queueing import NewBuild, queue
from app.registry.errors import (
    ConfigDiffers,
    Conflict,
    Invalid,
    InvalidConfig,
    InvalidThresholds,
    PrefixCollision,
)
from app.registry.models import thresholds
from app.registry.prefixes import Base, NotNeeded, Prefix, decide, parse_sha, parse_version
from app.registry.public import public_text
from app.words import Actor, AuditAction, ModelState, Stage
from training.config import ConfigError, SearchConfig, differences, parse_config, warnings_of

# The most names that an answer lists. They say that there are others, and GET /models lists them all.
MOST_NAMED = 20
_LONGEST_KEY = 100


@dataclass(frozen=True)
class BuildRequest:
    """A request for the build of a commit. The configurations and the thresholds are TOML text."""

    sha: str
    branch: str
    search_config: str
    base_search_config: str | None = None
    thresholds: str | None = None
    promote_to: Stage | None = None
    force: bool = False
    dry_run: bool = False
    allow_prereleases: bool = True
    requested_by: str = "anonymous"
    requested_by_kind: Actor = Actor.ANONYMOUS


@dataclass(frozen=True)
class BuildAnswer:
    """The answer to a request, and what its author should know about the version.

    `other_models` are the prefixes of models of the same version at other commits, newest first.
    `changed_keys` are those whose values differ from the base's although the version is not higher.
    `base_problem` says why the versions could not be compared. `warnings` are about the configuration itself.
    """

    outcome: Literal["queued", "exists", "needed", "not_needed"]
    prefix: str
    build: Build | None = None
    reason: NotNeeded | None = None
    base_problem: str | None = None
    changed_keys: tuple[str, ...] = ()
    other_models: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def request(session: Session, wanted: BuildRequest) -> BuildAnswer:
    """Record and enqueue the build of a commit's prefix, unless it has one already or does not need one.

    The row and its job are made in the caller's transaction, so a build cannot be committed without its job.
    However many callers ask at the same moment, a prefix gets one build. A model of the prefix that is marked
    for garbage collection is restored. A dry run changes nothing.

    Raises InvalidConfig, InvalidThresholds, Invalid (sha, promote_to, a pre-release), PrefixCollision,
    ConfigDiffers and PrefixCollected.
    """
    config = _config_of(wanted.search_config)
    _check_thresholds(wanted.thresholds)
    if not wanted.allow_prereleases and parse_version(config.version).prerelease:
        message = (
            f"version {config.version!r} is a pre-release, and this registry is set to refuse them. "
            "Write MAJOR.MINOR.PATCH, or have the operator set REGISTRY_ALLOW_PRERELEASES."
        )
        raise Invalid(message)
    sha = parse_sha(wanted.sha)
    prefix = str(Prefix.of(config.version, sha))
    _refuse_late_stage(wanted.promote_to, prefix)
    base = _base_of(wanted)
    reason = decide(config.version, base.version)
    answer = BuildAnswer(
        "not_needed",
        prefix,
        reason=reason,
        base_problem=base.problem,
        changed_keys=() if reason is None else _changed_keys(wanted),
        other_models=_other_models(session, config.version, prefix),
        warnings=warnings_of(wanted.search_config, config.device),
    )
    if reason is not None and not wanted.force:
        return answer
    new = NewBuild(
        prefix=prefix,
        version=config.version,
        sha=sha,
        branch=wanted.branch,
        search_config=wanted.search_config,
        base_search_config=wanted.base_search_config,
        thresholds=wanted.thresholds,
        promote_to=wanted.promote_to,
        forced=wanted.force,
        requested_by=wanted.requested_by,
        requested_by_kind=wanted.requested_by_kind,
    )
    return _answer_for(session, new, replace(answer, reason=None), dry_run=wanted.dry_run)


def _answer_for(session: Session, new: NewBuild, answer: BuildAnswer, *, dry_run: bool) -> BuildAnswer:
    # The build that prevents ours can fail before we read it. Then try again.
    for _ in range(10):
        if not dry_run and (build := queue(session, new)):
            _audit(session, build)
            return replace(answer, outcome="queued", build=build)
        if holder := holder_of(session, new.prefix):
            _refuse_other_commit(new, holder)
            _refuse_other_config(new, holder)
            if holder.state == ModelState.MARKED:
                answer = _wanted_again(session, new, answer, dry_run=dry_run)
            found = None if holder.build is None else listing.get(session, holder.build)
            return replace(answer, outcome="exists", build=found)
        if dry_run:
            return replace(answer, outcome="needed")
    msg = f"The builds of {new.prefix} keep starting and ending. Send the request again."
    raise Conflict(msg)


def _wanted_again(session: Session, new: NewBuild, answer: BuildAnswer, *, dry_run: bool) -> BuildAnswer:
    """Restore the marked model of the prefix. The answer says so."""
    if dry_run:
        what = "Without dry_run, this request would restore it."
    else:
        holders.restore(session, new.prefix, new.requested_by, new.requested_by_kind)
        what = "This request has restored it."
    marked = f"{new.prefix} was marked for garbage collection. {what}"
    return replace(answer, warnings=(*answer.warnings, marked))


def _audit(session: Session, build: Build) -> None:
    audit.record(
        session,
        build.requested_by,
        Actor(build.requested_by_kind),
        AuditAction.BUILD_REQUESTED,
        str(build.id),
        after={
            "prefix": build.prefix,
            "sha": build.sha,
            "branch": build.branch,
            "promote_to": build.promote_to,
            "forced": build.forced,
        },
    )


def _config_of(text: str) -> SearchConfig:
    try:
        return parse_config(text)
    except ConfigError as exc:
        raise InvalidConfig(f"search_config cannot be used: {exc}", problems=exc.problems) from exc
    except (ValueError, RecursionError) as exc:
        # The TOML parser cannot handle everything, such as huge numbers or a thousand nested arrays.
        raise InvalidConfig(f"search_config cannot be read: {exc}. Write it more simply.") from exc


def _check_thresholds(text: str | None) -> None:
    if text is None:
        return
    try:
        thresholds.parse(text)
    except ConfigError as exc:
        raise InvalidThresholds(f"thresholds cannot be used: {exc}", problems=exc.problems) from exc


def _refuse_late_stage(stage: Stage | None, prefix: str) -> None:
    if stage is not None and stage.before is not None:
        msg = (
            f"promote_to can only be {Stage.DEVELOPMENT}: a new model was never in {stage.before}. "
            f"Promote it further with POST /models/{prefix}/promotions."
        )
        raise Invalid(msg)


def _base_of(wanted: BuildRequest) -> Base:
    try:
        return Base.read(wanted.base_search_config)
    except InvalidConfig as exc:
        if not wanted.force:
            raise
        return Base(None, exc.message)


def _changed_keys(wanted: BuildRequest) -> tuple[str, ...]:
    """The keys that changed against the base, except the version itself."""
    found = differences(wanted.base_search_config or "", wanted.search_config)
    return tuple(one.key[:_LONGEST_KEY] for one in found if one.key != "version")[:MOST_NAMED]


def _other_models(session: Session, version: str, prefix: str) -> tuple[str, ...]:
    found = session.execute(
        select(Model.prefix)
        .where(Model.version == version, Model.prefix != prefix, Model.state == ModelState.KEPT)
        .order_by(Model.published_at.desc(), Model.id.desc())
        .limit(MOST_NAMED)
    )
    return tuple(found.scalars())


def _refuse_other_commit(new: NewBuild, holder: Holder) -> None:
    # An earlier release stored the sha as it was sent, so it may have fewer than 40 digits.
    if not new.sha.startswith(holder.sha):
        message = (
            f"{new.prefix} is the commit {holder.sha}. Yours, {new.sha}, shares its version and first 7 "
            "digits. Raise the version in search-config.toml."
        )
        raise PrefixCollision(message, prefix=new.prefix, build=holder.build)


def _refuse_other_config(new: NewBuild, holder: Holder) -> None:
    """Raises ConfigDiffers if any value differs. Layout and comments do not count."""
    if holder.search_config is None:
        return
    found = tuple(
        replace(one, there=one.there and public_text(one.there), sent=one.sent and public_text(one.sent))
        for one in differences(holder.search_config, new.search_config)
    )
    if found:
        keys = tuple(one.key for one in found)
        message = (
            f"{new.prefix} has a {holder.what} with other values of {', '.join(keys)}. Raise the version in "
            "search-config.toml, or send the configuration that it was built with."
        )
        raise ConfigDiffers(message, prefix=new.prefix, build=holder.build, keys=keys, differences=found)
