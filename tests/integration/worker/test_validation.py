"""The validation of a build's model against what runs in production, or what passed last."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from app.registry.builds import steps
from app.words import Stage, StepName, Verdict
from tests.integration.app.registry import Registry
from tests.integration.worker.conftest import Flow
from worker.steps.job import JobState
from worker.steps.validation import Validated

FIGURES = {"everyday": {"count": 200, "top_1": 0.62}}
STRICT = """
[[thresholds]]
name = "No worse at all"
benchmark = "everyday"
metric = "top_1"
direction = "increase_is_good"
high = 0
"""


@pytest.fixture
def registry(flow: Flow) -> Registry:
    return Registry(flow.database)


def measured(flow: Flow, metrics: dict[str, Any], **counts: Any) -> None:
    """The build's jobs have ended, with these figures and counts."""
    trained = JobState(counts={"pairs": 1000, "classes": 100, **counts})
    for name, state in ((StepName.TRAIN, trained), (StepName.BENCHMARK, JobState(metrics=metrics))):
        with flow.database.transaction() as session:
            steps.start(session, flow.lease, name)
            steps.finish(session, flow.lease, name, state.model_dump(mode="json"))


def validated(flow: Flow) -> Validated:
    found: Validated = flow.do(StepName.VALIDATE)
    return found


def with_figures(registry: Registry, prefix: str, top_1: object, **more: Any) -> None:
    registry.execute(
        "UPDATE models SET metrics = cast(:metrics AS jsonb) WHERE prefix = :prefix",
        metrics=json.dumps({"everyday": {"count": 200, "top_1": top_1, **more}}),
        prefix=prefix,
    )


def test_a_new_model_is_compared_with_production_and_not_with_a_newer_one(
    flow: Flow, registry: Registry
) -> None:
    measured(flow, FIGURES)
    production = registry.model("0.0.1", stages=tuple(Stage))
    with_figures(registry, production, 0.7)
    with_figures(registry, registry.model("0.0.5"), 0.1)
    found = validated(flow)
    assert (found.verdict, found.against) == (Verdict.FAILED, production)
    assert found.reason == "everyday: top_1 is 62.0%, and was 70.0% (Right answers)"
    assert found.report is not None
    assert found.report.baseline is not None
    assert (found.report.baseline.prefix, found.report.baseline.why) == (production, "production")
    # A death after the step, and a repetition, give the same.
    assert validated(flow) == found


def test_without_production_the_newest_model_that_passed_is_the_baseline(
    flow: Flow, registry: Registry
) -> None:
    measured(flow, FIGURES)
    assert validated(flow).reason.startswith("no model is in production and none has passed yet")
    with_figures(registry, registry.model("0.0.3"), 0.9)
    newest = registry.model("0.0.1")
    with_figures(registry, newest, 0.62)
    with_figures(registry, registry.model("0.0.4", Verdict.FAILED), 0.9)
    found = validated(flow)
    assert (found.verdict, found.against) == (Verdict.PASSED, newest)


@pytest.mark.parametrize("stored", [None, "0.7", float("1e308"), {}])
def test_a_bad_record_in_production_gives_no_verdict_and_no_error(
    flow: Flow, registry: Registry, stored: object
) -> None:
    measured(flow, FIGURES)
    production = registry.model("0.0.1", stages=tuple(Stage))
    with_figures(registry, production, stored)
    assert validated(flow).verdict is Verdict.UNKNOWN
    for output in ('{"counts": 3}', "{}", '{"counts": {"pairs": "x", "sources": [1]}}'):
        registry.execute(
            "INSERT INTO build_steps (build_id, name, state, attempts, started_at, output)"
            " SELECT build_id, 'train', 'succeeded', 1, now(), cast(:output AS jsonb) FROM models"
            " WHERE prefix = :prefix ON CONFLICT (build_id, name) DO UPDATE SET output = excluded.output",
            output=output,
            prefix=production,
        )
        assert validated(flow).verdict is Verdict.UNKNOWN


def test_a_training_on_a_tenth_of_the_data_in_production_fails(flow: Flow, registry: Registry) -> None:
    measured(flow, FIGURES, sources={"cn": 1000})
    registry.execute(
        "INSERT INTO build_steps (build_id, name, state, attempts, started_at, output)"
        " SELECT build_id, 'train', 'succeeded', 1, now(),"
        """ '{"counts": {"pairs": 10000, "classes": 100, "sources": {"cn": 10000}}}' FROM models"""
        " WHERE prefix = :prefix",
        prefix=registry.model("0.0.1", stages=tuple(Stage)),
    )
    found = validated(flow)
    assert found.verdict is Verdict.FAILED
    assert found.reason == "the training had 1,000 rows, and the baseline's had 10,000"
    assert found.report is not None
    assert [(one.what, one.fewer, one.breach) for one in found.report.data] == [
        ("rows", 90.0, "high"),
        ("classes", 0.0, None),
        ("rows of cn", 90.0, "medium"),
    ]


def test_the_thresholds_of_the_build_decide(new_flow: Callable[..., Flow], registry: Registry) -> None:
    flow = new_flow("0.0.3")
    measured(flow, FIGURES)
    with_figures(registry, registry.model("0.0.1", stages=tuple(Stage)), 0.63)
    assert validated(flow).verdict is Verdict.PASSED
    for thresholds, verdict in (
        (STRICT, Verdict.FAILED),
        (STRICT.replace("everyday", "classified"), Verdict.UNKNOWN),
        # What only another release can read is not an error after an hour of training.
        ("[what]\nnobody = 'knows'", Verdict.PASSED),
    ):
        registry.execute("UPDATE builds SET thresholds = :thresholds", thresholds=thresholds)
        assert validated(flow).verdict is verdict


def test_figures_that_were_measured_in_another_way_give_no_verdict(flow: Flow, registry: Registry) -> None:
    measured(flow, {"everyday": {"count": 200, "top_1": 0.1, "measurement": 2}})
    with_figures(registry, registry.model("0.0.1", stages=tuple(Stage)), 0.9)
    found = validated(flow)
    assert found.verdict is Verdict.UNKNOWN
    assert "measured in another way (version 2, and 1 for" in found.reason
