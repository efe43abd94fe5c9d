"""From the machine's output to the published model: collect, validate, publish, and deaths between."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import pytest

from app.registry import inputs, models
from app.registry.builds import ending, listing, steps
from app.registry.errors import NotFound
from app.storage import keys
from app.storage.bucket import digest_of
from app.words import BuildState, StepName, Verdict
from local.simcloud.server import SimCloud
from tests.integration.objects import overwrite
from tests.integration.worker.conftest import Flow
from worker.clouds import Clouds
from worker.errors import StepFailed
from worker.runner import Runner
from worker.steps.job import FileRef, JobInput, JobState

OUTPUT = {keys.MODEL_ZIP: b"weights", keys.BENCHMARK_XML: b"<testsuites/>", keys.BENCHMARK_ZIP: b"figures"}
SNAPSHOT = b'{"data": []}'


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def trained(flow: Flow, cloud: SimCloud) -> Flow:
    """A build whose jobs have ended, with their files on the machine."""
    flow.do_until(StepName.TRAIN)
    [instance] = cloud.instances()
    output = instance.home / "builds" / str(flow.build_id) / "output"
    for name, content in OUTPUT.items():
        (output / name).write_bytes(content)
    (output / "snapshots").mkdir()
    (output / "snapshots" / "references.json").write_bytes(SNAPSHOT)
    files = {name: FileRef(sha256=sha256(of), size_bytes=len(of)) for name, of in OUTPUT.items()}
    snapshot = JobInput(
        kind="additional_source",
        name="search_references",
        sha256=sha256(SNAPSHOT),
        url="https://example.org/references",
        file="snapshots/references.json",
    )
    train = JobState(files={keys.MODEL_ZIP: files.pop(keys.MODEL_ZIP)}, snapshots=[snapshot])
    benchmark = JobState(files=files, metrics={"known": {"count": 10, "top_1": 0.5}})
    for name, state in ((StepName.TRAIN, train), (StepName.BENCHMARK, benchmark)):
        with flow.database.transaction() as session:
            steps.start(session, flow.lease, name)
            steps.finish(session, flow.lease, name, state.model_dump(mode="json"))
    return flow


def publish(flow: Flow) -> None:
    """The step and its record, as the runner does it."""
    step = flow.begin(StepName.PUBLISH)
    output = step.act(flow.view(), flow.work)
    with flow.database.transaction() as session:
        step.apply(session, flow.lease, output)
        ending.end(session, flow.lease, BuildState.SUCCEEDED)


def prefix_of(flow: Flow) -> str:
    return flow.view().prefix


def test_what_was_collected_is_staged_and_snapshots_stay(trained: Flow) -> None:
    first = trained.act(StepName.COLLECT)
    assert trained.do(StepName.COLLECT) == first
    bucket = trained.clouds.bucket
    staged = {key.rpartition("/")[2]: size for key, size in bucket.list("staging/")}
    assert staged == {name: len(content) for name, content in OUTPUT.items()}
    kept = bucket.head(keys.input_key(sha256(SNAPSHOT)))
    assert kept is not None
    assert kept.size_bytes == len(SNAPSHOT)
    # Nothing under the prefix yet: a reader of the bucket sees no model.
    assert list(bucket.list(prefix_of(trained))) == []


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
    with pytest.raises(StepFailed) as failed:
        trained.act(StepName.COLLECT)
    assert failed.value.code == code


def test_a_model_exists_only_when_all_of_it_is_in_place(trained: Flow, cloud: SimCloud) -> None:
    trained.do_until(StepName.PUBLISH)
    assert cloud.instances() == []
    prefix = prefix_of(trained)
    # A death after every file was written, and before the record: nobody sees a model.
    trained.act(StepName.PUBLISH)
    with trained.database.transaction() as session, pytest.raises(NotFound):
        models.get(session, prefix)
    # The log has grown meanwhile; the next try brings its own, over what it left itself.
    trained.work.log("once more")
    publish(trained)
    with trained.database.transaction() as session:
        model = models.get(session, prefix)
        build = listing.get(session, trained.build_id)
    assert (build.state, model.verdict) == ("succeeded", Verdict.PASSED)
    for artifact in model.artifacts:
        found = trained.clouds.bucket.head(artifact.key)
        assert found is not None
        assert (found.sha256, found.size_bytes) == (artifact.sha256, artifact.size_bytes)
    assert {artifact.name for artifact in model.artifacts} == set(keys.CONTENT_TYPES)
    # What it was made from, the additional source included.
    with trained.database.transaction() as session:
        recorded = {item.kind for item in inputs.of_build(session, trained.build_id)}
    assert {"code", "config", "raw_data", "benchmark_data", "machine_image"} <= recorded


def test_another_builds_leftover_is_replaced_and_a_strangers_object_is_not(
    trained: Flow, tmp_path: Path, post: Callable[..., UUID], new_runner: Callable[[], Runner]
) -> None:
    trained.do_until(StepName.PUBLISH)
    bucket, key = trained.clouds.bucket, keys.artifact_key(prefix_of(trained), keys.MODEL_ZIP)
    source = tmp_path / "other"
    source.write_bytes(b"of somebody else")

    def put(owner: str) -> None:
        bucket.replace(key, source, digest_of(source), content_type="application/zip", build_id=owner)

    # Of a build that is still under way, or that nobody knows: not ours to replace.
    for owner in (str(post("0.0.9")), str(UUID(int=7)), "somebody", ""):
        put(owner)
        with pytest.raises(StepFailed) as failed:
            trained.act(StepName.PUBLISH)
        assert failed.value.code == "prefix_taken"
        found = bucket.head(key)
        assert found is not None
        assert found.sha256 == sha256(b"of somebody else")
    ended = post("0.0.8", "f" * 40)
    new_runner().carry(ended)
    put(str(ended))
    publish(trained)
    found = bucket.head(key)
    assert found is not None
    assert found.sha256 == sha256(OUTPUT[keys.MODEL_ZIP])


def test_a_staged_file_that_changed_is_not_published(trained: Flow) -> None:
    trained.do_until(StepName.PUBLISH)
    overwrite(trained.clouds.bucket, keys.staged_key(trained.build_id, keys.MODEL_ZIP))
    with pytest.raises(StepFailed) as failed:
        trained.act(StepName.PUBLISH)
    assert failed.value.code == "corrupt_transfer"


def test_a_lost_answer_of_s3_neither_loses_nor_doubles_anything(trained: Flow, cloud: SimCloud) -> None:
    trained.do_until(StepName.PUBLISH)
    prefix = prefix_of(trained)
    cloud.faults.add("s3", "PutObject", lose="answer", times=2)
    publish(trained)
    with trained.database.transaction() as session:
        assert len(models.get(session, prefix).artifacts) == len(keys.CONTENT_TYPES)


def test_tidying_empties_the_stage(trained: Flow, filled_bucket: Clouds) -> None:
    trained.do_until(StepName.PUBLISH)
    view = trained.view()
    step = trained.begin(StepName.PUBLISH)
    step.tidy(view, trained.work)
    assert list(filled_bucket.bucket.list("staging/")) == []
