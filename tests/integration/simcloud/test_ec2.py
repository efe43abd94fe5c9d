"""The simulated EC2 as boto3 sees it."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore.exceptions import ClientError

from local.simcloud.processes import carrying
from local.simcloud.server import SimCloud

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_secretsmanager import SecretsManagerClient

Request = Callable[..., dict[str, Any]]
Launch = Callable[..., str]
StateOf = Callable[[str], str]
Eventually = Callable[[Callable[[], object]], None]


def test_only_one_image_is_the_newest_that_is_ours_and_available(ec2: "EC2Client") -> None:
    every = ec2.describe_images()["Images"]
    assert len({image["CreationDate"] for image in every}) == len(every)
    ours = ec2.describe_images(
        Owners=["self"],
        Filters=[
            {"Name": "name", "Values": ["FPO Training *"]},
            {"Name": "state", "Values": ["available"]},
        ],
    )["Images"]
    newest_first = sorted(ours, key=lambda image: image["CreationDate"], reverse=True)
    assert [image["Name"] for image in newest_first] == ["FPO Training 1.1.0", "FPO Training 1.0.0"]
    # A search that forgets one of the three conditions finds a newer one.
    assert max(every, key=lambda image: image["CreationDate"])["Name"] != "FPO Training 1.1.0"
    assert {image["State"] for image in every} == {"available", "pending"}
    assert len({image["OwnerId"] for image in every}) == 2


def test_an_image_keeps_its_id_between_runs(cloud: SimCloud, ec2: "EC2Client") -> None:
    before = {image["ImageId"] for image in ec2.describe_images()["Images"]}
    cloud.reset()
    assert {image["ImageId"] for image in ec2.describe_images()["Images"]} == before


def test_a_test_can_add_an_image(cloud: SimCloud, ec2: "EC2Client") -> None:
    made = cloud.add_image("FPO Training 2.0.0", datetime(2026, 9, 1, tzinfo=UTC), tags={"base": "x"})
    (image,) = ec2.describe_images(ImageIds=[made])["Images"]
    assert (image["Name"], image["CreationDate"][:10]) == ("FPO Training 2.0.0", "2026-09-01")
    assert {"Key": "base", "Value": "x"} in image["Tags"]


def test_the_network_the_key_and_its_secret_are_there(
    ec2: "EC2Client", secrets: "SecretsManagerClient", request_of: Request
) -> None:
    asked = request_of()
    subnet = ec2.describe_subnets(SubnetIds=[asked["SubnetId"]])["Subnets"][0]
    group = ec2.describe_security_groups(GroupIds=asked["SecurityGroupIds"])["SecurityGroups"][0]
    assert subnet["VpcId"] == group["VpcId"]
    assert ec2.describe_key_pairs(KeyNames=["fpo-training"])["KeyPairs"][0]["KeyType"] == "ed25519"
    pem = secrets.get_secret_value(SecretId="fpo-training-ssh-key")["SecretString"]
    assert pem.startswith("-----BEGIN OPENSSH PRIVATE KEY-----")


def test_an_instance_is_pending_until_its_ssh_server_listens(
    ec2: "EC2Client", cloud: SimCloud, request_of: Request, state_of: StateOf, eventually: Eventually
) -> None:
    cloud.faults.add("instance", "Boot", latency_s=0.4)
    made = ec2.run_instances(**request_of())["Instances"][0]
    assert made["State"]["Name"] == "pending"
    assert made["PrivateIpAddress"].startswith("127.0.1.")
    assert state_of(made["InstanceId"]) == "pending"
    status = ec2.describe_instance_status(InstanceIds=[made["InstanceId"]], IncludeAllInstances=True)
    assert status["InstanceStatuses"][0]["InstanceStatus"]["Status"] == "not-applicable"
    eventually(lambda: state_of(made["InstanceId"]) == "running")
    status = ec2.describe_instance_status(InstanceIds=[made["InstanceId"]])
    assert status["InstanceStatuses"][0]["InstanceStatus"]["Status"] == "ok"
    assert status["InstanceStatuses"][0]["SystemStatus"]["Status"] == "ok"


def test_an_instance_that_cannot_boot_is_terminated_and_says_why(
    ec2: "EC2Client", cloud: SimCloud, request_of: Request, state_of: StateOf, eventually: Eventually
) -> None:
    cloud.faults.add("instance", "Boot", code="Server.InternalError", message="no disk")
    made = ec2.run_instances(**request_of())["Instances"][0]["InstanceId"]
    eventually(lambda: state_of(made) == "terminated")
    found = ec2.describe_instances(InstanceIds=[made])["Reservations"][0]["Instances"][0]
    assert found["StateReason"]["Code"] == "Server.InternalError"
    assert "no disk" in found["StateReason"]["Message"]


def test_boto3s_waiters_work(ec2: "EC2Client", request_of: Request) -> None:
    made = ec2.run_instances(**request_of())["Instances"][0]["InstanceId"]
    patient: Any = {"Delay": 0.05, "MaxAttempts": 100}
    ec2.get_waiter("instance_running").wait(InstanceIds=[made], WaiterConfig=patient)
    ec2.get_waiter("instance_status_ok").wait(InstanceIds=[made], WaiterConfig=patient)
    ec2.terminate_instances(InstanceIds=[made])
    ec2.get_waiter("instance_terminated").wait(InstanceIds=[made], WaiterConfig=patient)


def test_instances_are_found_by_tag_token_lifecycle_and_state(ec2: "EC2Client", launch: Launch) -> None:
    tags = [{"Key": "managed-by", "Value": "registry"}]
    tagged = launch(TagSpecifications=[{"ResourceType": "instance", "Tags": tags}], ClientToken="one")
    spot = launch(InstanceMarketOptions={"MarketType": "spot"}, ClientToken="two")

    def find(name: str, value: str) -> list[str]:
        found = ec2.describe_instances(Filters=[{"Name": name, "Values": [value]}])["Reservations"]
        return [instance["InstanceId"] for each in found for instance in each["Instances"]]

    assert find("tag:managed-by", "registry") == [tagged]
    assert find("client-token", "one") == [tagged]
    assert find("instance-lifecycle", "spot") == [spot]
    assert find("instance-state-name", "running") == [tagged, spot]
    described = ec2.describe_instances(InstanceIds=[spot])["Reservations"][0]["Instances"][0]
    assert described["InstanceLifecycle"] == "spot"
    assert described["ClientToken"] == "two"


def test_the_same_token_again_makes_no_second_instance(
    ec2: "EC2Client", request_of: Request, state_of: StateOf, eventually: Eventually
) -> None:
    asked = request_of(ClientToken="build-1")
    first = ec2.run_instances(**asked)["Instances"][0]
    again = ec2.run_instances(**asked)["Instances"][0]
    assert again["InstanceId"] == first["InstanceId"]
    ec2.terminate_instances(InstanceIds=[first["InstanceId"]])
    eventually(lambda: state_of(first["InstanceId"]) == "terminated")
    gone = ec2.run_instances(**asked)["Instances"][0]
    assert gone["InstanceId"] == first["InstanceId"]
    assert gone["State"]["Name"] == "terminated"


def test_the_same_token_with_other_parameters_is_refused(ec2: "EC2Client", request_of: Request) -> None:
    ec2.run_instances(**request_of(ClientToken="build-1"))
    with pytest.raises(ClientError, match="IdempotentParameterMismatch"):
        ec2.run_instances(**request_of(ClientToken="build-1", InstanceType="g5.xlarge"))


def test_the_same_token_at_the_same_moment_makes_one_instance(
    ec2: "EC2Client", cloud: SimCloud, request_of: Request
) -> None:
    asked = request_of(ClientToken="build-1")
    made: list[str] = []

    def run() -> None:
        made.append(ec2.run_instances(**asked)["Instances"][0]["InstanceId"])

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 8
    assert len(set(made)) == 1
    assert len(cloud.instances()) == 1


def test_two_launches_without_a_token_make_two_instances(cloud: SimCloud, launch: Launch) -> None:
    first, second = launch(), launch()
    assert [instance.id for instance in cloud.instances()] == [first, second]
    addresses = {instance.address for instance in cloud.instances()}
    assert len(addresses) == 2
    assert "127.0.1.1" not in addresses


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"ImageId": "ami-00000000000000000"}, "InvalidAMIID.NotFound"),
        ({"KeyName": "nobodys"}, "InvalidKeyPair.NotFound"),
        ({"SubnetId": "subnet-00000000"}, "InvalidSubnetID.NotFound"),
        ({"SecurityGroupIds": ["sg-00000000"]}, "InvalidGroup.NotFound"),
        ({"InstanceType": "g4dn.huge"}, "InvalidParameterValue"),
        ({"ClientToken": "x" * 65}, "InvalidParameterValue"),
    ],
)
def test_a_launch_that_names_something_unknown_is_refused_and_leaves_nothing(
    change: dict[str, Any], code: str, ec2: "EC2Client", cloud: SimCloud, request_of: Request
) -> None:
    with pytest.raises(ClientError) as refused:
        ec2.run_instances(**request_of(**change))
    assert refused.value.response["Error"]["Code"] == code
    assert cloud.instances(ended=True) == []
    assert ec2.describe_instances()["Reservations"] == []


def test_a_dry_run_makes_nothing(ec2: "EC2Client", cloud: SimCloud, request_of: Request) -> None:
    with pytest.raises(ClientError, match="DryRunOperation"):
        ec2.run_instances(**request_of(DryRun=True, ClientToken="dry"))
    assert cloud.instances() == []


def test_terminating_twice_succeeds_and_an_unknown_instance_is_an_error(
    ec2: "EC2Client", launch: Launch, state_of: StateOf, eventually: Eventually
) -> None:
    made = launch()
    answer = ec2.terminate_instances(InstanceIds=[made])["TerminatingInstances"][0]
    assert answer["PreviousState"]["Name"] == "running"
    assert answer["CurrentState"]["Name"] == "shutting-down"
    ec2.terminate_instances(InstanceIds=[made])
    eventually(lambda: state_of(made) == "terminated")
    ec2.terminate_instances(InstanceIds=[made])
    with pytest.raises(ClientError, match=r"InvalidInstanceID\.NotFound"):
        ec2.terminate_instances(InstanceIds=["i-00000000000000000"])


def test_an_instance_that_is_terminated_while_it_boots_never_runs(
    ec2: "EC2Client", cloud: SimCloud, request_of: Request, state_of: StateOf, eventually: Eventually
) -> None:
    made = ec2.run_instances(**request_of())["Instances"][0]["InstanceId"]
    ec2.terminate_instances(InstanceIds=[made])
    eventually(lambda: state_of(made) == "terminated")
    assert cloud.instances() == []
    eventually(lambda: not (cloud.state / "instances" / made).exists())


def test_a_reboot_ends_the_processes_and_keeps_the_home(
    ec2: "EC2Client",
    cloud: SimCloud,
    launch: Launch,
    state_of: StateOf,
    eventually: Eventually,
    sh: Callable[..., tuple[int, str, str]],
) -> None:
    made = launch(UserData="#cloud-boothook\n#!/bin/sh\necho booted >> boots\n")
    [address] = [instance.address for instance in cloud.instances()]
    sh(made, "echo kept > file; setsid sleep 100 >/dev/null 2>&1 </dev/null & echo $! > pid")
    pid = int(sh(made, "cat pid")[1])
    assert pid in carrying(f"SIMCLOUD_INSTANCE_ID={made}")
    cloud.reboot_instance(made)
    assert state_of(made) == "running"
    assert [instance.address for instance in cloud.instances()] == [address]
    assert sh(made, "cat file")[1] == "kept\n"
    assert pid not in carrying(f"SIMCLOUD_INSTANCE_ID={made}")
    eventually(lambda: sh(made, "cat boots")[1] == "booted\nbooted\n")
    ec2.reboot_instances(InstanceIds=[made])
    eventually(lambda: state_of(made) == "running" and cloud.instances()[0].state == "running")


def test_a_stopped_instance_cannot_be_started_again(
    ec2: "EC2Client", launch: Launch, state_of: StateOf, eventually: Eventually
) -> None:
    made = launch()
    ec2.stop_instances(InstanceIds=[made])
    eventually(lambda: state_of(made) == "stopped")
    with pytest.raises(ClientError, match="UnsupportedOperation"):
        ec2.start_instances(InstanceIds=[made])


def test_user_data_over_the_limit_is_refused(ec2: "EC2Client", cloud: SimCloud, request_of: Request) -> None:
    with pytest.raises(ClientError, match="limited to 16384 bytes"):
        ec2.run_instances(**request_of(UserData="#!/bin/sh\n" + "#" * 16384))
    assert cloud.instances(ended=True) == []


def test_another_region_has_nothing_unless_it_is_seeded(cloud: SimCloud) -> None:
    elsewhere = boto3.client(
        "ec2",
        endpoint_url=cloud.endpoint_url,
        region_name="eu-west-1",
        aws_access_key_id="any",
        aws_secret_access_key="any",
    )
    assert elsewhere.describe_images()["Images"] == []
    assert elsewhere.describe_instances()["Reservations"] == []


def test_a_test_can_inspect_an_instance(cloud: SimCloud, launch: Launch) -> None:
    tags = [{"Key": "build-id", "Value": "7"}]
    made = launch(TagSpecifications=[{"ResourceType": "instance", "Tags": tags}])
    (instance,) = cloud.instances()
    assert instance.id == made
    assert instance.state == "running"
    assert instance.ssh_port == cloud.ssh_port
    assert instance.home.is_dir()
    assert instance.tags == {"build-id": "7"}
    assert abs(datetime.now(UTC) - instance.launched_at) < timedelta(minutes=1)
