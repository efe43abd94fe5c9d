"""The retention policy: one pure function from what is known of a model to whether it may be deleted.

A model may go when nothing keeps it. Each fact that keeps it is a reason of its own, and what is not known
keeps it too. The reasons do not depend on other models, so a reason to keep one model never dooms another.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from fnmatch import translate
from functools import cached_property
from typing import Self
from uuid import UUID

from app.settings import Settings
from app.words import CollectReason, KeepReason, PlanVerdict, Stage

# What git says of the branch of a checkout that is at none.
_NO_BRANCH = "HEAD"


@dataclass(frozen=True)
class Policy:
    """What the settings say about the models to keep. docs/garbage-collection.md describes it."""

    minimum_age: timedelta
    keep_newest_passed: int
    keep_branches: tuple[str, ...]
    keep_versions: tuple[str, ...]
    branches_max_age: timedelta
    retire_after: timedelta | None
    rollback_targets: int
    retry_window: timedelta

    @classmethod
    def of(cls, settings: Settings) -> Self:
        return cls(
            minimum_age=settings.gc_minimum_age,
            keep_newest_passed=settings.gc_keep_newest_passed,
            keep_branches=settings.gc_keep_branches,
            keep_versions=settings.gc_keep_versions,
            branches_max_age=settings.gc_branches_max_age,
            retire_after=settings.gc_retire_after,
            rollback_targets=settings.gc_rollback_targets,
            retry_window=settings.retry_window,
        )


@dataclass(frozen=True)
class Branches:
    """The branches of the git repository at the time when they were fetched.

    `names` has those that count: bots' branches keep no model. `main_names` has every name that the main
    branch ever had. `fingerprint` is another one when the branches are others.
    """

    fetched_at: datetime
    names: frozenset[str]
    main_names: frozenset[str]
    fingerprint: str = ""


@dataclass(frozen=True, slots=True)
class InStage:
    """A model in a stage to which it was promoted.

    `rank` is how many other models the stage has run since; the one that runs there now has the rank 0.
    `superseded_at` is when the next model took its place.
    """

    stage: Stage
    rank: int
    superseded_at: datetime | None


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of one model.

    `branch` is the branch that its build recorded; an imported model has none. `commit_known` says whether
    its commit was ever seen in the git repository, and `holders` are branches, other than the main one, that
    have it now. `stages` are staging and production, if it reached them. `passed_rank` is how many newer
    models have passed their validation; it is None for models that did not pass, and may be None for those
    that are not among the newest. `needed_by` are the builds and comparisons that need it. `is_released` says
    whether a person has released this very model since its last promotion. `restored_at` is when its last
    mark was taken back.
    """

    prefix: str
    version: str
    published_at: datetime
    branch: str | None
    commit_known: bool
    holders: tuple[str, ...] = ()
    stages: tuple[InStage, ...] = ()
    is_latest_in_development: bool = False
    needed_by: frozenset[KeepReason] = frozenset()
    passed_rank: int | None = None
    is_pinned: bool = False
    is_released: bool = False
    restored_at: datetime | None = None


@dataclass(frozen=True)
class Rule:
    """A rule by which a person with `admin` releases models that were in staging or production.

    `versions` and `branches` are patterns, as in the settings. A model must fit each of them that is given.
    """

    id: UUID
    versions: str | None
    branches: str | None
    set_by: str

    def __str__(self) -> str:
        given = {"versions": self.versions, "branches": self.branches}
        return ", ".join(f"{name} {glob}" for name, glob in given.items() if glob is not None)

    def fits(self, version: str, branch: str | None) -> bool:
        """Whether it releases models of this version and branch. A rule without a pattern releases none."""
        of_version = self.versions is None or _fits(self._versions, version)
        of_branch = self.branches is None or _fits(self._branches, branch)
        return of_version and of_branch and (self.versions is not None or self.branches is not None)

    @cached_property
    def _versions(self) -> re.Pattern[str] | None:
        return None if self.versions is None else any_of((self.versions,))

    @cached_property
    def _branches(self) -> re.Pattern[str] | None:
        return None if self.branches is None else any_of((self.branches,))


@dataclass(frozen=True)
class Context:
    """What the facts of all models are judged by. Without branches, nothing is known of any branch."""

    policy: Policy
    branches: Branches | None
    now: datetime
    # Those that hold, in the order in which they were set.
    rules: tuple[Rule, ...] = ()

    @cached_property
    def current_branches(self) -> Branches | None:
        """The branches, unless they are too old to be relied on."""
        if self.branches is None or self.now - self.branches.fetched_at > self.policy.branches_max_age:
            return None
        return self.branches

    @cached_property
    def branch_names(self) -> frozenset[str]:
        """The names of the branches, in each of the ways in which a build may have recorded them."""
        names = self.current_branches.names if self.current_branches else ()
        return frozenset(spelling for name in names for spelling in _spellings(name))

    @cached_property
    def main_names(self) -> frozenset[str]:
        names = self.current_branches.main_names if self.current_branches else ()
        return frozenset(spelling for name in names for spelling in _spellings(name))

    @cached_property
    def old_enough(self) -> datetime:
        """Models that were published before this moment have reached the minimum age."""
        return self.now - self.policy.minimum_age

    def by_name(self, branch: str | None) -> KeepReason | None:
        """Why the name of the branch that a build recorded keeps its model. None if it does not."""
        if branch in self.branch_names:
            return KeepReason.BRANCH_EXISTS
        if branch in self.main_names:
            return KeepReason.FORMER_MAIN_BRANCH
        return KeepReason.BRANCH_NOT_RECORDED if branch == _NO_BRANCH else None

    def keeps_branch(self, branch: str | None) -> bool:
        """Whether a setting keeps the models of the branch."""
        return _fits(self.kept_branches, branch)

    def keeps_version(self, version: str) -> bool:
        """Whether a setting keeps the models of the version."""
        return _fits(self.kept_versions, version)

    def rule_for(self, version: str, branch: str | None) -> Rule | None:
        """The first rule that releases models of this version and branch."""
        return next((rule for rule in self.rules if rule.fits(version, branch)), None)

    @cached_property
    def kept_branches(self) -> re.Pattern[str] | None:
        return any_of(self.policy.keep_branches)

    @cached_property
    def kept_versions(self) -> re.Pattern[str] | None:
        return any_of(self.policy.keep_versions)


def any_of(globs: tuple[str, ...]) -> re.Pattern[str] | None:
    """A pattern that fits whatever one of the globs fits. None without any glob."""
    return re.compile("|".join(map(translate, globs))) if globs else None


def _fits(pattern: re.Pattern[str] | None, text: str | None) -> bool:
    return pattern is not None and text is not None and bool(pattern.match(text))


def _spellings(branch: str) -> tuple[str, ...]:
    return branch, f"refs/heads/{branch}", f"origin/{branch}", f"refs/remotes/origin/{branch}"


@dataclass(frozen=True, slots=True)
class Judgement:
    """Why a model is kept, or, if nothing keeps it, why it may go."""

    keep: tuple[KeepReason, ...]
    collect: CollectReason | None

    @property
    def verdict(self) -> PlanVerdict:
        return PlanVerdict.KEPT if self.collect is None else PlanVerdict.DOOMED

    @property
    def reasons(self) -> tuple[KeepReason, ...] | tuple[CollectReason, ...]:
        return self.keep if self.collect is None else (self.collect,)


def judge(facts: Facts, context: Context) -> Judgement:
    """Whether the model may be deleted, and why, or why not."""
    keep = tuple(_reasons_to_keep(facts, context))
    if keep:
        return Judgement(keep, None)
    if facts.stages:
        by_rule = not facts.is_released
        return Judgement((), CollectReason.RETIRED_BY_RULE if by_rule else CollectReason.RETIRED)
    # The branch of an imported model is not known, so its commit alone decides.
    return Judgement(
        (), CollectReason.COMMIT_ON_NO_BRANCH if facts.branch is None else CollectReason.BRANCH_GONE
    )


def _reasons_to_keep(facts: Facts, context: Context) -> Iterator[KeepReason]:
    if facts.stages:
        yield from _of_stages(facts, context)
    if facts.is_latest_in_development:
        yield KeepReason.LATEST_IN_DEVELOPMENT
    yield from _of_branches(facts, context)
    if facts.needed_by:
        yield from sorted(facts.needed_by)
    if facts.is_pinned:
        yield KeepReason.PINNED
    if facts.published_at >= context.old_enough:
        yield KeepReason.TOO_YOUNG
    if facts.restored_at is not None and facts.restored_at >= context.old_enough:
        # Otherwise, the next run would mark again what a person has just brought back.
        yield KeepReason.RESTORED_RECENTLY
    if facts.passed_rank is not None and facts.passed_rank < context.policy.keep_newest_passed:
        yield KeepReason.NEWEST_PASSED
    if context.keeps_branch(facts.branch):
        yield KeepReason.BRANCH_RULE
    if context.keeps_version(facts.version):
        yield KeepReason.VERSION_RULE


def _of_stages(facts: Facts, context: Context) -> Iterator[KeepReason]:
    """Nothing, if the model may be retired. Otherwise, that it reached the stages, and what is in the way."""
    in_the_way = {reason for each in facts.stages for reason in against_retiring(each, context)}
    if context.policy.retire_after is not None and not _is_released(facts, context):
        in_the_way.add(KeepReason.NOT_RELEASED)
    if context.policy.retire_after is None or in_the_way:
        reached = {each.stage for each in facts.stages}
        if Stage.STAGING in reached:
            yield KeepReason.REACHED_STAGING
        if Stage.PRODUCTION in reached:
            yield KeepReason.REACHED_PRODUCTION
    yield from sorted(in_the_way)


def _is_released(facts: Facts, context: Context) -> bool:
    return facts.is_released or context.rule_for(facts.version, facts.branch) is not None


def against_retiring(place: InStage, context: Context) -> tuple[KeepReason, ...]:
    """What keeps a model from being retired because of its place in a stage."""
    policy = context.policy
    if policy.retire_after is None:
        return ()
    found = []
    if place.superseded_at is None:
        found.append(KeepReason.RUNS_IN_A_STAGE)
    elif context.now - place.superseded_at <= policy.retire_after:
        found.append(KeepReason.SUPERSEDED_RECENTLY)
    if place.rank < policy.rollback_targets:
        found.append(KeepReason.ROLLBACK_TARGET)
    return tuple(found)


def _of_branches(facts: Facts, context: Context) -> Iterator[KeepReason]:
    if context.current_branches is None:
        yield KeepReason.BRANCHES_UNKNOWN
        return
    by_name = context.by_name(facts.branch)
    if by_name is not None:
        yield by_name
    if facts.holders:
        yield KeepReason.COMMIT_ON_BRANCH
    elif not facts.commit_known:
        yield KeepReason.COMMIT_UNKNOWN
