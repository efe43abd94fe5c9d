"""The retention policy: for whatever happened, what must be kept is kept."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.registry.collection import sentences
from app.registry.collection.retention import (
    Branches,
    Context,
    Facts,
    InStage,
    Judgement,
    Policy,
    Rule,
    judge,
)
from app.settings import Settings
from app.words import CollectReason, KeepReason, PlanVerdict, Stage

NOW = datetime(2026, 11, 26, tzinfo=UTC)
DAY = timedelta(days=1)
POLICY = Policy(
    minimum_age=14 * DAY,
    keep_newest_passed=2,
    keep_branches=(),
    keep_versions=(),
    branches_max_age=timedelta(hours=1),
    retire_after=None,
    rollback_targets=2,
    retry_window=DAY,
)
BRANCHES = Branches(NOW, frozenset({"main", "feature/lives"}), frozenset({"main", "master"}))
# Of an old model of a deleted branch, whose squashed commit was seen before.
GOES = Facts("0.0.2-aff1242", "0.0.2", NOW - 30 * DAY, "feature/gone", commit_known=True)


def judged(facts: Facts, branches: Branches | None = BRANCHES, **policy: Any) -> Judgement:
    return judge(facts, Context(replace(POLICY, **policy), branches, NOW))


def in_stage(stage: Stage, rank: int, days: int | None) -> InStage:
    return InStage(stage, rank, None if days is None else NOW - days * DAY)


def test_a_model_that_nothing_keeps_goes_because_its_branch_is_gone() -> None:
    assert judged(GOES) == Judgement((), CollectReason.BRANCH_GONE)
    assert judged(replace(GOES, branch=None)) == Judgement((), CollectReason.COMMIT_ON_NO_BRANCH)


@pytest.mark.parametrize(
    ("changes", "reasons"),
    [
        ({"stages": (in_stage(Stage.STAGING, 9, 90),)}, {KeepReason.REACHED_STAGING}),
        ({"stages": (in_stage(Stage.PRODUCTION, 9, 90),)}, {KeepReason.REACHED_PRODUCTION}),
        ({"is_latest_in_development": True}, {KeepReason.LATEST_IN_DEVELOPMENT}),
        ({"branch": "feature/lives"}, {KeepReason.BRANCH_EXISTS}),
        ({"branch": "refs/heads/feature/lives"}, {KeepReason.BRANCH_EXISTS}),
        ({"branch": "origin/feature/lives"}, {KeepReason.BRANCH_EXISTS}),
        ({"branch": "main"}, {KeepReason.BRANCH_EXISTS}),
        ({"branch": "master"}, {KeepReason.FORMER_MAIN_BRANCH}),
        ({"branch": "HEAD"}, {KeepReason.BRANCH_NOT_RECORDED}),
        ({"holders": ("feature/renamed",)}, {KeepReason.COMMIT_ON_BRANCH}),
        ({"commit_known": False}, {KeepReason.COMMIT_UNKNOWN}),
        ({"branch": None, "commit_known": False}, {KeepReason.COMMIT_UNKNOWN}),
        ({"needed_by": frozenset({KeepReason.ACTIVE_REPRODUCTION})}, {KeepReason.ACTIVE_REPRODUCTION}),
        ({"is_pinned": True}, {KeepReason.PINNED}),
        ({"published_at": NOW - 14 * DAY}, {KeepReason.TOO_YOUNG}),
        ({"published_at": NOW + DAY}, {KeepReason.TOO_YOUNG}),
        ({"restored_at": NOW - DAY}, {KeepReason.RESTORED_RECENTLY}),
        ({"passed_rank": 1}, {KeepReason.NEWEST_PASSED}),
        (
            {"is_pinned": True, "branch": "feature/lives", "passed_rank": 0},
            {KeepReason.PINNED, KeepReason.BRANCH_EXISTS, KeepReason.NEWEST_PASSED},
        ),
    ],
)
def test_each_fact_that_keeps_a_model_is_a_reason(changes: dict[str, Any], reasons: set[KeepReason]) -> None:
    found = judged(replace(GOES, **changes))
    assert (found.verdict, set(found.keep)) == (PlanVerdict.KEPT, reasons)


def test_a_model_goes_once_enough_newer_ones_have_passed_and_it_is_older_than_the_minimum() -> None:
    old_enough = replace(GOES, passed_rank=2, published_at=NOW - 14 * DAY - timedelta(microseconds=1))
    assert judged(old_enough).verdict is PlanVerdict.DOOMED


def test_patterns_in_the_settings_keep_branches_and_versions() -> None:
    assert judged(GOES, keep_branches=("release/*", "feature/*")).keep == (KeepReason.BRANCH_RULE,)
    assert judged(GOES, keep_versions=("0.0.*",)).keep == (KeepReason.VERSION_RULE,)
    assert judged(GOES, keep_branches=("ature/*",), keep_versions=("0.0",)).verdict is PlanVerdict.DOOMED
    # An imported model has no branch that a pattern could name.
    assert judged(replace(GOES, branch=None), keep_branches=("*",)).verdict is PlanVerdict.DOOMED


@pytest.mark.parametrize(
    "branches", [None, replace(BRANCHES, fetched_at=NOW - timedelta(hours=1, seconds=1))]
)
def test_without_recent_knowledge_of_the_branches_everything_is_kept(branches: Branches | None) -> None:
    for facts in (GOES, replace(GOES, branch=None), replace(GOES, branch="feature/lives")):
        assert judged(facts, branches).keep == (KeepReason.BRANCHES_UNKNOWN,)


STAGED = replace(
    GOES,
    stages=(in_stage(Stage.STAGING, 4, 40), in_stage(Stage.PRODUCTION, 2, 31)),
    is_released=True,
)


def test_a_released_model_retires_when_others_have_long_taken_its_place() -> None:
    assert judged(STAGED, retire_after=30 * DAY) == Judgement((), CollectReason.RETIRED)
    assert judged(STAGED).keep == (KeepReason.REACHED_STAGING, KeepReason.REACHED_PRODUCTION)


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        (replace(STAGED, is_released=False), KeepReason.NOT_RELEASED),
        (replace(STAGED, stages=(in_stage(Stage.STAGING, 4, 30),)), KeepReason.SUPERSEDED_RECENTLY),
        (replace(STAGED, stages=(in_stage(Stage.STAGING, 1, 90),)), KeepReason.ROLLBACK_TARGET),
        (replace(STAGED, stages=(in_stage(Stage.STAGING, 9, None),)), KeepReason.RUNS_IN_A_STAGE),
    ],
)
def test_what_is_in_the_way_of_retiring_is_said(facts: Facts, reason: KeepReason) -> None:
    assert judged(facts, retire_after=30 * DAY).keep[-1] is reason


def rule(versions: str | None = None, branches: str | None = None, number: int = 1) -> Rule:
    return Rule(UUID(int=number), versions, branches, "anna")


def by_rules(facts: Facts, *rules: Rule, **policy: Any) -> Judgement:
    changed = replace(POLICY, **({"retire_after": 30 * DAY} | policy))
    return judge(facts, Context(changed, BRANCHES, NOW, rules))


@pytest.mark.parametrize(
    ("given", "branch", "releases"),
    [
        (rule("0.0.*"), "feature/gone", True),
        (rule("0.0.*"), None, True),
        (rule("0.0"), "feature/gone", False),
        (rule("0.1.*"), "feature/gone", False),
        (rule(branches="feature/*"), "feature/gone", True),
        (rule(branches="gone"), "feature/gone", False),
        # An imported model has no branch that a pattern could name.
        (rule(branches="*"), None, False),
        (rule("0.0.*", "feature/*"), "feature/gone", True),
        (rule("0.0.*", "release/*"), "feature/gone", False),
        (rule("0.1.*", "feature/*"), "feature/gone", False),
        # The database does not accept it.
        (rule(), "feature/gone", False),
    ],
)
def test_a_rule_releases_the_models_that_fit_each_of_its_patterns(
    given: Rule, branch: str | None, releases: bool
) -> None:
    facts = replace(STAGED, is_released=False, branch=branch)
    expected = Judgement((), CollectReason.RETIRED_BY_RULE) if releases else None
    assert (by_rules(facts, given) == expected) is releases
    assert releases or by_rules(facts, given).keep[-1] is KeepReason.NOT_RELEASED


def test_a_rule_releases_only_what_may_retire_and_says_who_has_set_it() -> None:
    unreleased, every = replace(STAGED, is_released=False), rule("*")
    assert by_rules(STAGED, every) == Judgement((), CollectReason.RETIRED)
    assert by_rules(unreleased, every, retire_after=None).keep[0] is KeepReason.REACHED_STAGING
    assert by_rules(unreleased, every, retire_after=31 * DAY).keep[-1] is KeepReason.SUPERSEDED_RECENTLY
    assert by_rules(unreleased, every, rollback_targets=5).keep[-1] is KeepReason.ROLLBACK_TARGET
    assert by_rules(replace(unreleased, is_pinned=True), every).keep == (KeepReason.PINNED,)
    # It says nothing of models that never needed a release.
    assert by_rules(GOES, every).collect is CollectReason.BRANCH_GONE
    rules = (rule("1.*", number=1), rule("0.0.*", "feature/*", number=2), rule("*", number=3))
    context = Context(replace(POLICY, retire_after=30 * DAY), BRANCHES, NOW, rules)
    [why] = sentences.explain(unreleased, judge(unreleased, context), context)
    assert why.text.endswith("releases it: versions 0.0.*, branches feature/*, set by anna.")


def test_whatever_else_keeps_a_model_keeps_one_that_could_retire() -> None:
    assert judged(replace(STAGED, is_pinned=True), retire_after=30 * DAY).keep == (KeepReason.PINNED,)


def test_the_policy_is_what_the_settings_say() -> None:
    settings = Settings.model_validate(
        {
            "database_url": "postgresql://host/name",
            "gc_minimum_age": "P3D",
            "gc_keep_branches": "release/*, hotfix/*",
            "gc_retire_after": "P90D",
        }
    )
    policy = Policy.of(settings)
    assert policy.minimum_age == 3 * DAY
    assert policy.keep_branches == ("release/*", "hotfix/*")
    assert policy.retire_after == 90 * DAY


# Random histories. What happened is told step by step, and the facts follow from it as they do in the
# registry. What must be kept is found independently of the policy.
NAMES = ("main", "feature/a", "feature/b", "dependabot/x")


@dataclass
class Made:
    """A model, its commit, and what became of them."""

    branch: str | None
    published_at: datetime
    passed: bool
    stages: list[Stage] = field(default_factory=list)
    on: set[str] = field(default_factory=set)
    seen: bool = False
    pinned: bool = False
    building: bool = False


@dataclass
class World:
    """What has happened so far, and what a look at the git repository has found last."""

    now: datetime = NOW - 60 * DAY
    branches: set[str] = field(default_factory=lambda: {"main"})
    models: list[Made] = field(default_factory=list)
    development: Made | None = None
    fetched: tuple[datetime, frozenset[str], list[tuple[str, ...]]] | None = None

    def happen(self, what: str, number: int, name: str) -> None:
        self.now += timedelta(hours=1 + number)
        one = self.models[number % len(self.models)] if self.models else None
        match what:
            case "publish":
                self.branches.add(name)
                self.models.append(Made(name, self.now, number % 2 == 0, on={name}))
            case "import":
                self.models.append(Made(None, self.now, number % 3 == 0, on={name} & self.branches))
            case "delete" if name != "main":
                self.branches.discard(name)
            case "merge":
                for model in self.models:
                    if name in model.on:
                        model.on.add("main")
            case "rewrite":
                for model in self.models:
                    model.on.discard(name)
            case "fetch":
                for model in self.models:
                    model.seen = model.seen or bool(model.on & self.branches)
                held = [
                    tuple(sorted(model.on & self.branches - {"main", "dependabot/x"}))
                    for model in self.models
                ]
                self.fetched = (self.now, frozenset(self.branches - {"dependabot/x"}), held)
            case _ if one is not None:
                self._of_model(what, one, number)

    def _of_model(self, what: str, one: Made, number: int) -> None:
        match what:
            case "promote":
                stage = list(Stage)[number % 3]
                one.stages.append(stage)
                if stage is Stage.DEVELOPMENT:
                    self.development = one
            case "pin":
                one.pinned = number % 2 == 0
            case "build":
                one.building = number % 2 == 0

    def context(self, policy: Policy) -> Context:
        if self.fetched is None:
            return Context(policy, None, self.now)
        at, names, _ = self.fetched
        return Context(policy, Branches(at, names, frozenset({"main"})), self.now)

    def facts(self) -> list[Facts]:
        passed = [model for model in reversed(self.models) if model.passed]
        held = self.fetched[2] if self.fetched else []
        return [
            Facts(
                prefix=f"0.0.1-{number:07x}",
                version="0.0.1",
                published_at=model.published_at,
                branch=model.branch,
                commit_known=model.seen,
                holders=held[number] if number < len(held) else (),
                stages=tuple(
                    InStage(stage, 0, None) for stage in Stage if stage in model.stages and stage.before
                ),
                is_latest_in_development=model is self.development,
                needed_by=frozenset({KeepReason.ACTIVE_BUILD} if model.building else ()),
                passed_rank=passed.index(model) if model.passed else None,
                is_pinned=model.pinned,
            )
            for number, model in enumerate(self.models)
        ]

    def must_stay(self, model: Made, policy: Policy) -> bool:
        newest = [other for other in reversed(self.models) if other.passed][: policy.keep_newest_passed]
        if self.fetched is None or self.now - self.fetched[0] > policy.branches_max_age or not model.seen:
            return True
        _, names, held = self.fetched
        number = next(at for at, other in enumerate(self.models) if other is model)
        return (
            bool({Stage.STAGING, Stage.PRODUCTION} & set(model.stages))
            or model.branch in names
            or bool(held[number : number + 1] != [()])
            or model is self.development
            or model.pinned
            or model.building
            or self.now - model.published_at <= policy.minimum_age
            or any(model is other for other in newest)
        )


HAPPENINGS = st.tuples(
    st.sampled_from(["publish", "import", "promote", "delete", "merge", "rewrite", "fetch", "pin", "build"]),
    st.integers(0, 40),
    st.sampled_from(NAMES),
)
POLICIES = st.builds(
    replace,
    st.just(POLICY),
    minimum_age=st.sampled_from([timedelta(0), DAY, 14 * DAY]),
    keep_newest_passed=st.integers(0, 3),
    branches_max_age=st.sampled_from([timedelta(hours=1), 30 * DAY]),
)


def world_of(happenings: Iterable[tuple[str, int, str]]) -> World:
    world = World()
    for what, number, name in happenings:
        world.happen(what, number, name)
    return world


@given(st.lists(HAPPENINGS, max_size=40), POLICIES)
def test_after_any_history_exactly_what_must_stay_is_kept(
    happenings: list[tuple[str, int, str]], policy: Policy
) -> None:
    world = world_of([*happenings, ("fetch", 0, "main")])
    context = world.context(policy)
    for model, facts in zip(world.models, world.facts(), strict=True):
        kept = judge(facts, context).verdict is PlanVerdict.KEPT
        assert kept == world.must_stay(model, policy), (facts, judge(facts, context))


IN_STAGES = st.lists(
    st.builds(
        InStage,
        st.sampled_from([Stage.STAGING, Stage.PRODUCTION]),
        st.integers(0, 5),
        st.none() | st.integers(0, 100).map(lambda days: NOW - days * DAY),
    ),
    max_size=2,
).map(tuple)
FACTS = st.builds(
    Facts,
    prefix=st.integers(0, 0xFFFFFFF).map(lambda number: f"0.0.1-{number:07x}"),
    version=st.sampled_from(["0.0.1", "1.0.0"]),
    published_at=st.integers(0, 40).map(lambda days: NOW - days * DAY),
    branch=st.none() | st.sampled_from(["feature/gone", "feature/lives", "main", "HEAD"]),
    commit_known=st.booleans(),
    holders=st.lists(st.sampled_from(["feature/lives", "feature/x"]), max_size=2).map(tuple),
    stages=IN_STAGES,
    is_latest_in_development=st.booleans(),
    needed_by=st.frozensets(st.sampled_from([KeepReason.ACTIVE_BUILD, KeepReason.RETRY_WINDOW]), max_size=2),
    passed_rank=st.none() | st.integers(0, 5),
    is_pinned=st.booleans(),
    is_released=st.booleans(),
    restored_at=st.none() | st.integers(0, 40).map(lambda days: NOW - days * DAY),
)
CONTEXTS = st.builds(
    Context,
    POLICIES.flatmap(
        lambda policy: st.sampled_from([None, 30 * DAY]).map(
            lambda after: replace(policy, retire_after=after)
        )
    ),
    st.sampled_from([None, BRANCHES]),
    st.just(NOW),
    st.lists(
        st.builds(
            rule,
            st.none() | st.sampled_from(["0.*", "*", "1.0.0"]),
            st.none() | st.sampled_from(["feature/*", "*", "main"]),
            st.integers(1, 3),
        ),
        max_size=2,
    ).map(tuple),
)
# What keeps a model, whatever else is known of it.
KEEPING: dict[str, Any] = {
    "is_latest_in_development": True,
    "branch": "feature/lives",
    "holders": ("feature/x",),
    "commit_known": False,
    "needed_by": frozenset({KeepReason.VALIDATION_BASELINE}),
    "is_pinned": True,
    "published_at": NOW,
    "restored_at": NOW,
    "stages": (InStage(Stage.PRODUCTION, 0, None),),
}


@given(st.lists(FACTS, min_size=1, max_size=8), CONTEXTS, st.sampled_from(sorted(KEEPING)), st.data())
def test_a_further_reason_keeps_its_model_and_dooms_no_other(
    models: list[Facts], context: Context, reason: str, data: st.DataObject
) -> None:
    one = data.draw(st.integers(0, len(models) - 1))
    changed = [
        replace(facts, **{reason: KEEPING[reason]}) if number == one else facts
        for number, facts in enumerate(models)
    ]
    before = [judge(facts, context) for facts in models]
    after = [judge(facts, context) for facts in changed]
    assert after[one].verdict is PlanVerdict.KEPT
    assert [found for number, found in enumerate(after) if number != one] == [
        found for number, found in enumerate(before) if number != one
    ]


@given(st.lists(FACTS, max_size=8), CONTEXTS, st.randoms(use_true_random=False))
def test_the_judgement_does_not_depend_on_the_order(
    models: list[Facts], context: Context, random: Any
) -> None:
    before = {id(facts): judge(facts, context) for facts in models}
    random.shuffle(models)
    assert {id(facts): judge(facts, context) for facts in models} == before


@given(FACTS, CONTEXTS)
def test_a_model_that_reached_staging_or_production_never_goes_unless_it_is_released(
    facts: Facts, context: Context
) -> None:
    released = facts.is_released or any(
        (one.versions or one.branches)
        and fnmatchcase(facts.version, one.versions or "*")
        and (one.branches is None or (facts.branch is not None and fnmatchcase(facts.branch, one.branches)))
        for one in context.rules
    )
    judgement = judge(facts, context)
    if facts.stages and (context.policy.retire_after is None or not released):
        assert judgement.verdict is PlanVerdict.KEPT
    if judgement.collect is CollectReason.RETIRED_BY_RULE:
        assert facts.stages
        assert not facts.is_released


@given(FACTS, CONTEXTS)
def test_a_rule_dooms_nothing_that_a_release_of_the_model_would_not(facts: Facts, context: Context) -> None:
    without = replace(context, rules=())
    alone = judge(replace(facts, is_released=True), without)
    by_rule = judge(facts, context)
    if judge(facts, without) != by_rule:
        assert by_rule.keep == alone.keep
        assert (by_rule.collect, alone.collect) in (
            (None, None),
            (CollectReason.RETIRED_BY_RULE, CollectReason.RETIRED),
        )


@given(FACTS, CONTEXTS)
def test_every_reason_is_a_sentence(facts: Facts, context: Context) -> None:
    judgement = judge(facts, context)
    explained = sentences.explain(facts, judgement, context)
    assert tuple(one.code for one in explained) == judgement.reasons
    for one in explained:
        assert re.fullmatch(r"[A-Z].*[^.]\.", one.text)
        assert "None" not in one.text


def test_sentences_name_what_keeps_a_model() -> None:
    facts = replace(GOES, branch="feature/lives", holders=("feature/x", "feature/y"), published_at=NOW)
    context = Context(POLICY, BRANCHES, NOW)
    assert [one.text for one in sentences.explain(facts, judge(facts, context), context)] == [
        "Its branch exists: feature/lives.",
        "Its commit is on a branch that is not merged: feature/x, feature/y.",
        "It has not reached the minimum age: it stays until 2026-12-10T00:00:00+00:00.",
    ]
    assert {sentences.of(word)[-1] for word in (*KeepReason, *CollectReason)} == {"."}
