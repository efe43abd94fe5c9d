"""From the machine's output to the published model: collect, validate, publish, and deaths between."""

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest
from pydantic import ValidationError
from sqlalchemy import select

from app.db.tables import Build
from app.registry import inputs
from app.registry.builds import ending, listing, log, steps
from app.registry.builds.lease import LeaseLost, release, take
from app.registry.errors import NotFound
from app.registry.models import catalogue
from app.settings import Settings
from app.storage import keys
from app.words import BuildState, StepName, Verdict
from local.simcloud.server import SimCloud
from tests.integration.objects import overwrite
from tests.integration.worker.conftest import OUTPUT, SNAPSHOT, Flow, sha256
from training.config import differences, parse_config
from worker.clouds import Clouds
from worker.errors import StepFailed
from worker.heartbeat import Heartbeat
from worker.machine.remote import RemoteFault
from worker.runner import Runner
from worker.steps.collect import REQUIRED
from worker.steps.reported import JobInput
from worker.workbench import Workbench


def publish(flow: Flow) -> None:
    """The step and its record, as the runner does it."""
    step = flow.begin(StepName.PUBLISH)
    output = step.act(flow.view(), flow.work)
    with flow.database.transaction() as session:
        step.apply(session, flow.lease, output)
        ending.end(session, flow.lease, BuildState.SUCCEEDED)


def prefix_of(flow: Flow) -> str:
    return flow.view().prefix


def test_what_was_collected_waits_for_its_publication_and_snapshots_stay(trained: Flow) -> None:
    first = trained.act(StepName.COLLECT)
    assert trained.do(StepName.COLLECT) == first
    bucket = trained.clouds.bucket
    unpublished = {key.rpartition("/")[2]: size for key, size in bucket.list("unpublished/")}
    assert unpublished == {sha256(content): len(content) for content in OUTPUT.values()}
    # Existing tools take every key that ends in model.zip for a model.
    assert not [key for key, _ in bucket.list() if key.endswith("model.zip")]
    kept = bucket.head(keys.input_key(sha256(SNAPSHOT)))
    assert kept is not None
    assert kept.size_bytes == len(SNAPSHOT)


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        (lambda path: path.write_bytes(b"other"), "corrupt_transfer"),
        (lambda path: path.unlink(), "missing_output"),
    ],
    ids=["changed", "gone"],
)
@pytest.mark.parametrize("name", [keys.MODEL_ZIP, "snapshots/references.json"])
def test_a_file_that_is_not_what_training_reported_is_not_collected(
    trained: Flow, cloud: SimCloud, damage: Callable[[Path], object], code: str, name: str
) -> None:
    [instance] = cloud.instances()
    damage(instance.home / "builds" / str(trained.build_id) / "output" / name)
    with pytest.raises((StepFailed, RemoteFault)) as failed:
        trained.act(StepName.COLLECT)
    assert isinstance(failed.value, StepFailed | RemoteFault)
    assert failed.value.code == code


def test_a_report_that_is_not_what_training_reported_costs_no_model(trained: Flow, cloud: SimCloud) -> None:
    [instance] = cloud.instances()
    report = instance.home / "builds" / str(trained.build_id) / "output" / keys.TRAINING_REPORT
    collected = trained.act(StepName.COLLECT)
    assert collected.optional_files[keys.TRAINING_REPORT].sha256 == sha256(report.read_bytes())
    report.write_bytes(b"other")
    assert trained.act(StepName.COLLECT).optional_files == {}
    report.unlink()
    trained.do_until(StepName.PUBLISH)
    publish(trained)
    names = {key.rpartition("/")[2] for key, _ in trained.clouds.bucket.list(f"{prefix_after(trained)}/")}
    assert set(REQUIRED) < names
    assert keys.TRAINING_REPORT not in names
    with trained.database.transaction() as session:
        log_text = log.read(session, trained.build_id, 0, 1 << 20)[0].decode()
    assert log_text.count(f"The model is published without {keys.TRAINING_REPORT}.") == 2


@pytest.mark.parametrize("file", ["../../../../etc/passwd", "/etc/passwd", "", "a\x00b", "a/../../b"])
def test_a_snapshot_outside_the_output_folder_is_refused(file: str) -> None:
    with pytest.raises(ValidationError, match="inside the output folder"):
        JobInput(kind="additional_source", name="x", sha256="a" * 64, file=file)


def test_a_snapshot_that_links_out_of_the_output_folder_is_not_fetched(
    trained: Flow, cloud: SimCloud, tmp_path: Path
) -> None:
    [instance] = cloud.instances()
    snapshot = instance.home / "builds" / str(trained.build_id) / "output" / "snapshots" / "references.json"
    snapshot.unlink()
    (tmp_path / "secret").write_bytes(SNAPSHOT)
    snapshot.symlink_to(tmp_path / "secret")
    with pytest.raises(StepFailed, match="not on the instance"):
        trained.act(StepName.COLLECT)


def test_the_published_configuration_names_every_value_and_the_posted_text_is_kept(trained: Flow) -> None:
    posted, prefix = trained.view().search_config, prefix_of(trained)
    trained.do_until(StepName.PUBLISH)
    publish(trained)
    found = trained.clouds.bucket.head(keys.artifact_key(prefix, keys.SEARCH_CONFIG))
    assert found is not None
    published = trained.clouds.bucket.open(found).read().decode()
    assert differences(posted, published) == ()
    assert parse_config(published) == parse_config(posted)
    assert "seed = 0" in published.splitlines()
    with trained.database.transaction() as session:
        assert session.scalar(select(Build.search_config).where(Build.id == trained.build_id)) == posted


def test_a_model_exists_only_when_all_of_it_is_in_place(trained: Flow, cloud: SimCloud) -> None:
    trained.do_until(StepName.PUBLISH)
    assert cloud.instances() == []
    prefix = prefix_of(trained)
    # A death after every file was written, and before the record: nobody sees a model.
    trained.act(StepName.PUBLISH)
    with trained.database.transaction() as session, pytest.raises(NotFound):
        catalogue.get(session, prefix)
    # The log has grown meanwhile: what was made once is published, and not made again.
    written = {key: bucket_digest(trained, key) for key, _ in trained.clouds.bucket.list(f"{prefix}/")}
    trained.work.log("once more")
    publish(trained)
    with trained.database.transaction() as session:
        model = catalogue.get(session, prefix)
        build = listing.get(session, trained.build_id)
    assert (build.state, model.verdict) == ("succeeded", Verdict.PASSED)
    for artifact in model.artifacts:
        found = trained.clouds.bucket.head(artifact.key)
        assert found is not None
        assert (found.sha256, found.size_bytes) == (artifact.sha256, artifact.size_bytes)
    assert {artifact.name for artifact in model.artifacts} == set(keys.PUBLISHED)
    assert {key: bucket_digest(trained, key) for key in written} == written
    # What it was made from, the additional source included.
    with trained.database.transaction() as session:
        recorded = {item.kind for item in inputs.of_build(session, trained.build_id)}
    assert {"code", "config", "raw_data", "benchmark_data", "machine_image"} <= recorded


def bucket_digest(flow: Flow, key: str) -> str:
    return flow.clouds.bucket.digest(key).sha256


def put_as(flow: Flow, key: str, owner: str) -> None:
    """An object of another build, put there by hand."""
    flow.clouds.bucket._client.put_object(
        Bucket=flow.clouds.bucket.name, Key=key, Body=b"of somebody else", Metadata={"build-id": owner}
    )


def test_another_builds_leftover_is_removed_and_a_strangers_object_is_not(
    trained: Flow, post: Callable[..., UUID], new_runner: Callable[[], Runner]
) -> None:
    trained.do_until(StepName.PUBLISH)
    key = keys.artifact_key(prefix_of(trained), keys.MODEL_ZIP)
    # Of a build that is active, or that nobody knows, or of this one but with other bytes: never replaced.
    for owner in (str(post("0.0.9")), str(UUID(int=7)), "somebody", "", str(trained.build_id)):
        put_as(trained, key, owner)
        with pytest.raises(StepFailed) as failed:
            trained.act(StepName.PUBLISH)
        assert failed.value.code == "prefix_taken"
        assert bucket_digest(trained, key) == sha256(b"of somebody else")
    ended = post("0.0.8", "f" * 40)
    new_runner().carry(ended)
    put_as(trained, key, str(ended))
    publish(trained)
    assert bucket_digest(trained, key) == sha256(OUTPUT[keys.MODEL_ZIP])


def test_an_unpublished_file_that_changed_is_not_published(trained: Flow) -> None:
    trained.do_until(StepName.PUBLISH)
    overwrite(trained.clouds.bucket, keys.unpublished_key(trained.build_id, sha256(OUTPUT[keys.MODEL_ZIP])))
    with pytest.raises(StepFailed) as failed:
        trained.act(StepName.PUBLISH)
    assert failed.value.code == "corrupt_artifact"


def test_files_that_the_release_before_collected_are_published(trained: Flow) -> None:
    trained.do_until(StepName.COLLECT)
    files = {}
    for name in REQUIRED:
        content = OUTPUT[name]
        overwrite_whole(trained, keys.former_unpublished_key(trained.build_id, name), content)
        files[name] = {"sha256": sha256(content), "size_bytes": len(content)}
    with trained.database.transaction() as session:
        steps.start(session, trained.lease, StepName.COLLECT)
        steps.finish(session, trained.lease, StepName.COLLECT, {"files": files})
    trained.do_until(StepName.PUBLISH)
    publish(trained)
    key = keys.artifact_key(prefix_after(trained), keys.MODEL_ZIP)
    assert bucket_digest(trained, key) == sha256(OUTPUT[keys.MODEL_ZIP])


def overwrite_whole(flow: Flow, key: str, content: bytes) -> None:
    """As the registry writes: with the checksum that S3 verifies and keeps."""
    flow.clouds.bucket._client.put_object(
        Bucket=flow.clouds.bucket.name, Key=key, Body=content, ChecksumAlgorithm="SHA256"
    )


def prefix_after(flow: Flow) -> str:
    with flow.database.transaction() as session:
        return listing.get(session, flow.build_id).prefix


def test_a_stale_worker_changes_nothing_of_what_its_successor_published(
    trained: Flow, settings: Settings
) -> None:
    trained.do_until(StepName.PUBLISH)
    stale_view, stale_step = trained.view(), trained.begin(StepName.PUBLISH)
    # The successor takes the build while the stale worker is paused, and publishes it.
    with trained.database.transaction() as session:
        release(session, trained.lease)
        taken = take(session, trained.build_id, "the successor", settings.lease)
    assert taken is not None
    with Heartbeat(trained.database, taken, settings.lease) as heartbeat:
        work = Workbench(settings, trained.database, trained.clouds, taken, heartbeat, threading.Event())
        publish(replace(trained, lease=taken, work=work))
        work.close()
    prefix = prefix_after(trained)
    published = {key: bucket_digest(trained, key) for key, _ in trained.clouds.bucket.list(f"{prefix}/")}
    with pytest.raises((LeaseLost, StepFailed)):
        stale_step.act(stale_view, trained.work)
    assert {key: bucket_digest(trained, key) for key in published} == published
    with trained.database.transaction() as session:
        recorded = {one.key: one.sha256 for one in catalogue.get(session, prefix).artifacts}
    assert recorded.items() <= published.items()


def test_a_build_that_fails_while_it_publishes_leaves_nothing_under_its_prefix(
    trained: Flow, new_runner: Callable[[], Runner]
) -> None:
    trained.do_until(StepName.PUBLISH)
    prefix = prefix_of(trained)
    # The last file that is put meets a stranger's object.
    last = keys.artifact_key(prefix, keys.SIGNATURE)
    overwrite(trained.clouds.bucket, last, b"of somebody else")
    with trained.database.transaction() as session:
        release(session, trained.lease)
    new_runner().carry(trained.build_id)
    with trained.database.transaction() as session:
        build = listing.get(session, trained.build_id)
    assert (build.state, build.failure_code) == ("failed", "prefix_taken")
    assert [key for key, _ in trained.clouds.bucket.list(f"{prefix}/")] == [last]


def test_a_lost_answer_of_s3_neither_loses_nor_doubles_anything(trained: Flow, cloud: SimCloud) -> None:
    trained.do_until(StepName.PUBLISH)
    prefix = prefix_of(trained)
    cloud.faults.add("s3", "PutObject", lose="answer", times=2)
    cloud.faults.add("s3", "CopyObject", lose="answer", times=2)
    publish(trained)
    with trained.database.transaction() as session:
        assert len(catalogue.get(session, prefix).artifacts) == len(keys.PUBLISHED)


def test_tidying_deletes_the_unpublished_files(trained: Flow, filled_bucket: Clouds) -> None:
    trained.do_until(StepName.PUBLISH)
    view = trained.view()
    step = trained.begin(StepName.PUBLISH)
    step.tidy(view, trained.work)
    assert list(filled_bucket.bucket.list("staging/")) == []
