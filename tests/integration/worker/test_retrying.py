"""A retry takes over what still holds of the build that it repeats, and does the rest again."""

import gzip
import json
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from app.db.session import Database
from app.db.tables import Build
from app.registry import inputs
from app.registry.builds import cancellation, listing, log, retries, steps
from app.registry.builds.lease import LeaseLost, release
from app.registry.builds.steps import Failure
from app.registry.models import catalogue
from app.storage import keys
from app.storage.bucket import Bucket
from app.words import Actor, StepName
from local.simcloud.server import SimCloud
from tests.integration.objects import overwrite, read
from tests.integration.worker.conftest import OUTPUT, Flow, a_zip, sha256
from worker import unpublished
from worker.clouds import Clouds
from worker.runner import Runner
from worker.steps.publish import Publish

NewRunner = Callable[[], Runner]
FlowOf = Callable[[UUID], Flow]
MODEL = sha256(OUTPUT[keys.MODEL_ZIP])


def retry(database: Database, build_id: UUID) -> UUID:
    with database.transaction() as session:
        build, new = retries.retry(session, build_id, "an engineer", Actor.TOKEN)
        assert new
        return build.id


def build_of(database: Database, build_id: UUID) -> Build:
    with database.transaction() as session:
        return listing.get(session, build_id)


def log_of(database: Database, build_id: UUID) -> str:
    with database.transaction() as session:
        return log.read(session, build_id, 0, 1 << 20)[0].decode()


def end(flow: Flow, new_runner: NewRunner, *, cancelled: bool = False) -> UUID:
    """Let the build fail where it is, or cancel it. Returns its id."""
    with flow.database.transaction() as session:
        if cancelled:
            cancellation.cancel(session, flow.build_id, "an engineer", Actor.TOKEN)
        else:
            steps.fail(session, flow.lease, Failure(StepName.PUBLISH, "cloud_error", "for the test"))
            release(session, flow.lease)
    new_runner().carry(flow.build_id)
    assert build_of(flow.database, flow.build_id).state == ("cancelled" if cancelled else "failed")
    return flow.build_id


@pytest.fixture
def collected(trained: Flow, new_runner: NewRunner) -> UUID:
    """A build that has failed after its files were collected."""
    trained.do_until(StepName.VALIDATE)
    return end(trained, new_runner)


def published(database: Database, bucket: Bucket, build_id: UUID) -> dict[str, str]:
    """The digests of what the build has published, which the bucket has with the build's id."""
    with database.transaction() as session:
        model = catalogue.get(session, listing.get(session, build_id).prefix)
    assert model.build_id == build_id
    for artifact in model.artifacts:
        found = bucket.head(artifact.key)
        assert found is not None
        assert (found.sha256, found.build_id) == (artifact.sha256, str(build_id))
    return {artifact.name: str(artifact.sha256) for artifact in model.artifacts}


def unpacked(bucket: Bucket, key: str) -> str:
    return gzip.decompress(read(bucket, key) or b"").decode()


# The collected files still hold


@pytest.mark.parametrize("cancelled", [False, True], ids=["failed", "cancelled"])
def test_what_was_collected_is_published_without_another_instance(
    trained: Flow, new_runner: NewRunner, cloud: SimCloud, *, cancelled: bool
) -> None:
    trained.do_until(StepName.PUBLISH)
    inside = [{"path": "target/model.pt", "sha256": "a" * 64, "size_bytes": 1}]
    stored = text(
        "UPDATE build_steps SET output = output || jsonb_build_object('model_files', CAST(:inside AS jsonb))"
        " WHERE build_id = :id AND name = 'collect'"
    )
    with trained.database.transaction() as session:
        session.execute(stored, {"inside": json.dumps(inside), "id": trained.build_id})
    trained.work.log("the end of the training")
    database, bucket = trained.database, trained.clouds.bucket
    earlier = end(trained, new_runner, cancelled=cancelled)
    launched = len(cloud.instances(ended=True))
    again = retry(database, earlier)
    new_runner().carry(again)

    build = build_of(database, again)
    assert (build.state, build.retry_of, build.launches) == ("succeeded", earlier, [])
    assert len(cloud.instances(ended=True)) == launched
    artifacts = published(database, bucket, again)
    assert artifacts.items() >= {name: sha256(content) for name, content in OUTPUT.items()}.items()
    by_name = {step.name: step for step in build.steps}
    assert {name for name, step in by_name.items() if step.taken_over_from == earlier} == {
        *(step.name for step in build.steps if step.taken_over_from)
    }
    assert by_name[StepName.TRAIN].taken_over_from == earlier
    assert by_name[StepName.LAUNCH_INSTANCE].output is None
    assert (by_name[StepName.COLLECT].output or {})["model_files"] == inside
    assert by_name[StepName.TERMINATE_INSTANCE].taken_over_from is None
    assert (by_name[StepName.TERMINATE_INSTANCE].output or {})["instance_ids"] == []
    with database.transaction() as session:
        assert inputs.of_build(session, again) == inputs.of_build(session, earlier)

    # The published log tells of the training, and the provenance names the build that did it.
    whole = unpacked(bucket, f"{build.prefix}/build.log.gz")
    assert whole.startswith(log_of(database, earlier))
    assert "the end of the training" in whole
    assert f"that the build {earlier} has collected are taken over" in whole
    statement = json.loads(read(bucket, f"{build.prefix}/provenance.json") or b"")["predicate"]
    assert statement["runDetails"]["metadata"]["invocationId"] == str(earlier)
    assert statement["buildDefinition"]["externalParameters"]["published_by"] == str(again)
    started, finished = (statement["runDetails"]["metadata"][f"{what}On"] for what in ("started", "finished"))
    assert started < finished
    # Nothing is left of the retry's own files, and the other build's are kept for the window.
    left = {key for key, _ in bucket.list("unpublished/")}
    assert left
    assert all(key.startswith(f"unpublished/{earlier}/") for key in left)


def test_events_tell_what_was_taken_over(collected: UUID, database: Database, new_runner: NewRunner) -> None:
    again = retry(database, collected)
    new_runner().carry(again)
    with database.transaction() as session:
        rows = session.execute(
            text("SELECT type, data FROM build_events WHERE build_id = :id ORDER BY id"), {"id": again}
        ).all()
    assert [tuple(row) for row in rows[:2]] == [
        ("state", {"state": "queued"}),
        ("retry_requested", {"retry_of": str(collected), "by": "an engineer"}),
    ]
    told = [data["step"] for kind, data in rows if kind == "step_succeeded" and "taken_over_from" in data]
    assert (told[0], told[-1], len(told)) == ("find_image", "collect", 12)


def test_a_worker_may_die_anywhere_while_it_takes_over(
    collected: UUID,
    database: Database,
    flow_of: FlowOf,
    new_runner: NewRunner,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    again = retry(database, collected)
    flow, copy = flow_of(again), Bucket.adopt

    class Killed(BaseException):
        pass

    for files in range(len(OUTPUT) + 1):
        copies: list[str] = []

        def adopt(self: Bucket, source: Any, key: str, **named: Any) -> None:
            if len(copies) == files:  # noqa: B023
                raise Killed
            copies.append(key)  # noqa: B023
            copy(self, source, key, **named)

        monkeypatch.setattr(Bucket, "adopt", adopt)
        if files < len(OUTPUT):
            with pytest.raises(Killed):
                flow.act(StepName.NEEDS_MODEL)
        else:
            # After the last copy, and before anything is stored.
            flow.act(StepName.NEEDS_MODEL)
        assert flow.view().done == frozenset()
    monkeypatch.undo()
    with database.transaction() as session:
        release(session, flow.lease)
    new_runner().carry(again)
    assert published(database, flow.clouds.bucket, again)[keys.MODEL_ZIP] == MODEL


def test_a_stale_worker_takes_nothing_over(
    collected: UUID, database: Database, flow_of: FlowOf, new_runner: NewRunner
) -> None:
    again = retry(database, collected)
    stale = flow_of(again)
    step = stale.begin(StepName.NEEDS_MODEL)
    output = step.act(stale.view(), stale.work)
    with database.transaction() as session:
        release(session, stale.lease)
    new_runner().carry(again)
    before = published(database, stale.clouds.bucket, again)
    with pytest.raises(LeaseLost), database.transaction() as session:
        step.apply(session, stale.lease, output)
    assert published(database, stale.clouds.bucket, again) == before


def test_a_lost_answer_of_s3_takes_nothing_away(
    collected: UUID, database: Database, cloud: SimCloud, filled_bucket: Clouds, new_runner: NewRunner
) -> None:
    again = retry(database, collected)
    cloud.faults.add("s3", "CopyObject", lose="answer", times=3)
    new_runner().carry(again)
    assert published(database, filled_bucket.bucket, again)[keys.MODEL_ZIP] == MODEL
    assert len(cloud.instances(ended=True)) == 1


def test_what_the_earlier_build_left_under_the_prefix_does_not_stay_its_own(
    collected: UUID, database: Database, filled_bucket: Clouds, new_runner: NewRunner
) -> None:
    """It could not clean up after itself, and its object has the right content."""
    bucket = filled_bucket.bucket
    source = bucket.head(keys.unpublished_key(collected, MODEL))
    assert source is not None
    bucket.copy(source, keys.artifact_key(build_of(database, collected).prefix, keys.MODEL_ZIP), over=None)
    again = retry(database, collected)
    new_runner().carry(again)
    assert published(database, bucket, again)[keys.MODEL_ZIP] == MODEL


def test_a_retry_of_a_retry_takes_over_from_the_build_that_trained(
    collected: UUID, database: Database, filled_bucket: Clouds, flow_of: FlowOf, new_runner: NewRunner
) -> None:
    # The second build is cancelled before it takes anything over; the third one fails after that.
    second = retry(database, collected)
    with database.transaction() as session:
        cancellation.cancel(session, second, "an engineer", Actor.TOKEN)
    third = flow_of(retry(database, second))
    third.do_until(StepName.VALIDATE)
    end(third, new_runner)
    # What the first build had is gone; the third one has copies.
    for key, _ in list(filled_bucket.bucket.list(f"unpublished/{collected}/")):
        filled_bucket.bucket.delete(key)
    fourth = retry(database, third.build_id)
    new_runner().carry(fourth)
    build = build_of(database, fourth)
    assert {step.taken_over_from for step in build.steps} == {collected, None}
    assert published(database, filled_bucket.bucket, fourth)[keys.MODEL_ZIP] == MODEL
    whole = unpacked(filled_bucket.bucket, f"{build.prefix}/build.log.gz")
    logs = [log_of(database, one) for one in (collected, second, third.build_id)]
    assert whole.startswith("".join(logs))


# What is kept, and for how long


def test_the_files_of_a_failed_build_are_kept_for_the_window_and_for_its_retry(
    collected: UUID, database: Database, filled_bucket: Clouds, flow_of: FlowOf, new_runner: NewRunner
) -> None:
    def sweep(window: timedelta) -> int:
        return unpublished.sweep(database, filled_bucket.bucket, window, lambda: None).objects

    assert sweep(timedelta(hours=24)) == 0
    again = retry(database, collected)
    # The window is over, but the retry has not taken the files over yet.
    assert sweep(timedelta(0)) == 0
    flow = flow_of(again)
    flow.do(StepName.NEEDS_MODEL)
    assert sweep(timedelta(0)) == 0
    with database.transaction() as session:
        release(session, flow.lease)
    new_runner().carry(again)
    before = published(database, filled_bucket.bucket, again)
    assert sweep(timedelta(hours=24)) == 0
    assert sweep(timedelta(0)) == len(OUTPUT)
    assert published(database, filled_bucket.bucket, again) == before


@pytest.mark.parametrize("harm", ["swept", "changed", "gone"])
def test_files_that_do_not_hold_any_more_are_trained_again_with_the_same_inputs(
    collected: UUID, database: Database, filled_bucket: Clouds, flow_of: FlowOf, cloud: SimCloud, harm: str
) -> None:
    bucket, key = filled_bucket.bucket, keys.unpublished_key(collected, MODEL)
    if harm == "swept":
        assert unpublished.sweep(database, bucket, timedelta(0), lambda: None).objects == len(OUTPUT)
    elif harm == "changed":
        overwrite(bucket, key, b"WEIGHTS")
    else:
        bucket.delete(key)
    flow = flow_of(retry(database, collected))
    output = flow.do(StepName.NEEDS_MODEL)
    assert output.taken_over is None
    assert set(output.inputs) == {keys.RAW_SOURCE_DATA, keys.BENCHMARKING_DATA}
    assert flow.view().done == {StepName.NEEDS_MODEL}
    assert "The model is trained again" in log_of(database, flow.build_id)
    flow.do(StepName.FIND_IMAGE)
    flow.do(StepName.FIND_NETWORK)
    flow.do(StepName.LAUNCH_INSTANCE)
    assert len(cloud.instances()) == 1


def test_a_model_is_taken_over_without_a_report_that_does_not_hold_any_more(
    collected: UUID, database: Database, filled_bucket: Clouds, new_runner: NewRunner
) -> None:
    report = sha256(OUTPUT[keys.TRAINING_REPORT])
    filled_bucket.bucket.delete(keys.unpublished_key(collected, report))
    again = retry(database, collected)
    new_runner().carry(again)
    artifacts = published(database, filled_bucket.bucket, again)
    assert set(OUTPUT) - set(artifacts) == {keys.TRAINING_REPORT}
    assert build_of(database, again).launches == []


# Only the inputs hold


def loaded(flow: Flow) -> dict[str, Any]:
    """The inputs that the build has read. Its two archives are not the same."""
    overwrite(flow.clouds.bucket, keys.BENCHMARKING_DATA, b"first " + a_zip())
    flow.do_until(StepName.TRAIN)
    found: dict[str, Any] = flow.view().outputs[StepName.LOAD_INPUTS]["inputs"]
    return found


@pytest.mark.parametrize("cancelled", [False, True], ids=["failed", "cancelled"])
def test_a_build_that_did_not_get_far_is_trained_again_with_the_same_inputs(
    flow: Flow, flow_of: FlowOf, new_runner: NewRunner, *, cancelled: bool
) -> None:
    before = loaded(flow)
    end(flow, new_runner, cancelled=cancelled)
    bucket = flow.clouds.bucket
    overwrite(bucket, keys.RAW_SOURCE_DATA, b"other " + a_zip())
    bucket.delete(keys.BENCHMARKING_DATA)
    again = flow_of(retry(flow.database, flow.build_id))
    again.do_until(StepName.TRAIN)
    assert again.view().outputs[StepName.LOAD_INPUTS]["inputs"] == before
    with flow.database.transaction() as session:
        used = {item.name: item.sha256 for item in inputs.of_build(session, again.build_id)}
    assert used[keys.RAW_SOURCE_DATA] == before[keys.RAW_SOURCE_DATA]["sha256"]


def test_inputs_that_were_never_read_or_are_gone_come_from_the_root(
    flow: Flow, flow_of: FlowOf, new_runner: NewRunner
) -> None:
    before, bucket, other = loaded(flow), flow.clouds.bucket, b"other " + a_zip()
    end(flow, new_runner)
    bucket.delete(before[keys.RAW_SOURCE_DATA]["key"])
    overwrite(bucket, keys.RAW_SOURCE_DATA, other)
    again = flow_of(retry(flow.database, flow.build_id))
    assert set(again.do(StepName.NEEDS_MODEL).inputs) == {keys.BENCHMARKING_DATA}
    again.do_until(StepName.TRAIN)
    after = again.view().outputs[StepName.LOAD_INPUTS]["inputs"]
    assert after[keys.RAW_SOURCE_DATA]["sha256"] == sha256(other)
    assert "is read from the root again" in log_of(flow.database, again.build_id)


def test_inputs_that_change_after_they_were_looked_at_come_from_the_root(
    flow: Flow, flow_of: FlowOf, new_runner: NewRunner
) -> None:
    before, other = loaded(flow), b"other " + a_zip()
    end(flow, new_runner)
    again = flow_of(retry(flow.database, flow.build_id))
    again.do_until(StepName.LOAD_INPUTS)
    flow.clouds.bucket.delete(before[keys.BENCHMARKING_DATA]["key"])
    overwrite(flow.clouds.bucket, keys.BENCHMARKING_DATA, other)
    assert again.do(StepName.LOAD_INPUTS).inputs[keys.BENCHMARKING_DATA].sha256 == sha256(other)


def test_a_build_that_failed_before_anything_is_simply_built(
    flow: Flow, flow_of: FlowOf, new_runner: NewRunner
) -> None:
    end(flow, new_runner)
    again = flow_of(retry(flow.database, flow.build_id))
    output = again.do(StepName.NEEDS_MODEL)
    assert (output.taken_over, output.inputs) == (None, {})


# Two at once


def test_two_retries_at_once_are_one_build(collected: UUID, database: Database) -> None:
    together, answers = threading.Barrier(4), []

    def ask() -> None:
        together.wait(30)
        with database.transaction() as session:
            build, new = retries.retry(session, collected, "an engineer", Actor.TOKEN)
            answers.append((build.id, new))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len({build_id for build_id, _ in answers}) == 1
    assert sorted(new for _, new in answers) == [False, False, False, True]


def test_what_the_earlier_build_does_late_harms_no_retry(trained: Flow, new_runner: NewRunner) -> None:
    """Its worker was paused while it cleaned up, and wakes up when the retry has published."""
    trained.do_until(StepName.VALIDATE)
    view = trained.view()
    earlier = end(trained, new_runner)
    again = retry(trained.database, earlier)
    new_runner().carry(again)
    before = published(trained.database, trained.clouds.bucket, again)
    Publish().undo(view, trained.work)
    assert published(trained.database, trained.clouds.bucket, again) == before
