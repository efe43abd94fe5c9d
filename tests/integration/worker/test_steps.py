"""Every step: that it works, that it can be repeated, and what a death after its side effects leaves."""

import hashlib
import io
import shutil
import subprocess
import zipfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select

from app.aws import CloudError, CloudUnavailable, NoCapacity
from app.db.tables import Input, InputPart, Launch
from app.registry import inputs
from app.registry.builds import ending, listing, steps
from app.registry.builds.lease import LeaseLost, release, take
from app.registry.builds.steps import Failure
from app.settings import Settings
from app.storage import keys
from app.storage.bucket import digest_of
from app.words import BuildState, StepName
from local.simcloud.server import SimCloud
from tests.integration.objects import overwrite
from tests.integration.worker.conftest import Flow
from worker.ec2 import MANAGED_BY
from worker.errors import StepFailed
from worker.machine.remote import RemoteFault


def failure_of(flow: Flow, name: StepName) -> StepFailed:
    with pytest.raises(StepFailed) as raised:
        flow.act(name)
    return raised.value


def test_raw_data_may_have_the_other_name_that_existing_tools_use(flow: Flow) -> None:
    bucket = flow.clouds.bucket
    content = bucket.digest(keys.RAW_SOURCE_DATA)
    bucket._client.copy_object(
        Bucket=bucket.name,
        Key="raw_data_sources.zip",
        CopySource={"Bucket": bucket.name, "Key": keys.RAW_SOURCE_DATA},
    )
    bucket.delete(keys.RAW_SOURCE_DATA)
    flow.do_until(StepName.LOAD_INPUTS)
    loaded = flow.do(StepName.LOAD_INPUTS)
    assert loaded.inputs[keys.RAW_SOURCE_DATA].sha256 == content.sha256


@pytest.mark.parametrize("key", [keys.RAW_SOURCE_DATA, keys.BENCHMARKING_DATA])
def test_a_missing_input_is_found_before_anything_is_launched(flow: Flow, key: str) -> None:
    flow.clouds.bucket.delete(key)
    failure = failure_of(flow, StepName.NEEDS_MODEL)
    assert failure.code == "missing_input"
    assert key in failure.message


def zip_with(content: bytes = b"CNKEY,CN_CODE\n", **members: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, data in (members or {"cn.csv": content}).items():
            archive.writestr(name, data)
    return packed.getvalue()


def encrypted_zip() -> bytes:
    whole = bytearray(zip_with())
    # The flag "encrypted" in the directory at the end of the file.
    whole[whole.rindex(b"PK\x01\x02") + 8] |= 1
    return bytes(whole)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<html>Sign in</html>",
        zip_with()[:-30],
        zip_with(b"x" * 500_000)[:200_000],
        zip_with(b"x" * 500_000)[200_000:],
        b"PK\x05\x06" + bytes(18),
        encrypted_zip(),
    ],
    ids=["empty file", "page", "cut", "half", "other half", "empty archive", "password"],
)
@pytest.mark.parametrize("key", [keys.RAW_SOURCE_DATA, keys.BENCHMARKING_DATA])
def test_an_input_that_is_not_a_whole_zip_is_found_before_anything_is_launched(
    flow: Flow, key: str, content: bytes
) -> None:
    overwrite(flow.clouds.bucket, key, content)
    failure = failure_of(flow, StepName.NEEDS_MODEL)
    assert failure.code == "unusable_input"
    assert key in failure.message


def test_of_a_large_input_only_the_directory_is_read(flow: Flow, monkeypatch: pytest.MonkeyPatch) -> None:
    size = 20 << 20
    overwrite(flow.clouds.bucket, keys.RAW_SOURCE_DATA, zip_with(bytes(size)))
    fetched = []
    get = flow.clouds.bucket._client.get_object

    def counting(**arguments: Any) -> Any:
        answer = get(**arguments)
        fetched.append(answer["ContentLength"])
        return answer

    monkeypatch.setattr(flow.clouds.bucket._client, "get_object", counting)
    assert flow.do(StepName.NEEDS_MODEL).raw_source_data_bytes > size
    assert sum(fetched) < 1 << 20


@pytest.mark.parametrize("name", [keys.MODEL_ZIP, keys.SEARCH_CONFIG, keys.BUILD_LOG])
def test_a_prefix_that_somebody_else_wrote_is_not_built(flow: Flow, name: str) -> None:
    overwrite(flow.clouds.bucket, keys.artifact_key(flow.view().prefix, name))
    assert failure_of(flow, StepName.NEEDS_MODEL).code == "prefix_taken"


@pytest.mark.parametrize(
    ("owner", "taken"), [("own", False), ("failed", False), ("active", True), ("", True)]
)
def test_only_what_a_build_without_a_model_left_may_lie_under_the_prefix(
    flow: Flow, post: Callable[..., UUID], tmp_path: Path, owner: str, taken: bool
) -> None:
    build_id = flow.build_id if owner == "own" else post("0.0.9") if owner else UUID(int=7)
    if owner == "failed":
        with flow.database.transaction() as session:
            lease = take(session, build_id, "another", timedelta(seconds=3))
            assert lease is not None
            steps.fail(session, lease, Failure(StepName.VALIDATE, "crashed", "It failed."))
            ending.end(session, lease, BuildState.FAILED)
    left = tmp_path / "left"
    left.write_bytes(b"left over")
    key = keys.artifact_key(flow.view().prefix, keys.BENCHMARK_ZIP)
    flow.clouds.bucket.put_once(
        key, left, digest_of(left), content_type="application/zip", build_id=str(build_id)
    )
    if taken:
        assert failure_of(flow, StepName.NEEDS_MODEL).code == "prefix_taken"
    else:
        flow.do(StepName.NEEDS_MODEL)


def test_the_newest_available_image_is_taken_and_recorded(flow: Flow) -> None:
    image = flow.do(StepName.FIND_IMAGE)
    assert image.name == "FPO Training 1.1.0"
    with flow.database.transaction() as session:
        recorded = inputs.of_build(session, flow.build_id)
    assert [(item.kind, item.name, item.origin) for item in recorded] == [
        ("machine_image", "FPO Training 1.1.0", f"aws:eu-west-2:{image.image_id}")
    ]


def test_without_an_image_the_failure_says_how_to_make_one(
    flow: Flow, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = flow.settings.model_copy(update={"image_name_pattern": "No Such Image *"})
    monkeypatch.setattr(flow.work, "settings", other)
    failure = failure_of(flow, StepName.FIND_IMAGE)
    assert failure.code == "no_image"
    assert "Packer" in failure.message


@pytest.mark.parametrize(
    ("setting", "value"), [("subnet_cidr", "10.9.9.0/24"), ("security_group", "no-such-group")]
)
def test_a_network_that_is_not_there_is_named(
    flow: Flow, monkeypatch: pytest.MonkeyPatch, setting: str, value: str
) -> None:
    monkeypatch.setattr(flow.work, "settings", flow.settings.model_copy(update={setting: value}))
    failure = failure_of(flow, StepName.FIND_NETWORK)
    assert failure.code == "no_network"
    assert value in failure.message


def test_the_instance_carries_our_tags_and_a_dead_mans_switch(flow: Flow, cloud: SimCloud) -> None:
    flow.do_until(StepName.LAUNCH_INSTANCE)
    launched = flow.do(StepName.LAUNCH_INSTANCE)
    [instance] = cloud.instances()
    assert instance.id == launched.instance_id
    assert instance.tags["managed-by"] == MANAGED_BY
    assert instance.tags["build-id"] == str(flow.build_id)
    assert instance.tags["prefix"] == flow.view().prefix
    described = flow.clouds.home.ec2.describe_instance_attribute(
        InstanceId=instance.id, Attribute="instanceInitiatedShutdownBehavior"
    )
    assert described["InstanceInitiatedShutdownBehavior"]["Value"] == "terminate"


def test_a_launch_whose_answer_was_lost_makes_one_instance(flow: Flow, cloud: SimCloud) -> None:
    flow.do_until(StepName.LAUNCH_INSTANCE)
    first = flow.act(StepName.LAUNCH_INSTANCE)
    # The process died here: the id was never stored.
    second = flow.do(StepName.LAUNCH_INSTANCE)
    assert second == first
    assert len(cloud.instances(ended=True)) == 1


def test_two_launches_with_the_same_token_make_one_instance_even_before_its_tags_are_seen(
    flow: Flow, cloud: SimCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    flow.do_until(StepName.LAUNCH_INSTANCE)
    monkeypatch.setattr("worker.ec2.instances_of", lambda *_: [])
    first = flow.act(StepName.LAUNCH_INSTANCE)
    assert flow.act(StepName.LAUNCH_INSTANCE) == first
    assert len(cloud.instances(ended=True)) == 1


def launches_of(flow: Flow) -> list[Launch]:
    with flow.database.transaction() as session:
        return listing.get(session, flow.build_id).launches


def test_a_launch_is_recorded_before_ec2_is_asked_and_with_what_became_of_it(
    flow: Flow, cloud: SimCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    flow.do_until(StepName.LAUNCH_INSTANCE)
    # Dies while EC2 is asked: the request is on record, and nobody knows yet what became of it.
    cloud.faults.add("ec2", "RunInstances", code="InternalError", status=500, times=1)
    with pytest.raises(CloudUnavailable):
        flow.act(StepName.LAUNCH_INSTANCE)
    assert [(launch.attempt, launch.state) for launch in launches_of(flow)] == [(1, "requested")]
    launched = flow.do(StepName.LAUNCH_INSTANCE)
    [launch] = launches_of(flow)
    assert (launch.attempt, launch.state, launch.instance_id) == (1, "launched", launched.instance_id)
    assert (launch.region, launch.zone) == (launched.region, launched.zone)
    flow.do(StepName.TERMINATE_INSTANCE)
    [launch] = launches_of(flow)
    assert launch.state == "terminated"
    assert launch.ended_at is not None


def test_a_refused_launch_is_kept_with_what_aws_said(flow: Flow, cloud: SimCloud) -> None:
    flow.do_until(StepName.LAUNCH_INSTANCE)
    cloud.faults.add("ec2", "RunInstances", code="InsufficientInstanceCapacity", status=500, times=1)
    with pytest.raises(NoCapacity):
        flow.act(StepName.LAUNCH_INSTANCE)
    flow.do(StepName.LAUNCH_INSTANCE)
    first, second = launches_of(flow)
    assert (first.state, first.refusal_code) == ("refused", "InsufficientInstanceCapacity")
    assert (second.attempt, second.state) == (2, "launched")
    assert first.client_token != second.client_token


def test_a_build_that_lost_three_instances_gets_no_fourth(flow: Flow, cloud: SimCloud) -> None:
    flow.do_until(StepName.LAUNCH_INSTANCE)
    for _ in range(3):
        flow.do(StepName.LAUNCH_INSTANCE)
        flow.do(StepName.TERMINATE_INSTANCE)
        with flow.database.transaction() as session:
            steps.rewind(session, flow.lease, StepName.LAUNCH_INSTANCE, "the instance was lost")
    failure = failure_of(flow, StepName.LAUNCH_INSTANCE)
    assert failure.code == "too_many_launches"
    assert len(cloud.instances(ended=True)) == 3


def test_an_instance_that_ec2_does_not_know_yet_is_asked_for_again(flow: Flow, cloud: SimCloud) -> None:
    flow.do_until(StepName.AWAIT_ADDRESS)
    code = "InvalidInstanceID.NotFound"
    cloud.faults.add("ec2", "DescribeInstances", code=code, status=400, times=1)
    assert flow.do(StepName.AWAIT_ADDRESS).address
    cloud.faults.add("ec2", "DescribeInstanceStatus", code=code, status=400, times=1)
    cloud.faults.add("ec2", "DescribeInstances", code=code, status=400, times=1)
    assert flow.do(StepName.AWAIT_READY).checks == "system ok, instance ok"


def test_the_address_is_that_of_the_running_instance(flow: Flow, cloud: SimCloud) -> None:
    flow.do_until(StepName.AWAIT_ADDRESS)
    address = flow.do(StepName.AWAIT_ADDRESS).address
    [instance] = cloud.instances()
    assert (address, instance.state) == (instance.address, "running")
    assert flow.do(StepName.AWAIT_READY).checks == "system ok, instance ok"


def test_an_instance_that_ended_by_itself_is_told_from_one_that_is_slow(flow: Flow, cloud: SimCloud) -> None:
    flow.do_until(StepName.AWAIT_ADDRESS)
    cloud.kill_instance(flow.view().outputs[StepName.LAUNCH_INSTANCE]["instance_id"])
    assert failure_of(flow, StepName.AWAIT_ADDRESS).code == "instance_lost"


def test_the_key_is_named_and_never_stored(flow: Flow, cloud: SimCloud) -> None:
    flow.do_until(StepName.FETCH_KEY)
    key = flow.do(StepName.FETCH_KEY)
    assert key.fingerprint.startswith("SHA256:")
    assert "PRIVATE KEY" not in str(flow.view().outputs)


@pytest.mark.parametrize("secret", ["no key at all", ""])
def test_a_secret_without_a_key_is_named(flow: Flow, secret: str) -> None:
    flow.do_until(StepName.FETCH_KEY)
    name = flow.settings.ssh_key_secret
    flow.clouds.home.secrets.put_secret_value(SecretId=name, SecretString=secret or " ")
    failure = failure_of(flow, StepName.FETCH_KEY)
    assert failure.code == "no_key"
    assert name in failure.message


def test_a_missing_secret_is_named(flow: Flow, monkeypatch: pytest.MonkeyPatch) -> None:
    flow.do_until(StepName.FETCH_KEY)
    other = flow.settings.model_copy(update={"ssh_key_secret": "no-such-secret"})
    monkeypatch.setattr(flow.work, "settings", other)
    failure = failure_of(flow, StepName.FETCH_KEY)
    assert failure.code == "no_key"
    assert "no-such-secret" in failure.message


LOUD = """\
echo Welcome to $HOSTNAME
printf '\\n$(touch ~/was-run)'
echo 0123456 >&2
export SHELLOPTS; set -x
"""


def test_a_login_script_that_prints_disturbs_no_step(flow: Flow, cloud: SimCloud, head: str) -> None:
    flow.do_until(StepName.VALIDATE_CONNECTION)
    [instance] = cloud.instances()
    (instance.home / ".bashrc").write_text(LOUD)
    flow.do_until(StepName.BRING_CODE)
    code = flow.do(StepName.BRING_CODE)
    assert code.commit == head
    # Once more, by the instance's own fetch.
    flow.work.settings = flow.settings.model_copy(update={"code_repository": None})
    again = flow.act(StepName.BRING_CODE)
    assert again.commit == head
    assert Path(again.origin).is_dir()
    flow.do(StepName.LOAD_INPUTS)
    assert not (instance.home / "was-run").exists()


@pytest.mark.parametrize("script", ["exit 0", "exit 3", "exec echo Welcome"])
def test_a_login_script_that_ends_the_shell_is_named(flow: Flow, cloud: SimCloud, script: str) -> None:
    flow.do_until(StepName.VALIDATE_CONNECTION)
    [instance] = cloud.instances()
    (instance.home / ".bashrc").write_text(f"{script}\n")
    with pytest.raises(RemoteFault, match="login script") as raised:
        flow.act(StepName.VALIDATE_CONNECTION)
    assert raised.value.code == "invalid_image"


def test_the_code_is_the_commits_and_bringing_it_again_repairs_it(
    flow: Flow, cloud: SimCloud, head: str
) -> None:
    flow.do_until(StepName.BRING_CODE)
    assert flow.act(StepName.BRING_CODE).commit == head
    [instance] = cloud.instances()
    worktree = instance.home / "builds" / str(flow.build_id) / "repository"
    # As a try that died halfway would leave it.
    (worktree / "training" / "config.py").write_text("broken")
    (worktree / ".git").unlink()
    assert flow.do(StepName.BRING_CODE).commit == head
    assert (worktree / "training" / "config.py").read_text() != "broken"
    with flow.database.transaction() as session:
        recorded = {item.name: item for item in inputs.of_build(session, flow.build_id)}
    code = recorded["training repository"]
    assert code.origin is not None
    assert code.origin.endswith(f"@{head}")


def test_the_instance_fetches_for_itself_where_no_checkout_is_configured(
    flow: Flow, head: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    flow.do_until(StepName.BRING_CODE)
    monkeypatch.setattr(flow.work, "settings", flow.settings.model_copy(update={"code_repository": None}))
    assert flow.act(StepName.BRING_CODE).commit == head


def test_an_image_whose_clone_is_older_gets_the_commit_even_from_a_shallow_clone(
    flow: Flow, cloud: SimCloud, head: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Path(__file__).resolve().parents[3]
    shallow = tmp_path / "shallow"
    subprocess.run(
        ["git", "clone", "--quiet", "--depth", "1", root.as_uri(), shallow], check=True, capture_output=True
    )
    monkeypatch.setattr(
        flow.work, "settings", flow.settings.model_copy(update={"code_repository": str(shallow)})
    )
    flow.do_until(StepName.BRING_CODE)
    [instance] = cloud.instances()
    clone = instance.home / "training" / "repository"
    shutil.rmtree(clone)
    subprocess.run(["git", "init", "--quiet", clone], check=True)
    assert flow.act(StepName.BRING_CODE).commit == head
    # Twice, as after a death: the clone has the commit by then.
    assert flow.act(StepName.BRING_CODE).commit == head
    worktree = instance.home / "builds" / str(flow.build_id) / "repository"
    assert (worktree / "training" / "config.py").is_file()


def test_an_image_without_a_clone_is_named(flow: Flow, cloud: SimCloud) -> None:
    flow.do_until(StepName.BRING_CODE)
    [instance] = cloud.instances()
    shutil.rmtree(instance.home / "training" / "repository")
    assert failure_of(flow, StepName.BRING_CODE).code == "invalid_image"


def test_inputs_are_pinned_by_content_and_stay_what_they_were(flow: Flow, cloud: SimCloud) -> None:
    flow.do_until(StepName.LOAD_INPUTS)
    first = flow.act(StepName.LOAD_INPUTS)
    assert flow.do(StepName.LOAD_INPUTS) == first
    pinned = first.inputs[keys.RAW_SOURCE_DATA]
    found = flow.clouds.bucket.head(pinned.key)
    assert found is not None
    assert found.sha256 == pinned.sha256
    [instance] = cloud.instances()
    folder = instance.home / "builds" / str(flow.build_id)
    assert (folder / "inputs" / keys.RAW_SOURCE_DATA).stat().st_size == pinned.size_bytes
    assert (folder / "search-config.toml").read_text() == flow.view().search_config
    with flow.database.transaction() as session:
        kinds = {item.kind for item in inputs.of_build(session, flow.build_id)}
    assert {"raw_data", "benchmark_data", "config"} <= kinds


def test_the_files_inside_the_raw_data_and_the_object_that_it_came_from_are_recorded(flow: Flow) -> None:
    flow.do_until(StepName.LOAD_INPUTS)
    there = flow.clouds.bucket.head(keys.RAW_SOURCE_DATA)
    pinned = flow.act(StepName.LOAD_INPUTS).inputs[keys.RAW_SOURCE_DATA]
    # Twice, as after a death.
    flow.do(StepName.LOAD_INPUTS)
    with zipfile.ZipFile(io.BytesIO(flow.clouds.bucket.fetch(keys.RAW_SOURCE_DATA, 1 << 30).content)) as raw:
        files = {name: hashlib.sha256(raw.read(name)).hexdigest() for name in raw.namelist()}
    with flow.database.transaction() as session:
        recorded = session.scalars(select(InputPart).where(InputPart.container == pinned.sha256)).all()
        assert {part.path: part.sha256 for part in recorded} == files
        [data] = [item for item in inputs.of_build(session, flow.build_id) if item.kind == "raw_data"]
    assert there is not None
    assert data.details["etag"] == there.etag.strip('"')
    assert data.details["fetched_from"] == f"s3://{flow.clouds.bucket.name}/{keys.RAW_SOURCE_DATA}"
    assert "fetched_at" in data.details


def test_the_build_goes_on_when_the_files_inside_an_archive_cannot_be_told(
    flow: Flow, tmp_path: Path
) -> None:
    flow.do_until(StepName.LOAD_INPUTS)
    bomb = tmp_path / "bomb.zip"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros.csv", bytes(100 << 20))
    flow.clouds.bucket.write(
        keys.RAW_SOURCE_DATA, bomb.read_bytes(), over=flow.clouds.bucket.head(keys.RAW_SOURCE_DATA)
    )
    pinned = flow.do(StepName.LOAD_INPUTS).inputs[keys.RAW_SOURCE_DATA]
    with flow.database.transaction() as session:
        recorded = session.get_one(Input, pinned.sha256)
        assert recorded.parts_problem is not None
        assert "claims to hold" in recorded.parts_problem


@pytest.mark.parametrize("fetches", [False, True])
def test_the_commit_is_kept_as_an_input_from_which_git_can_make_it_again(
    flow: Flow, head: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, fetches: bool
) -> None:
    flow.do_until(StepName.BRING_CODE)
    if fetches:
        changed = flow.settings.model_copy(update={"code_repository": None})
        monkeypatch.setattr(flow.work, "settings", changed)
    flow.do(StepName.BRING_CODE)
    with flow.database.transaction() as session:
        [pack] = [item for item in inputs.of_build(session, flow.build_id) if item.name == "code.pack"]
    assert pack.sha256 is not None
    local = tmp_path / "code.pack"
    flow.clouds.bucket.download(keys.input_key(pack.sha256), local)
    # A repository that has never seen the commit.
    git = ["git", "-C", str(tmp_path / "again")]
    subprocess.run(["git", "init", "--quiet", git[2]], check=True)
    subprocess.run([*git, "index-pack", "--stdin"], input=local.read_bytes(), check=True, capture_output=True)
    subprocess.run([*git, "read-tree", head], check=True)
    subprocess.run([*git, "checkout-index", "--all"], check=True)
    tree = subprocess.run([*git, "write-tree"], check=True, capture_output=True, text=True).stdout.strip()
    assert pack.details == {"commit": head, "tree": tree, "clean": True}
    assert (tmp_path / "again" / "training" / "config.py").is_file()


def test_an_input_that_went_away_meanwhile_fails_the_step(flow: Flow) -> None:
    flow.do_until(StepName.LOAD_INPUTS)
    flow.clouds.bucket.delete(keys.RAW_SOURCE_DATA)
    assert failure_of(flow, StepName.LOAD_INPUTS).code == "missing_input"


def test_a_pinned_input_that_is_not_what_its_name_says_stops_everything(flow: Flow) -> None:
    flow.do_until(StepName.LOAD_INPUTS)
    pinned = flow.act(StepName.LOAD_INPUTS).inputs[keys.RAW_SOURCE_DATA]
    overwrite(flow.clouds.bucket, pinned.key)
    assert failure_of(flow, StepName.LOAD_INPUTS).code == "corrupt_input"


def test_a_pinned_input_with_other_bytes_and_the_right_metadata_is_not_trusted(
    flow: Flow, tmp_path: Path
) -> None:
    flow.do_until(StepName.LOAD_INPUTS)
    pinned = flow.act(StepName.LOAD_INPUTS).inputs[keys.RAW_SOURCE_DATA]
    found = flow.clouds.bucket.head(pinned.key)
    assert found is not None
    flow.clouds.bucket._client.put_object(
        Bucket=flow.clouds.bucket.name,
        Key=pinned.key,
        Body=b"x" * found.size_bytes,
        Metadata={"sha256": pinned.sha256},
    )
    assert failure_of(flow, StepName.LOAD_INPUTS).code == "corrupt_input"


def test_an_input_is_on_record_before_the_bucket_has_it(flow: Flow, cloud: SimCloud) -> None:
    flow.do_until(StepName.LOAD_INPUTS)
    cloud.faults.add("s3", "PutObject", code="AccessDenied", status=403, times=1)
    with pytest.raises(CloudError):
        flow.act(StepName.LOAD_INPUTS)
    [kept] = [one for one in recorded_inputs(flow) if one.stored_at is None]
    assert flow.clouds.bucket.head(keys.input_key(kept.sha256)) is None
    flow.do(StepName.LOAD_INPUTS)
    stored = {one.sha256 for one in recorded_inputs(flow) if one.stored_at is not None}
    assert {key.rpartition("/")[2] for key, _ in flow.clouds.bucket.list("inputs/")} == stored


def recorded_inputs(flow: Flow) -> list[Input]:
    with flow.database.transaction() as session:
        return list(session.scalars(select(Input)))


def test_termination_ends_the_machine_and_says_so_again_when_repeated(flow: Flow, cloud: SimCloud) -> None:
    flow.do_until(StepName.FETCH_KEY)
    [instance] = cloud.instances()
    assert flow.act(StepName.TERMINATE_INSTANCE).instance_ids == (instance.id,)
    assert flow.do(StepName.TERMINATE_INSTANCE).instance_ids == (instance.id,)
    assert cloud.instances() == []


def test_termination_ends_an_instance_whose_id_was_never_stored(flow: Flow, cloud: SimCloud) -> None:
    flow.do_until(StepName.LAUNCH_INSTANCE)
    flow.act(StepName.LAUNCH_INSTANCE)
    assert len(flow.do(StepName.TERMINATE_INSTANCE).instance_ids) == 1
    assert cloud.instances() == []


def test_termination_without_an_instance_is_done(flow: Flow) -> None:
    assert flow.do(StepName.TERMINATE_INSTANCE).instance_ids == ()


def test_a_step_past_its_deadline_fails(flow: Flow, cloud: SimCloud) -> None:
    flow.do_until(StepName.AWAIT_ADDRESS)
    flow.work.begin(StepName.AWAIT_ADDRESS, timedelta(0))
    with pytest.raises(StepFailed) as raised:
        flow.work.sleep(0.01)
    assert raised.value.code == "deadline_exceeded"


def test_a_worker_that_lost_its_lease_applies_nothing(flow: Flow, settings: Settings) -> None:
    flow.do_until(StepName.FIND_NETWORK)
    output = flow.act(StepName.FIND_NETWORK)
    with flow.database.transaction() as session:
        release(session, flow.lease)
    with flow.database.transaction() as session:
        taken = take(session, flow.build_id, "another", settings.lease)
    assert taken is not None
    with pytest.raises(LeaseLost), flow.database.transaction() as session:
        steps.finish(session, flow.lease, StepName.FIND_NETWORK, output.model_dump(mode="json"))
    with flow.database.transaction() as session:
        assert StepName.FIND_NETWORK not in steps.view(session, taken).done
