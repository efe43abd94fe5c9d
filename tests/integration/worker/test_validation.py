"""The validation of a build's model against what runs in production, or what passed last."""

import hashlib
import io
import json
import zipfile
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import select

from app.aws import CloudUnavailable
from app.db.tables import Build
from app.registry.builds import steps
from app.registry.models import catalogue
from app.storage import keys
from app.words import Stage, StepName, Verdict
from local.simcloud.server import SimCloud
from tests.integration.app.registry import Registry
from tests.integration.objects import overwrite
from tests.integration.worker.conftest import Flow
from worker.steps.collect import Collected, CollectedFile
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


def results(places: dict[str, int]) -> bytes:
    """A benchmark_results.zip with each description's right code at its place."""
    rows = [
        {
            "description": description,
            "code": "620342",
            "results": [
                {"code": "620342" if at == place else f"{at:06}", "score": 0.1} for at in range(1, 6)
            ],
        }
        for description, place in places.items()
    ]
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        content = {"benchmark": "everyday", "metrics": FIGURES["everyday"], "predictions": rows}
        archive.writestr("everyday.json", json.dumps(content))
    return packed.getvalue()


def collected(flow: Flow, places: dict[str, int]) -> None:
    """The build's results are in the bucket."""
    files: dict[str, CollectedFile] = {}
    for name, content in {keys.BENCHMARK_ZIP: results(places), keys.MODEL_ZIP: b"a model"}.items():
        sha256 = hashlib.sha256(content).hexdigest()
        key = keys.unpublished_key(flow.build_id, sha256)
        flow.clouds.bucket.write(key, content, over=None)
        files[name] = CollectedFile(sha256=sha256, size_bytes=len(content), key=key)
    with flow.database.transaction() as session:
        steps.start(session, flow.lease, StepName.COLLECT)
        output = Collected(files=files)
        steps.finish(session, flow.lease, StepName.COLLECT, output.model_dump(mode="json"))


def published(flow: Flow) -> dict[str, Any]:
    """Publish the build's model; returns its report, which the file and the database have alike."""
    flow.do(StepName.PUBLISH)
    prefix = flow.view().prefix
    content = flow.clouds.bucket.fetch(keys.artifact_key(prefix, keys.CHECK_RESULT), 1 << 20).content
    found: dict[str, Any] = json.loads(content)
    with flow.database.transaction() as session:
        stored = session.scalar(select(Build.validation_report).where(Build.id == flow.build_id))
        names = [file.name for file in catalogue.get(session, prefix).artifacts]
    assert found == {"schema": 1, **(stored or {})}
    assert keys.CHECK_RESULT in names
    return found


def in_production(flow: Flow, registry: Registry, places: dict[str, int] | None) -> str:
    prefix = registry.model("0.0.1", stages=tuple(Stage))
    with_figures(registry, prefix, 0.62)
    if places is not None:
        key = keys.artifact_key(prefix, keys.BENCHMARK_ZIP)
        flow.clouds.bucket.write(key, results(places), over=None)
    return prefix


def test_the_report_names_the_descriptions_that_got_better_and_worse(flow: Flow, registry: Registry) -> None:
    production = in_production(flow, registry, {"trousers": 2, "shirt": 1, "same": 1})
    measured(flow, FIGURES)
    collected(flow, {"trousers": 1, "shirt": 3, "same": 1})
    validated(flow)
    report = published(flow)
    assert report["baseline"] == {"prefix": production, "why": "production"}
    [compared] = report["comparisons"]
    assert (compared["old"], compared["new"], compared["difference"]) == (0.62, 0.62, 0)
    [everyday] = report["descriptions"]
    assert (everyday["compared"], report["descriptions_problem"]) == (3, None)
    assert everyday["entered_first"] == {
        "count": 1,
        "first": [{"description": "trousers", "code": "620342", "old_place": 2, "new_place": 1}],
    }
    assert [one["description"] for one in everyday["left_first"]["first"]] == ["shirt"]


def test_a_model_without_a_baseline_has_a_report_too(flow: Flow) -> None:
    measured(flow, FIGURES)
    collected(flow, {"trousers": 1})
    validated(flow)
    report = published(flow)
    assert (report["verdict"], report["baseline"], report["descriptions"]) == ("passed", None, [])


@pytest.mark.parametrize("trouble", ["gone", "broken", "forbidden", "unavailable"])
def test_without_the_baselines_results_only_the_descriptions_are_missing(
    flow: Flow, registry: Registry, cloud: SimCloud, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    monkeypatch.setattr("worker.steps.report._AGAIN_AFTER_S", 0)
    production = in_production(flow, registry, None if trouble == "gone" else {"trousers": 1})
    key = keys.artifact_key(production, keys.BENCHMARK_ZIP)
    if trouble == "broken":
        overwrite(flow.clouds.bucket, key, b"not a zip")
    if trouble == "forbidden":
        cloud.faults.add("s3", "HeadObject", code="AccessDenied", status=403, times=None, match=key)
    if trouble == "unavailable":
        cloud.faults.add("s3", "HeadObject", code="SlowDown", status=503, times=None, match=key)
    measured(flow, FIGURES)
    collected(flow, {"trousers": 1})
    assert validated(flow).verdict is Verdict.PASSED
    report = published(flow)
    assert (report["verdict"], report["descriptions"]) == ("passed", [])
    assert report["descriptions_problem"]


def test_while_s3_is_down_the_report_waits(flow: Flow, registry: Registry, cloud: SimCloud) -> None:
    in_production(flow, registry, {"trousers": 2})
    measured(flow, FIGURES)
    collected(flow, {"trousers": 1})
    assert validated(flow).verdict is Verdict.PASSED
    fault = cloud.faults.add("s3", "*", code="ServiceUnavailable", status=503, times=None)
    with pytest.raises(CloudUnavailable):
        flow.act(StepName.PUBLISH)
    cloud.faults.remove(fault)
    assert published(flow)["descriptions_problem"] is None


def test_a_report_that_was_made_once_is_published_by_every_worker(flow: Flow, registry: Registry) -> None:
    production = in_production(flow, registry, {"trousers": 2})
    measured(flow, FIGURES)
    collected(flow, {"trousers": 1})
    validated(flow)
    # A death after the files were made; what production's results are afterwards does not matter.
    flow.act(StepName.PUBLISH)
    overwrite(flow.clouds.bucket, keys.artifact_key(production, keys.BENCHMARK_ZIP), results({"trousers": 1}))
    [everyday] = published(flow)["descriptions"]
    assert everyday["entered_first"]["count"] == 1


def test_what_a_worker_of_the_release_before_validated_is_published_without_a_report(flow: Flow) -> None:
    measured(flow, FIGURES)
    collected(flow, {"trousers": 1})
    with flow.database.transaction() as session:
        steps.start(session, flow.lease, StepName.VALIDATE)
        output = {"verdict": "passed", "reason": "no model is in production yet", "against": None}
        steps.finish(session, flow.lease, StepName.VALIDATE, output)
    flow.do(StepName.PUBLISH)
    with flow.database.transaction() as session:
        names = [file.name for file in catalogue.get(session, flow.view().prefix).artifacts]
    assert keys.CHECK_RESULT not in names
