"""A model is made again from what was recorded, whatever has changed since, and compared with it."""

import io
import json
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
import torch
from sqlalchemy import text

from app.db.session import Database
from app.registry import inputs
from app.registry.builds import cancellation, ending, listing
from app.registry.errors import NotReproducible
from app.registry.models import catalogue
from app.registry.reproductions import history, requests
from app.registry.reproductions.outcomes import Wanted
from app.registry.reproductions.requests import ReproductionRequest
from app.registry.runs import reconciliation
from app.storage import keys
from app.storage.bucket import Bucket
from app.words import Actor, BuildState, InputKind, StepName
from local.simcloud.seed import add_image
from local.simcloud.server import SimCloud
from tests.integration.objects import overwrite
from tests.integration.worker.conftest import FIGURES, OUTPUT, SNAPSHOT, Flow, a_zip, end_jobs, sha256
from worker import unpublished
from worker.errors import StepFailed
from worker.runner import Runner

FlowOf = Callable[[UUID], Flow]
NewRunner = Callable[[], Runner]


def package(scale: float = 1.0, classes: tuple[str, ...] = ("010121", "020110")) -> bytes:
    """A model.zip as the training writes it."""
    weights, packed = io.BytesIO(), io.BytesIO()
    torch.save({"fc1.weight": scale * torch.arange(6.0).reshape(2, 3), "fc1.bias": torch.ones(2)}, weights)
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(zipfile.ZipInfo("target/model.pt"), weights.getvalue())
        archive.writestr(zipfile.ZipInfo("target/subheadings.json"), json.dumps(classes))
    return packed.getvalue()


def finish(flow: Flow, last: StepName) -> Any:
    """Do the rest of the flow, and end the build with its last step, as the runner does."""
    flow.do_until(last)
    step = flow.begin(last)
    view = flow.view()
    output = step.act(view, flow.work)
    with flow.database.transaction() as session:
        step.apply(session, flow.lease, output)
        ending.end(session, flow.lease, BuildState.SUCCEEDED)
    step.tidy(view, flow.work)
    return output


def prefix_of(flow: Flow) -> str:
    with flow.database.transaction() as session:
        return listing.get(session, flow.build_id).prefix


def ask(flow: Flow, **wanted: Any) -> UUID:
    asked = ReproductionRequest(prefix_of(flow), Wanted(**wanted), "an engineer", Actor.TOKEN)
    build, new = requests.request(flow.database, flow.clouds.bucket, asked)
    assert new
    return build.id


@pytest.fixture
def model(flow: Flow, cloud: SimCloud) -> Flow:
    """A build that has published its model."""
    end_jobs(flow, cloud, OUTPUT | {keys.MODEL_ZIP: package()})
    finish(flow, StepName.PUBLISH)
    return flow


def reproduce(
    model: Flow, flow_of: FlowOf, cloud: SimCloud, made: bytes, figures: Any = FIGURES, **wanted: Any
) -> Any:
    again = flow_of(ask(model, **wanted))
    end_jobs(again, cloud, OUTPUT | {keys.MODEL_ZIP: made}, figures, fetched=b"changed at its URL")
    return finish(again, StepName.COMPARE)


def test_everything_is_taken_as_it_was_recorded_and_nothing_is_published(
    model: Flow, flow_of: FlowOf, cloud: SimCloud
) -> None:
    bucket = model.clouds.bucket
    before = sorted(bucket.list(f"{prefix_of(model)}/"))
    changed = io.BytesIO(a_zip())
    with zipfile.ZipFile(changed, "a") as archive:
        archive.writestr("more.csv", "a,b\n")
    for name in keys.ROOT_NAMES:
        overwrite(bucket, name, changed.getvalue())
    add_image(cloud.region, "FPO Training 3.0.0", datetime(2027, 1, 1, tzinfo=UTC))
    with model.database.transaction() as session:
        session.execute(text("UPDATE launches SET instance_type = 'g4dn.xlarge'"))
        session.execute(
            text(
                "UPDATE build_steps SET output = jsonb_set(output, '{instance_type}', '\"g4dn.xlarge\"')"
                " WHERE name = 'launch_instance'"
            )
        )
    outcome = reproduce(model, flow_of, cloud, package())
    assert (outcome.verdict, outcome.same_bytes, outcome.figures) == ("identical", "model.zip", ())
    with model.database.transaction() as session:
        page = listing.find(session, limit=5, kind=None)
        again = page.items[0]
        assert (again.kind, again.state, again.prefix) == ("reproduce", "succeeded", prefix_of(model))
        used = {(one.kind, one.name): one.sha256 for one in inputs.of_build(session, again.id)}
        recorded = {(one.kind, one.name): one.sha256 for one in inputs.of_build(session, model.build_id)}
        [last] = history.last_of(session, [again.reproduces or UUID(int=0)]).values()
    assert (last.build_id, last.verdict) == (again.id, "identical")
    assert {launch.instance_type for launch in again.launches} == {"g4dn.xlarge"}
    assert {one for one in recorded if recorded[one] != used.get(one)} <= {(InputKind.HARDWARE, "instance")}
    assert used[InputKind.ADDITIONAL_SOURCE, "search_references"] == sha256(SNAPSHOT)
    assert sorted(bucket.list(f"{prefix_of(model)}/")) == before
    assert not list(bucket.list("unpublished/"))
    assert not cloud.instances()


def test_a_lost_input_is_refused_by_name_unless_it_is_accepted(
    model: Flow, flow_of: FlowOf, cloud: SimCloud
) -> None:
    bucket = model.clouds.bucket
    with model.database.transaction() as session:
        [raw] = [one for one in inputs.of_build(session, model.build_id) if one.kind is InputKind.RAW_DATA]
    bucket.delete(keys.input_key(str(raw.sha256)))
    overwrite(bucket, keys.input_key(sha256(SNAPSHOT)), b"changed")
    with pytest.raises(NotReproducible) as refused:
        ask(model)
    assert [(one.what, one.name) for one in refused.value.not_pinned or ()] == [
        # In this test, both archives have the same content.
        ("raw_data", "raw_source_data.zip"),
        ("benchmark_data", "benchmarking_data.zip"),
        ("additional_source", "search_references"),
    ]
    lost = ("raw_data", "benchmark_data", "additional_source")
    outcome = reproduce(model, flow_of, cloud, package(), accept=lost)
    assert outcome.verdict == "identical"
    assert len(outcome.not_pinned) == 3
    assert [(one.kind, one.name) for one in outcome.inputs] == [("additional_source", "search_references")]


def test_an_image_that_is_gone_is_named_with_everything_else_before_anything_is_launched(
    model: Flow, flow_of: FlowOf, cloud: SimCloud
) -> None:
    again = flow_of(ask(model))
    launched = len(cloud.instances(ended=True))
    with model.database.transaction() as session:
        session.execute(
            text("UPDATE build_inputs SET origin = 'aws:eu-west-2:ami-00000000' WHERE kind = 'machine_image'")
        )
    with model.database.transaction() as session:
        used = inputs.of_build(session, model.build_id)
    [pack] = [str(one.sha256) for one in used if one.name == keys.CODE_PACK]
    code = keys.input_key(pack)
    model.clouds.bucket.delete(code)
    with pytest.raises(StepFailed) as failed:
        again.act(StepName.FIND_IMAGE)
    assert failed.value.code == "not_reproducible"
    assert "EC2 has no image ami-00000000" in failed.value.message
    assert f"the bucket has no {code}" in failed.value.message
    assert len(cloud.instances(ended=True)) == launched


def test_one_build_at_a_time_reproduces_a_model_and_a_cancelled_one_leaves_nothing(
    model: Flow, flow_of: FlowOf, cloud: SimCloud, new_runner: NewRunner, database: Database
) -> None:
    first = ask(model)
    asked = ReproductionRequest(prefix_of(model), Wanted(), "somebody else", Actor.TOKEN)
    build, new = requests.request(database, model.clouds.bucket, asked)
    assert (build.id, new) == (first, False)
    again = flow_of(first)
    end_jobs(again, cloud, OUTPUT | {keys.MODEL_ZIP: package()})
    again.do_until(StepName.TERMINATE_INSTANCE)
    assert list(again.clouds.bucket.list("unpublished/"))
    with database.transaction() as session:
        cancellation.cancel(session, first, "an engineer", Actor.TOKEN)
    new_runner().carry(first)
    with database.transaction() as session:
        assert listing.get(session, first).state == BuildState.CANCELLED
    assert not cloud.instances()
    unpublished.sweep(database, again.clouds.bucket, again.settings.retry_window, lambda: None)
    assert not list(again.clouds.bucket.list("unpublished/"))
    assert ask(model) != first


def test_a_worker_may_die_in_every_step_of_its_own(
    model: Flow, flow_of: FlowOf, cloud: SimCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a step did before it died is done again by another worker, with the same outcome."""
    again = flow_of(ask(model))
    assert again.act(StepName.FIND_IMAGE) == again.do(StepName.FIND_IMAGE)
    again.do_until(StepName.BRING_CODE)
    for name in (StepName.BRING_CODE, StepName.LOAD_INPUTS):
        first = again.act(name)
        assert again.do(name) == first
    end_jobs(again, cloud, OUTPUT | {keys.MODEL_ZIP: package(2.0)})
    again.do_until(StepName.COMPARE)
    first = again.act(StepName.COMPARE)

    class Killed(BaseException):
        pass

    def killed(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(Bucket, "download", killed)
        with pytest.raises(Killed):
            again.act(StepName.COMPARE)
    assert finish(again, StepName.COMPARE) == first
    assert (first.verdict, first.same_bytes, first.largest_difference) == ("equivalent", None, 5.0)


@pytest.mark.parametrize(
    ("made", "verdict", "same_bytes", "others"),
    [
        (package() + b"more", "identical", "target/model.pt", None),
        (package(2.0), "equivalent", None, "target/model.pt"),
        (package(classes=("020110", "010121")), "different", None, "target/subheadings.json"),
    ],
    ids=["same-weights", "other-weights", "other-classes"],
)
def test_a_lost_package_is_compared_by_the_digests_of_its_files(
    model: Flow,
    flow_of: FlowOf,
    cloud: SimCloud,
    made: bytes,
    verdict: str,
    same_bytes: str | None,
    others: str | None,
) -> None:
    model.clouds.bucket.delete(keys.artifact_key(prefix_of(model), keys.MODEL_ZIP))
    outcome = reproduce(model, flow_of, cloud, made)
    assert (outcome.verdict, outcome.same_bytes) == (verdict, same_bytes)
    if others is None:
        assert outcome.not_compared is None
    else:
        assert outcome.not_compared.endswith(f"these files in it had other digests: {others}")


def test_lost_files_are_put_back_where_the_reproduction_has_made_exactly_the_same(
    model: Flow, flow_of: FlowOf, cloud: SimCloud
) -> None:
    bucket, prefix = model.clouds.bucket, prefix_of(model)
    names = (keys.MODEL_ZIP, keys.BENCHMARK_ZIP, keys.TRAINING_REPORT, keys.CHECK_RESULT)
    for name in names:
        bucket.delete(keys.artifact_key(prefix, name))
    overwrite(bucket, keys.artifact_key(prefix, keys.BENCHMARK_XML), b"changed")
    with model.database.transaction() as session:
        lost = [keys.artifact_key(prefix, name) for name in (*names, keys.BENCHMARK_XML)]
        reconciliation.remember(session, missing=lost)
    # Without consent, and where the files differ, model.zip stays away.
    outcome = reproduce(model, flow_of, cloud, package(), repair=True)
    assert outcome.verdict == "identical"
    assert outcome.repaired == (keys.BENCHMARK_XML, keys.BENCHMARK_ZIP, keys.TRAINING_REPORT)
    assert [one.name for one in outcome.not_repaired] == [keys.CHECK_RESULT, keys.MODEL_ZIP]
    assert "only with `model_zip`" in outcome.not_repaired[1].reason
    again = flow_of(ask(model, repair=True, model_zip=True))
    end_jobs(again, cloud, OUTPUT | {keys.MODEL_ZIP: package()})
    again.do_until(StepName.COMPARE)
    # The worker dies after it has put the file back, and before that is recorded.
    again.act(StepName.COMPARE)
    outcome = finish(again, StepName.COMPARE)
    assert outcome.repaired == (keys.MODEL_ZIP,)
    there = bucket.head(keys.artifact_key(prefix, keys.MODEL_ZIP))
    assert there is not None
    assert (there.sha256, there.build_id) == (sha256(package()), str(model.build_id))
    with model.database.transaction() as session:
        files = catalogue.get(session, prefix).artifacts
    assert [file.name for file in files if file.missing_since is not None] == [keys.CHECK_RESULT]
