"""The verdict of a new model against the one in production."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.registry.models.validation import validate
from app.words import Verdict

shares = st.floats(0, 1)


@pytest.mark.parametrize(
    ("new", "old", "verdict"),
    [
        ({"a": {"top_1": 0.50}}, {"a": {"top_1": 0.50}}, Verdict.PASSED),
        ({"a": {"top_1": 0.485}}, {"a": {"top_1": 0.50}}, Verdict.PASSED),
        ({"a": {"top_1": 0.47}}, {"a": {"top_1": 0.50}}, Verdict.FAILED),
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
        # A benchmark that production has and the new model lacks hides how good the new model is.
        ({"new": {"top_1": 0.1}}, {"old": {"top_1": 0.9}}, Verdict.FAILED),
        ({"a": {"top_1": 0.9}}, {"a": {"top_1": 0.9}, "lost": {"top_1": 0.5}}, Verdict.FAILED),
        ({"a": {"no_result": 0.9}}, {"a": {"top_1": 0.1}}, Verdict.FAILED),
        ({"a": {"top_1": 0.9}, "more": {"top_1": 0.1}}, {"a": {"top_1": 0.9}}, Verdict.PASSED),
    ],
)
def test_a_model_fails_when_a_benchmark_falls_further_than_tolerated(
    new: dict[str, Any], old: dict[str, Any], verdict: Verdict
) -> None:
    assert validate(new, old, tolerance=0.02).verdict is verdict


def test_the_reason_names_the_benchmark_and_both_figures() -> None:
    new, old = {"a": {"top_1": 0.4}, "b": {"top_1": 0.5}}, {"a": {"top_1": 0.5}, "b": {"top_1": 0.5}}
    assert validate(new, old, tolerance=0.02).reason == "a: top_1 40.0%, in production 50.0%"


# What has been stored in the place of a figure, or could be.
NO_FIGURES: list[Any] = [None, "0.5", True, [], {}, -0.1, 1.5, float("nan"), float("inf")]


@pytest.mark.parametrize("value", NO_FIGURES)
def test_a_new_model_without_a_usable_figure_fails(value: Any) -> None:
    found = validate({"a": {"top_1": value}}, {"a": {"top_1": 0.5}}, tolerance=0.02)
    assert (found.verdict, found.reason) == (Verdict.FAILED, "a: top_1 is missing, in production 50.0%")


@pytest.mark.parametrize("value", NO_FIGURES)
def test_a_bad_record_in_production_neither_breaks_nor_decides_anything(value: Any) -> None:
    good = {"a": {"top_1": 0.9}}
    alone: dict[str, Any] = {"a": {"top_1": value}}
    assert validate(good, alone, tolerance=0.02).verdict is Verdict.UNKNOWN
    assert validate(good, {"a": value}, tolerance=0.02).verdict is Verdict.UNKNOWN
    beside = alone | {"b": {"top_1": 0.5}}
    assert validate(good | {"b": {"top_1": 0.5}}, beside, tolerance=0.02).verdict is Verdict.PASSED
    # Another figure of the benchmark decides then.
    other: dict[str, Any] = {"a": {"top_1": value, "no_result": 0.5}}
    assert validate({"a": {"no_result": 0.1}}, other, tolerance=0.02).verdict is Verdict.FAILED


@given(st.dictionaries(st.text(max_size=3), st.fixed_dictionaries({"top_1": shares}), max_size=4), shares)
def test_no_model_fails_against_itself(metrics: dict[str, Any], tolerance: float) -> None:
    found = validate(metrics, metrics, tolerance=tolerance).verdict
    assert found is (Verdict.PASSED if metrics else Verdict.UNKNOWN)


def test_the_first_model_passes_because_there_is_nothing_to_compare_it_with() -> None:
    found = validate({"a": {"top_1": 0.1}}, None, tolerance=0.02)
    assert (found.verdict, found.reason) == (Verdict.PASSED, "no model is in production yet")
