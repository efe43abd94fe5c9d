"""The plan judges one of the models that have everything decisive in common, and takes it for the others."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import cast
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from app.registry.collection.facts import Plain, Row, Stages, Surroundings
from app.registry.collection.retention import Branches, Context, InStage, Policy, Rule, judge
from app.settings import Settings
from app.words import KeepReason, Stage

NOW = datetime(2026, 11, 26, tzinfo=UTC)
DAY = timedelta(days=1)
POLICY = replace(
    Policy.of(Settings.model_validate({"database_url": "postgresql://127.0.0.1/x"})),
    minimum_age=14 * DAY,
    keep_newest_passed=2,
    rollback_targets=2,
)
BRANCHES = Branches(NOW, frozenset({"main", "feature/lives"}), frozenset({"main", "master"}))
PREFIXES = [f"0.0.{number}-aff124{number}" for number in range(6)]
# Around the minimum age, and around the time after which models retire.
moments = st.sampled_from([NOW - days * DAY for days in (0, 13, 14, 15, 29, 31, 90)])
branches = (None, "main", "origin/main", "master", "HEAD", "feature/lives", "feature/gone", "release/1")

rows = st.lists(
    st.tuples(
        moments,
        st.just(str(UUID(int=1))),
        st.sampled_from(PREFIXES),
        st.sampled_from(["0.0.2", "0.1.0"]),
        st.sampled_from(branches),
        st.just("kept"),
        st.booleans(),
        st.none() | moments,
        st.booleans(),
        st.sampled_from([None, "", "feature/x", "feature/x\nfeature/y"]),
        st.just(8),
        st.just(7),
        st.none() | moments,
    ),
    max_size=40,
)
places = st.builds(InStage, st.sampled_from(list(Stage)[1:]), st.integers(0, 3), st.none() | moments)
surroundings = st.builds(
    Surroundings,
    st.dictionaries(
        st.sampled_from(PREFIXES),
        st.builds(Stages, st.lists(places, min_size=1, max_size=2).map(tuple), moments),
    ),
    st.dictionaries(
        st.sampled_from(PREFIXES),
        st.frozensets(st.sampled_from([KeepReason.RETRY_WINDOW, KeepReason.ACTIVE_BUILD]), min_size=1),
    ),
    st.dictionaries(st.sampled_from(PREFIXES), st.integers(0, 3)),
    st.none() | st.sampled_from(PREFIXES),
)
contexts = st.builds(
    lambda branches, retire_after, keep_branches, keep_versions, rules: Context(
        replace(POLICY, retire_after=retire_after, keep_branches=keep_branches, keep_versions=keep_versions),
        branches,
        NOW,
        rules,
    ),
    st.sampled_from([BRANCHES, None]),
    st.sampled_from([None, 30 * DAY]),
    st.sampled_from([(), ("release/*",)]),
    st.sampled_from([(), ("0.1.*",)]),
    st.sampled_from([(), (Rule(UUID(int=1), "0.1.*", None, "anna"),)]),
)


@given(rows, surroundings, contexts)
def test_models_with_everything_decisive_in_common_are_judged_alike(
    rows: list[tuple[object, ...]], surroundings: Surroundings, context: Context
) -> None:
    plain = [cast("Plain", row) for row in rows]
    judged: dict[object, object] = {}
    for row, decisive in zip(plain, surroundings.decisive(plain, context), strict=True):
        judgement = judge(surroundings.facts(Row._make(row)), context)
        assert judged.setdefault(decisive, judgement) == judgement
