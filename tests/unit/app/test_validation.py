"""The verdict of a new model against a baseline."""

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.registry.models.thresholds import (
    DataRules,
    Limits,
    Rules,
    Threshold,
    default_rules,
)
from app.registry.models.validation import MOST_LISTED, Baseline, Evidence, Validation, Why, validate
from app.words import Breach, Direction, Verdict

shares = st.floats(0, 1)
ENOUGH = {"pairs": 1000, "classes": 100}


def judge(
    new: Mapping[str, Any],
    old: Mapping[str, Any] | None,
    *,
    rules: Rules | None = None,
    counts: Mapping[str, Any] = ENOUGH,
    old_counts: Mapping[str, Any] = ENOUGH,
) -> Validation:
    """By default, the share of right answers may fall by 2 points."""
    baseline = None if old is None else Baseline("0.0.1-11ce0f5", Why.PRODUCTION, Evidence(old, old_counts))
    return validate(Evidence(new, counts), baseline, rules or default_rules(0.02))


def three_limits(
    metric: str = "top_1",
    direction: Direction = Direction.INCREASE_IS_GOOD,
    benchmark: str = "*",
    limits: Limits = Limits(3, 2, 1),  # noqa: B008
) -> Rules:
    return Rules((Threshold("the threshold", benchmark, metric, direction, limits),))


@pytest.mark.parametrize(
    ("new", "old", "verdict"),
    [
        ({"a": {"top_1": 0.50}}, {"a": {"top_1": 0.50}}, Verdict.PASSED),
        ({"a": {"top_1": 0.485}}, {"a": {"top_1": 0.50}}, Verdict.PASSED),
        ({"a": {"top_1": 0.47}}, {"a": {"top_1": 0.50}}, Verdict.FAILED),
        # Exactly as much as is tolerated.
        ({"a": {"top_1": 0.60}}, {"a": {"top_1": 0.62}}, Verdict.PASSED),
        (
            {"a": {"top_1": 0.9}, "b": {"top_1": 0.1}},
            {"a": {"top_1": 0.5}, "b": {"top_1": 0.5}},
            Verdict.FAILED,
        ),
        # For descriptions that deserve no code, refusing less often is worse.
        ({"vague": {"no_result": 0.6}}, {"vague": {"no_result": 0.8}}, Verdict.FAILED),
        ({"vague": {"no_result": 0.9}}, {"vague": {"no_result": 0.8}}, Verdict.PASSED),
        # For descriptions that have a code, a refusal counts as a mistake.
        ({"a": {"top_1": 0.5, "no_result": 0.0}}, {"a": {"top_1": 0.5, "no_result": 0.5}}, Verdict.PASSED),
        # A benchmark that the baseline has and the new model lacks hides how good the new model is.
        ({"new": {"top_1": 0.1}}, {"old": {"top_1": 0.9}}, Verdict.FAILED),
        ({"a": {"top_1": 0.9}}, {"a": {"top_1": 0.9}, "lost": {"top_1": 0.5}}, Verdict.FAILED),
        ({"a": {"no_result": 0.9}}, {"a": {"top_1": 0.1}}, Verdict.FAILED),
        ({"a": {"top_1": 0.9}, "more": {"top_1": 0.1}}, {"a": {"top_1": 0.9}}, Verdict.PASSED),
    ],
)
def test_a_model_fails_when_a_benchmark_falls_further_than_tolerated(
    new: dict[str, Any], old: dict[str, Any], verdict: Verdict
) -> None:
    assert judge(new, old).verdict is verdict


def test_the_reason_names_the_benchmark_and_both_figures() -> None:
    new, old = {"a": {"top_1": 0.4}, "b": {"top_1": 0.5}}, {"a": {"top_1": 0.5}, "b": {"top_1": 0.5}}
    assert judge(new, old).reason == "a: top_1 is 40.0%, and was 50.0% (Right answers)"
    assert judge(old, old).reason == (
        "no figure got too much worse, of 2 compared with 0.0.1-11ce0f5 in production"
    )


@pytest.mark.parametrize(
    ("points", "verdict", "breach"),
    [
        (3.5, Verdict.FAILED, Breach.HIGH),
        (3.0, Verdict.PASSED, Breach.MEDIUM),
        (2.5, Verdict.PASSED, Breach.MEDIUM),
        (1.5, Verdict.PASSED, Breach.LOW),
        (1.0, Verdict.PASSED, None),
        (-9.0, Verdict.PASSED, None),
    ],
)
@pytest.mark.parametrize("direction", Direction)
def test_a_high_breach_fails_a_medium_one_warns_and_a_low_one_is_mentioned(
    points: float, verdict: Verdict, breach: Breach | None, direction: Direction
) -> None:
    change = -points if direction is Direction.INCREASE_IS_GOOD else points
    found = judge(
        {"a": {"top_1": 0.5 + change / 100}},
        {"a": {"top_1": 0.5}},
        rules=three_limits(direction=direction),
    )
    [compared] = found.comparisons
    assert (found.verdict, compared.breach) == (verdict, breach)
    assert compared.difference == pytest.approx(change)
    said = {Breach.HIGH: found.failures, Breach.MEDIUM: found.warnings, Breach.LOW: found.mentioned}
    assert [one for one, messages in said.items() if messages] == ([] if breach is None else [breach])
    assert ("warnings: a: top_1" in found.reason) == (breach is Breach.MEDIUM)


def test_descriptions_that_are_answered_are_those_without_a_refusal() -> None:
    rules = three_limits("answered", Direction.INCREASE_IS_BAD)
    found = judge({"vague": {"no_result": 0.7}}, {"vague": {"no_result": 0.8}}, rules=rules)
    assert found.verdict is Verdict.FAILED
    assert found.reason == "vague: answered is 30.0%, and was 20.0% (the threshold)"


def test_a_benchmark_has_the_teams_name_too() -> None:
    rules = three_limits(benchmark="good_goods")
    ours, theirs = {"good-goods-descriptions": {"top_1": 0.4}}, {"good_goods": {"top_1": 0.5}}
    assert judge(ours, theirs, rules=rules).verdict is Verdict.FAILED
    assert judge(theirs, ours, rules=rules).verdict is Verdict.PASSED
    assert judge(theirs, theirs | {"other": {"top_1": 0.5}}, rules=rules).failures == (
        "the benchmark other is missing, which 0.0.1-11ce0f5 in production has",
    )


# What has been stored in the place of a figure, or could be.
NO_FIGURES: list[Any] = [None, "0.5", True, [], {}, -0.1, 1.5, float("nan"), float("inf"), 10**400]


@pytest.mark.parametrize("value", NO_FIGURES)
def test_a_new_model_without_a_usable_figure_fails(value: Any) -> None:
    found = judge({"a": {"top_1": value, "top_5": 0.5}}, {"a": {"top_1": 0.5}})
    assert (found.verdict, found.reason) == (Verdict.FAILED, "a: top_1 is missing, and was 50.0%")
    assert judge({"a": {"top_1": value}}, {"a": {"top_1": 0.5}}).verdict is Verdict.FAILED


@pytest.mark.parametrize("value", NO_FIGURES)
def test_a_bad_record_of_the_baseline_neither_breaks_nor_decides_anything(value: Any) -> None:
    good = {"a": {"top_1": 0.9}}
    alone: dict[str, Any] = {"a": {"top_1": value}}
    assert judge(good, alone).verdict is Verdict.UNKNOWN
    assert judge(good, {"a": value}).verdict is Verdict.UNKNOWN
    beside = alone | {"b": {"top_1": 0.5}}
    assert judge(good | {"b": {"top_1": 0.5}}, beside).verdict is Verdict.PASSED
    # Another figure of the benchmark decides then.
    other: dict[str, Any] = {"a": {"top_1": value, "no_result": 0.5}}
    assert judge({"a": {"no_result": 0.1}}, other).verdict is Verdict.FAILED
    assert judge(good, good, old_counts={"pairs": value, "classes": value, "sources": value}).verdict


def test_only_figures_that_were_measured_in_the_same_way_are_compared() -> None:
    worse, old = {"top_1": 0.1, "measurement": 2}, {"a": {"top_1": 0.9}, "b": {"top_1": 0.9}}
    found = judge({"a": worse, "b": worse}, old)
    assert (found.verdict, found.comparisons) == (Verdict.UNKNOWN, ())
    assert "a was measured in another way (version 2, and 1 for" in found.reason
    partly = judge({"a": worse, "b": {"top_1": 0.9}}, old)
    assert (partly.verdict, len(partly.comparisons), len(partly.warnings)) == (Verdict.PASSED, 1, 1)
    assert judge({"a": worse}, {"a": worse}).verdict is Verdict.PASSED


def test_thresholds_that_compare_nothing_give_no_verdict() -> None:
    figures = {"a": {"top_1": 0.9}}
    found = judge(figures, figures, rules=three_limits(benchmark="classified"))
    assert found.verdict is Verdict.UNKNOWN
    assert found.mentioned == (
        "the threshold the threshold is for the benchmark classified, which 0.0.1-11ce0f5 in production does "
        "not have",
    )


def test_a_benchmark_of_another_size_is_mentioned() -> None:
    found = judge({"a": {"top_1": 0.5, "count": 100}}, {"a": {"top_1": 0.5, "count": 1200}})
    assert found.mentioned == ("a had 1,200 descriptions, and now has 100",)


def test_the_first_model_passes_because_there_is_nothing_to_compare_it_with() -> None:
    found = judge({"a": {"top_1": 0.1}}, None)
    assert (found.verdict, found.reason) == (
        Verdict.PASSED,
        "no model is in production and none has passed yet, so there is nothing to compare with",
    )


@pytest.mark.parametrize(
    ("counts", "verdict", "said"),
    [
        ({"pairs": 1, "classes": 100}, Verdict.FAILED, "the training had 1 rows, and 2 are needed"),
        ({"pairs": 1000, "classes": 1}, Verdict.FAILED, "the training had 1 classes, and 2 are needed"),
        ({"pairs": 2, "classes": 2}, Verdict.PASSED, "nothing to compare with"),
        ({}, Verdict.PASSED, "the training did not report its number of rows"),
        ({"pairs": "many", "classes": float("nan")}, Verdict.PASSED, "did not report its number of classes"),
    ],
)
def test_a_training_on_one_row_or_one_class_fails_without_a_baseline_too(
    counts: dict[str, Any], verdict: Verdict, said: str
) -> None:
    found = judge({"a": {"top_1": 0.1}}, None, counts=counts)
    assert found.verdict is verdict
    assert said in found.reason


@pytest.mark.parametrize(
    ("counts", "verdict", "breaches"),
    [
        ({"pairs": 100, "classes": 100}, Verdict.FAILED, [Breach.HIGH, None]),
        ({"pairs": 700, "classes": 100}, Verdict.PASSED, [Breach.MEDIUM, None]),
        ({"pairs": 1000, "classes": 70}, Verdict.FAILED, [None, Breach.HIGH]),
        ({"pairs": 1000, "classes": 98}, Verdict.PASSED, [None, Breach.LOW]),
        ({"pairs": 5000, "classes": 500}, Verdict.PASSED, [None, None]),
    ],
)
def test_a_training_on_much_less_data_than_the_baseline_does_not_pass_silently(
    counts: dict[str, int], verdict: Verdict, breaches: list[Breach | None]
) -> None:
    figures = {"a": {"top_1": 0.5}}
    found = judge(figures, figures, counts=counts)
    assert (found.verdict, [one.breach for one in found.data]) == (verdict, breaches)


def test_a_source_that_lost_its_rows_is_a_warning() -> None:
    figures = {"a": {"top_1": 0.5}}
    before, now = {"cn": 900, "references": 100, "gone": 50}, {"cn": 900, "references": 40, "new": 5}
    found = judge(figures, figures, counts=ENOUGH | {"sources": now}, old_counts=ENOUGH | {"sources": before})
    assert found.verdict is Verdict.PASSED
    assert found.warnings == (
        "the training had 0 rows of gone, and the baseline's had 50",
        "the training had 40 rows of references, and the baseline's had 100",
    )
    strict = Rules(default_rules(0.02).thresholds, DataRules(source_rows=Limits(high=50)))
    found = judge(figures, figures, rules=strict, counts={"sources": now}, old_counts={"sources": before})
    assert found.verdict is Verdict.FAILED


def test_a_report_of_many_benchmarks_stays_small() -> None:
    many = {f"{number:04}" * 100: {"top_1": 0.5} for number in range(1000)}
    found = judge({name: {"top_1": 0.1} for name in many}, many)
    assert len(found.comparisons) == MOST_LISTED
    assert found.failures[-1] == f"and {1000 - MOST_LISTED} more"
    assert len(found.reason) < 3_000
    assert found.reason.endswith("and 990 more")


METRICS = st.dictionaries(
    st.text(max_size=3),
    st.dictionaries(st.sampled_from(["top_1", "top_5", "no_result", "count", "measurement"]), shares),
    max_size=4,
)
LIMITS = st.lists(st.floats(0, 100), min_size=3, max_size=3).map(lambda of: Limits(*sorted(of, reverse=True)))
RULES = st.builds(
    lambda metric, direction, limits: three_limits(metric, direction, limits=limits),
    st.sampled_from(["top_1", "top_5", "no_result", "answered", "right"]),
    st.sampled_from(Direction),
    LIMITS,
)


@given(METRICS, RULES)
def test_no_model_fails_against_itself(metrics: dict[str, Any], rules: Rules) -> None:
    found = judge(metrics, metrics, rules=rules)
    assert found.verdict is (Verdict.PASSED if found.comparisons else Verdict.UNKNOWN)
    assert found.failures == found.warnings == ()


@given(METRICS, METRICS, RULES)
def test_the_verdict_follows_from_the_worst_breach(
    new: dict[str, Any], old: dict[str, Any], rules: Rules
) -> None:
    found = judge(new, old, rules=rules)
    worst_is_high = any(one.breach is Breach.HIGH for one in found.comparisons)
    lost = {name for name, figures in old.items() if figures.keys() & {"top_1", "top_5", "no_result"}} - {
        name for name, figures in new.items() if figures.keys() & {"top_1", "top_5", "no_result"}
    }
    assert not worst_is_high or found.verdict is Verdict.FAILED
    assert (found.verdict is Verdict.FAILED) == bool(found.failures)
    if lost and not new:
        assert found.verdict is Verdict.FAILED


@given(METRICS, METRICS, RULES, shares)
def test_a_better_figure_never_makes_a_worse_verdict(
    new: dict[str, Any], old: dict[str, Any], rules: Rules, better: float
) -> None:
    [threshold] = rules.thresholds
    metric = {"answered": "no_result", "right": "top_1"}.get(threshold.metric, threshold.metric)
    raise_it = (threshold.direction is Direction.INCREASE_IS_GOOD) != (threshold.metric == "answered")
    choose = max if raise_it else min
    improved = {
        name: figures | {metric: choose(figures[metric], better)} if metric in figures else figures
        for name, figures in new.items()
    }
    if judge(new, old, rules=rules).verdict is not Verdict.FAILED:
        assert judge(improved, old, rules=rules).verdict is not Verdict.FAILED
