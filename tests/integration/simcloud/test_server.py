"""The simulated cloud as a whole: how it starts and stops."""

import fcntl
import os
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import boto3
import pytest

from local.simcloud.server import SimCloud, SimCloudError
from local.simcloud.settings import Settings


def buckets(cloud: SimCloud) -> list[str]:
    with_any = {"aws_access_key_id": "a", "aws_secret_access_key": "a", "region_name": cloud.region}
    s3 = boto3.client("s3", endpoint_url=cloud.endpoint_url, **with_any)  # type: ignore[call-overload]
    return [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]]


def test_a_process_holds_one_cloud_at_a_time() -> None:
    with SimCloud(Settings(bucket="first")) as first:
        with pytest.raises(SimCloudError, match="Stop it first"):
            SimCloud().start()
        assert buckets(first) == ["first"]
    with SimCloud(Settings(bucket="second")) as second:
        assert buckets(second) == ["second"]


def test_a_cloud_that_stops_leaves_moto_unchanged() -> None:
    from moto.ec2.models import EC2Backend
    from moto.ec2.models.instances import Instance

    before = (vars(EC2Backend).get("run_instances"), vars(Instance)["terminate"])
    with SimCloud():
        assert vars(Instance)["terminate"] != before[1]
    assert (vars(EC2Backend).get("run_instances"), vars(Instance)["terminate"]) == before


def test_more_regions_have_a_network_and_images_too() -> None:
    with SimCloud(Settings(more_regions=("eu-west-1",))) as cloud:
        for region in cloud.settings.regions:
            with_any = {"aws_access_key_id": "a", "aws_secret_access_key": "a", "region_name": region}
            ec2 = boto3.client("ec2", endpoint_url=cloud.endpoint_url, **with_any)  # type: ignore[call-overload]
            found = ec2.describe_images(Filters=[{"Name": "name", "Values": ["FPO Training 1.1.0"]}])
            image = found["Images"][0]["ImageId"]
            ec2.run_instances(ImageId=image, MinCount=1, MaxCount=1, KeyName="fpo-training")
        assert [instance.region for instance in cloud.instances()] == ["eu-west-2", "eu-west-1"]


def test_the_clone_works_from_a_shallow_repository(source_repository: Path, tmp_path: Path) -> None:
    shallow = tmp_path / "shallow"
    subprocess.run(
        ["git", "clone", "--quiet", "--depth=1", f"file://{source_repository}", str(shallow)], check=True
    )
    with SimCloud(Settings(repository=shallow)) as cloud:
        assert clone_of(cloud).count("\n") == 1


def clone_of(cloud: SimCloud) -> str:
    with_any: Any = {"aws_access_key_id": "a", "aws_secret_access_key": "a", "region_name": cloud.region}
    ec2 = boto3.client("ec2", endpoint_url=cloud.endpoint_url, **with_any)
    image = ec2.describe_images(Filters=[{"Name": "name", "Values": ["FPO Training 1.1.0"]}])["Images"][0]
    ec2.run_instances(ImageId=image["ImageId"], MinCount=1, MaxCount=1, KeyName="fpo-training")
    while (instance := cloud.instances()[0]).state != "running":
        time.sleep(0.01)
    command = [
        "git",
        "-c",
        "safe.directory=*",
        "-C",
        str(instance.home / "training/repository"),
        "log",
        "--oneline",
    ]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_a_folder_that_is_not_a_repository_is_refused(tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.raises(SimCloudError, match="not a git repository"):
        SimCloud(Settings(repository=tmp_path_factory.mktemp("empty"))).start()


def test_a_cloud_that_never_started_can_be_stopped() -> None:
    SimCloud().stop()


def test_a_port_that_is_taken_is_reported() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(SimCloudError, match="--port"):
        SimCloud(Settings(port=other.getsockname()[1])).start()
    with SimCloud() as cloud:
        assert buckets(cloud) == ["tariff-models"]


def test_a_state_folder_that_is_in_use_is_reported(tmp_path: Path) -> None:
    lock = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX)
    with pytest.raises(SimCloudError, match="--state"):
        SimCloud(Settings(state=tmp_path)).start()
    os.close(lock)
    with SimCloud(Settings(state=tmp_path)) as cloud:
        assert buckets(cloud) == ["tariff-models"]
