"""The verdict of a new model against the one in production."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.words import Verdict
from worker.steps.validation import compare

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
        # Descriptions that deserve no answer: refusing less often is worse.
        ({"vague": {"no_result": 0.6}}, {"vague": {"no_result": 0.8}}, Verdict.FAILED),
        ({"vague": {"no_result": 0.9}}, {"vague": {"no_result": 0.8}}, Verdict.PASSED),
        # Of descriptions that have codes, refusals are no virtue.
        ({"a": {"top_1": 0.5, "no_result": 0.0}}, {"a": {"top_1": 0.5, "no_result": 0.5}}, Verdict.PASSED),
        ({"new": {"top_1": 0.1}}, {"old": {"top_1": 0.9}}, Verdict.PASSED),
    ],
)
def test_a_model_fails_when_a_benchmark_falls_further_than_tolerated(
    new: dict[str, Any], old: dict[str, Any], verdict: Verdict
) -> None:
    assert compare(new, old, 0.02)[0] is verdict


def test_the_reason_names_the_benchmark_and_both_figures() -> None:
    _, reason = compare(
        {"a": {"top_1": 0.4}, "b": {"top_1": 0.5}}, {"a": {"top_1": 0.5}, "b": {"top_1": 0.5}}, 0.02
    )
    assert reason == "a: top_1 40.0%, in production 50.0%"


@given(st.dictionaries(st.text(max_size=3), st.fixed_dictionaries({"top_1": shares}), max_size=4), shares)
def test_no_model_fails_against_itself(metrics: dict[str, Any], tolerance: float) -> None:
    assert compare(metrics, metrics, tolerance)[0] is Verdict.PASSED
