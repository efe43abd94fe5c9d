"""What the registry knows of its models, as the retention policy wants to have it.

A few statements find it, however many models there are.
"""

from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import NamedTuple

from sqlalchemy import Integer, Text, case, cast, func, select, text
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Session

from app.db.tables import (
    ACTIVE_BUILD,
    UNSUCCESSFUL_BUILD,
    Build,
    GitBranch,
    GitRepository,
    Model,
    ModelCommit,
    Promotion,
)
from app.registry.collection import rules
from app.registry.collection.retention import (
    Branches,
    Context,
    Facts,
    InStage,
    Policy,
    Rule,
    against_retiring,
)
from app.registry.stages import baseline, history
from app.words import BuildKind, KeepReason, ModelState, Stage, Verdict

# The models that the policy is about. What is left of the others is a record.
_THERE = [state for state in ModelState if not state.gone]
# Where models stay when they were promoted there.
_WHERE_MODELS_STAY = {stage.value: stage for stage in (Stage.STAGING, Stage.PRODUCTION)}


class Row(NamedTuple):
    """A model as its statement finds it."""

    published_at: datetime
    # As text, because making a UUID takes longer than all the rest of the row.
    id: str
    prefix: str
    version: str
    branch: str | None
    state: str
    is_pinned: bool
    released_at: datetime | None
    commit_known: bool
    # One on each line.
    holders: str | None
    objects: int
    size_bytes: int
    restored_at: datetime | None


# A row as the driver makes it. There are many of them, and Python's garbage collector stops looking at a
# plain tuple of plain values: with objects in their place, it would take as long as all the rest.
Plain = tuple[
    datetime,
    str,
    str,
    str,
    str | None,
    str,
    bool,
    datetime | None,
    bool,
    str | None,
    int,
    int,
    datetime | None,
]


@dataclass(frozen=True, slots=True)
class Stages:
    """Staging and production, if a model reached them, and when it was last promoted to one of them."""

    reached: tuple[InStage, ...]
    last_promoted_at: datetime | None

    def released(self, released_at: datetime | None) -> bool:
        """Whether a release covers every promotion. It covers those that are older than it."""
        if released_at is None:
            return False
        return self.last_promoted_at is None or self.last_promoted_at < released_at


_NOWHERE = Stages((), None)


@dataclass(frozen=True)
class Surroundings:
    """What other tables say about single models, by their prefixes."""

    stages: Mapping[str, Stages]
    needed_by: Mapping[str, frozenset[KeepReason]]
    passed: Mapping[str, int]
    latest_in_development: str | None

    @cached_property
    def _noted(self) -> frozenset[str]:
        """The models about which other tables say anything."""
        latest = () if self.latest_in_development is None else (self.latest_in_development,)
        return frozenset().union(self.stages, self.needed_by, self.passed, latest)

    def decisive(self, rows: Iterable[Plain], context: Context) -> Iterator[Hashable]:
        """For each of the models, everything that its judgement depends on. Many have all of it in common.

        There are very many of them, so nothing is called for those that have nothing special.
        """
        branches, noted = _Branches(context), self._noted
        old_enough = context.old_enough
        globs = context.kept_versions is not None
        for row in rows:
            published, _, prefix, version, branch, _, pinned, released, known, holders, _, _, restored = row
            yield (
                branches[branch],
                known,
                not holders,
                published < old_enough,
                restored is not None and restored >= old_enough,
                pinned,
                globs and context.keeps_version(version),
                self._special(prefix, version, branch, released, context) if prefix in noted else None,
            )

    def _special(
        self, prefix: str, version: str, branch: str | None, released_at: datetime | None, context: Context
    ) -> Hashable:
        """What of the other tables the judgement of the model depends on."""
        stages = self.stages.get(prefix)
        return (
            self.passed.get(prefix),
            self.needed_by.get(prefix),
            prefix == self.latest_in_development,
            None
            if stages is None
            else (
                stages.released(released_at),
                context.rule_for(version, branch) is None,
                tuple([(each.stage, against_retiring(each, context)) for each in stages.reached]),
            ),
        )

    def facts(self, row: Row) -> Facts:
        stages = self.stages.get(row.prefix, _NOWHERE)
        return Facts(
            prefix=row.prefix,
            version=row.version,
            published_at=row.published_at,
            branch=row.branch,
            commit_known=row.commit_known,
            holders=tuple(row.holders.split("\n")) if row.holders else (),
            stages=stages.reached,
            is_latest_in_development=row.prefix == self.latest_in_development,
            needed_by=self.needed_by.get(row.prefix, frozenset()),
            passed_rank=self.passed.get(row.prefix),
            is_pinned=row.is_pinned,
            is_released=stages.released(row.released_at),
            restored_at=row.restored_at,
        )


class _Branches(dict[str | None, int]):
    """What the name of a branch says for the judgement, as a number that is the same for equal answers."""

    def __init__(self, context: Context) -> None:
        super().__init__()
        self._context = context
        self._numbers: dict[Hashable, int] = {}

    def __missing__(self, branch: str | None) -> int:
        says = (branch is None, self._context.by_name(branch), self._context.keeps_branch(branch))
        number = self[branch] = self._numbers.setdefault(says, len(self._numbers))
        return number


def context(
    session: Session,
    policy: Policy,
    now: datetime | None = None,
    release_rules: tuple[Rule, ...] | None = None,
) -> Context:
    """What models are judged by at this moment.

    `now` is the database's time unless it is given, and `release_rules` are those that hold now.
    """
    if now is None:
        now = session.execute(select(func.clock_timestamp())).scalar_one()
    if policy.retire_after is None:
        release_rules = ()
    elif release_rules is None:
        release_rules = rules.active(session)
    repository = session.get(GitRepository, 1, populate_existing=True)
    if repository is None or repository.fetched_at is None:
        return Context(policy, None, now, release_rules)
    names = session.scalars(select(GitBranch.name).where(GitBranch.counts))
    branches = Branches(
        repository.fetched_at,
        frozenset(names),
        frozenset(repository.main_names),
        repository.fingerprint or "",
    )
    return Context(policy, branches, now, release_rules)


def has_other_branches(session: Session, context: Context) -> bool:
    """Whether a worker has stored other branches since, which facts that were read later may follow from."""
    if context.branches is None:
        return False
    return session.scalar(select(GitRepository.fingerprint)) != context.branches.fingerprint


def rows(session: Session, prefixes: Collection[str] | None = None) -> list[Plain]:
    """The models whose files are there, or those of these prefixes, newest first."""
    promotions = select(Promotion.model_id, func.count(Promotion.stage.distinct()).label("stages"))
    if prefixes is not None:
        these = select(Model.id).where(Model.prefix.in_(prefixes))
        promotions = promotions.where(Promotion.model_id.in_(these))
    promoted = promotions.group_by(Promotion.model_id).subquery()
    verdict_marker = cast(Model.verdict != Verdict.UNKNOWN, Integer)
    query = (
        select(
            Model.published_at,
            cast(Model.id, Text),
            Model.prefix,
            Model.version,
            Model.branch,
            Model.state,
            Model.pinned_at.is_not(None),
            # What a rule gave holds as long as the rule does, and the context has the rules that hold.
            case((Model.released_by_rule.is_(None), Model.released_at)),
            ModelCommit.sha.is_not(None),
            func.array_to_string(ModelCommit.holders, "\n"),
            Model.file_count + verdict_marker + func.coalesce(promoted.c.stages, 0),
            Model.file_bytes,
            Model.restored_at,
        )
        .outerjoin(ModelCommit, ModelCommit.model_id == Model.id)
        .outerjoin(promoted, promoted.c.model_id == Model.id)
        .where(Model.state.in_(_THERE))
        .order_by(Model.published_at.desc(), Model.id.desc())
    )
    if prefixes is not None:
        query = query.where(Model.prefix.in_(prefixes))
    else:
        # Otherwise, Postgres would sort and join them in files.
        session.execute(text("SET LOCAL work_mem = '64MB'"))
    result = session.connection().execute(query)
    # The driver's own tuples: to make rows of SQLAlchemy first would take half as long as the statement.
    found: Iterable[Plain] = () if result.cursor is None else result.cursor.fetchall()
    result.close()
    return list(found)


def surroundings(session: Session, context: Context, prefixes: Collection[str] | None = None) -> Surroundings:
    """What is known of all models, or of those with these prefixes."""
    latest = history.running(session, Stage.DEVELOPMENT)
    return Surroundings(
        _in_stages(session, prefixes),
        _needed_by(session, context),
        _newest_passed(session, context),
        None if latest is None else latest.prefix,
    )


def _in_stages(session: Session, prefixes: Collection[str] | None) -> dict[str, Stages]:
    """The models that reached staging or production, by prefix."""
    ordered = select(
        Promotion.stage,
        Promotion.model_id,
        Promotion.promoted_at,
        Promotion.id,
        # The promotion that took its place, since the order is from the newest to the oldest.
        func.lag(Promotion.promoted_at)
        .over(partition_by=Promotion.stage, order_by=history.newest_first())
        .label("superseded_at"),
    ).where(Promotion.stage.in_(_WHERE_MODELS_STAY))
    if prefixes is not None:
        reached = (
            select(Promotion.stage)
            .join(Model, Model.id == Promotion.model_id)
            .where(Model.prefix.in_(prefixes), Promotion.stage.in_(_WHERE_MODELS_STAY))
            .distinct()
        )
        stages = list(session.scalars(reached))
        if not stages:
            return {}
        ordered = ordered.where(Promotion.stage.in_(stages))
    each = ordered.subquery()
    # Of several promotions of a model to a stage, the last one says when another model took its place.
    last = (
        select(each)
        .ext(distinct_on(each.c.stage, each.c.model_id))
        .order_by(each.c.stage, each.c.model_id, each.c.promoted_at.desc(), each.c.id.desc())
        .subquery()
    )
    rank = func.row_number().over(
        partition_by=last.c.stage, order_by=(last.c.promoted_at.desc(), last.c.id.desc())
    )
    ranked = select(last, (rank - 1).label("rank")).subquery()
    query = (
        select(Model.prefix, ranked.c.stage, ranked.c.rank, ranked.c.superseded_at, ranked.c.promoted_at)
        .join(Model, Model.id == ranked.c.model_id)
        .order_by(ranked.c.stage)
    )
    if prefixes is not None:
        query = query.where(Model.prefix.in_(prefixes))
    found: dict[str, Stages] = {}
    for prefix, stage, position, superseded_at, promoted_at in session.execute(query):
        before = found.get(prefix)
        here = InStage(_WHERE_MODELS_STAY[stage], position, superseded_at)
        found[prefix] = (
            Stages((here,), promoted_at)
            if before is None
            else Stages((*before.reached, here), max(promoted_at, before.last_promoted_at or promoted_at))
        )
    return found


def _needed_by(session: Session, context: Context) -> dict[str, frozenset[KeepReason]]:
    """What needs models at the moment, by their prefixes."""
    found: dict[str, set[KeepReason]] = {}
    for prefix, kind in session.execute(select(Build.prefix, Build.kind).where(ACTIVE_BUILD)):
        reproduced = kind == BuildKind.REPRODUCE
        reason = KeepReason.ACTIVE_REPRODUCTION if reproduced else KeepReason.ACTIVE_BUILD
        found.setdefault(prefix, set()).add(reason)
    since = context.now - context.policy.retry_window
    for prefix in session.scalars(
        select(Build.prefix).where(UNSUCCESSFUL_BUILD, Build.finished_at > since).distinct()
    ):
        found.setdefault(prefix, set()).add(KeepReason.RETRY_WINDOW)
    compared_with, _ = baseline.current(session)
    if compared_with is not None:
        found.setdefault(compared_with.prefix, set()).add(KeepReason.VALIDATION_BASELINE)
    return {prefix: frozenset(reasons) for prefix, reasons in found.items()}


def _newest_passed(session: Session, context: Context) -> Mapping[str, int]:
    """The newest models that passed their validation, each with how many are newer."""
    newest = (
        select(Model.prefix)
        .where(Model.verdict == Verdict.PASSED, Model.state.in_(_THERE))
        .order_by(Model.published_at.desc(), Model.id.desc())
        .limit(context.policy.keep_newest_passed)
    )
    return {prefix: rank for rank, prefix in enumerate(session.scalars(newest))}
