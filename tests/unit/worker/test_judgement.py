"""When a model that was made again counts as identical, equivalent or different, and what is said of it."""

from typing import Any

import pytest

from app.registry.lineage.differences import InputDifference
from app.registry.reproductions.outcomes import NotPinned, Outcome
from worker.steps.reproduction.judgement import Content, judge

FIGURES: dict[str, Any] = {"known": {"count": 200, "top_1": 0.62, "measurement": 2}}


def judged(content: Content, now: dict[str, Any], *inputs: InputDifference) -> Outcome:
    return judge(content, FIGURES, now, inputs, (), 0.005)


def with_figures(**changed: Any) -> dict[str, Any]:
    return {"known": FIGURES["known"] | changed}


def test_the_same_bytes_are_identical_whatever_the_figures_say() -> None:
    outcome = judged(Content(same_bytes="target/model.pt"), with_figures(top_1=0.4))
    assert outcome.verdict == "identical"
    assert outcome.findings == (
        "The weights are the same, and these figures of benchmarks differ: "
        "top_1 of known (0.62 recorded, 0.4 now).",
    )


@pytest.mark.parametrize(
    ("now", "verdict", "said"),
    [
        (with_figures(), "equivalent", ""),
        (with_figures(top_1=0.625), "equivalent", ""),
        (with_figures(top_1=0.6251), "different", "top_1 of known (0.62 recorded, 0.6251 now)"),
        (with_figures(count=199), "different", "count of known"),
        (with_figures(top_1=None), "different", "(0.62 recorded, nothing now)"),
        (with_figures(top_5=0.9), "different", "top_5 of known (nothing recorded, 0.9 now)"),
        (with_figures() | {"other": {"count": 1}}, "different", "count of other"),
        (with_figures(measurement=1), "different", "measured in another way"),
        ({}, "different", "No benchmark was measured for both"),
    ],
    ids=["same", "at the tolerance", "beyond it", "count", "null", "new", "benchmark", "measured", "none"],
)
def test_figures_decide_where_the_bytes_differ(now: dict[str, Any], verdict: str, said: str) -> None:
    outcome = judged(Content(largest_difference=0.25), now)
    assert (outcome.verdict, outcome.largest_difference) == (verdict, 0.25)
    assert said in " ".join(outcome.findings)


def test_nothing_is_equivalent_without_its_classes() -> None:
    lost = judged(Content(classes_known=False, not_compared="the original is gone"), FIGURES)
    other = judged(Content(classes_differ="1 are only in the original"), FIGURES)
    assert (lost.verdict, lost.findings) == (
        "different",
        ("The classes cannot be compared: the original is gone.",),
    )
    assert (other.verdict, other.findings) == (
        "different",
        ("The classes differ: 1 are only in the original.",),
    )


def test_inputs_that_differ_or_could_not_be_had_are_named_in_every_outcome() -> None:
    changed = InputDifference("python_environment", "python 3.11.7", "b" * 64, None)
    lost = NotPinned(what="raw_data", name="raw_source_data.zip", reason="it is gone")
    outcome = judge(Content(same_bytes="model.zip"), FIGURES, FIGURES, [changed], [lost], 0.005)
    assert outcome.verdict == "identical"
    assert outcome.findings == (
        f"python_environment python 3.11.7 differs: nothing was recorded, and {'b' * 64} was used.",
        "raw_data raw_source_data.zip: it is gone. What is there now was used, as was accepted.",
    )
