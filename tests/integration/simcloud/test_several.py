"""Several simulated clouds: beside each other, and inside each other in one process."""

from pathlib import Path

import boto3
import pytest

from local.simcloud.server import SimCloud, SimCloudError
from local.simcloud.settings import Settings


def buckets(cloud: SimCloud) -> list[str]:
    with_any = {"aws_access_key_id": "a", "aws_secret_access_key": "a", "region_name": cloud.region}
    s3 = boto3.client("s3", endpoint_url=cloud.endpoint_url, **with_any)  # type: ignore[call-overload]
    return [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]]


def test_a_second_cloud_in_the_process_suspends_the_first_until_it_stops() -> None:
    with SimCloud(Settings(bucket="outer")) as outer:
        with SimCloud(Settings(bucket="inner", region="us-east-1")) as inner:
            assert buckets(inner) == ["inner"]
            assert outer.ssh_port != inner.ssh_port
            with pytest.raises(SimCloudError):
                outer.instances()
        assert not outer.suspended
        assert buckets(outer) == ["outer"]
        outer.reset()
        assert buckets(outer) == ["outer"]


def test_the_first_may_stop_before_the_second() -> None:
    outer, inner = SimCloud(Settings(bucket="outer")), SimCloud(Settings(bucket="inner"))
    outer.start()
    inner.start()
    outer.stop()
    assert buckets(inner) == ["inner"]
    inner.stop()


def test_what_moto_was_before_it_is_afterwards() -> None:
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


def test_a_repository_that_is_none_is_refused(tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.raises(SimCloudError, match="no git repository"):
        SimCloud(Settings(repository=tmp_path_factory.mktemp("empty"))).start()


def test_a_cloud_that_never_started_can_be_stopped() -> None:
    SimCloud().stop()


def test_a_port_that_is_taken_is_told_and_nothing_stays_behind() -> None:
    with SimCloud() as cloud:
        with pytest.raises(SimCloudError, match="--port"):
            SimCloud(Settings(port=cloud.port)).start()
        assert buckets(cloud) == ["tariff-models"]


def test_a_state_that_is_in_use_is_told(tmp_path: Path) -> None:
    with (
        SimCloud(Settings(state=tmp_path, bucket="kept")) as cloud,
        pytest.raises(SimCloudError, match="--state"),
    ):
        SimCloud(Settings(state=cloud.state)).start()
    with SimCloud(Settings(state=tmp_path)) as cloud:
        assert buckets(cloud) == ["kept", "tariff-models"]
