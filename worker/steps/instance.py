"""The build's EC2 instance: launched once, waited for, and always terminated."""

import hashlib
from datetime import timedelta
from typing import TYPE_CHECKING, ClassVar
from uuid import UUID

from app.aws import CloudNotFound, translated
from app.registry.builds.steps import BuildView
from app.words import FailureCode, StepName
from worker.clouds import Cloud
from worker.errors import StepFailed
from worker.retry import Patience
from worker.steps.image import FindImage
from worker.steps.network import FindNetwork
from worker.steps.step import Output, Step, output_of
from worker.workbench import Workbench

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import FilterTypeDef, InstanceTypeDef, TagTypeDef

MANAGED_BY = "tariff-model-registry"

ALIVE = ("pending", "running", "stopping", "stopped")
_POLL_S = 2.0

# The dead-man's switch: whatever becomes of the registry, the machine ends itself, and ending is terminating.
_USER_DATA = """#!/bin/sh
shutdown -h +{minutes}
"""


class Launched(Output):
    instance_id: str
    instance_type: str
    region: str
    zone: str


class Address(Output):
    address: str


class Ready(Output):
    """`checks` is EC2's own word on the machine."""

    checks: str


class Terminated(Output):
    """The instances that were told to end; none when the build never got one."""

    instance_ids: tuple[str, ...]


def managed_instances(cloud: Cloud, *filters: "FilterTypeDef") -> list["InstanceTypeDef"]:
    """Every instance that carries our tag and is not ended, whoever launched it. Raises CloudError."""
    wanted: list[FilterTypeDef] = [
        {"Name": "tag:managed-by", "Values": [MANAGED_BY]},
        {"Name": "instance-state-name", "Values": list(ALIVE)},
        *filters,
    ]
    with translated():
        pages = cloud.ec2.get_paginator("describe_instances").paginate(Filters=wanted)
        return [found for page in pages for of in page["Reservations"] for found in of["Instances"]]


def instances_of(cloud: Cloud, build_id: UUID) -> list["InstanceTypeDef"]:
    return managed_instances(cloud, {"Name": "tag:build-id", "Values": [str(build_id)]})


def terminate(cloud: Cloud, instance_ids: list[str]) -> None:
    """Tell EC2 to end them; one that it does not know any more has ended. Raises CloudError."""
    for instance_id in instance_ids:
        try:
            with translated():
                cloud.ec2.terminate_instances(InstanceIds=[instance_id])
        except CloudNotFound:
            continue


def describe(cloud: Cloud, instance_id: str) -> "InstanceTypeDef | None":
    """None when EC2 does not know it (any more). Raises CloudError."""
    try:
        with translated():
            reservations = cloud.ec2.describe_instances(InstanceIds=[instance_id])["Reservations"]
    except CloudNotFound:
        return None
    return next((found for of in reservations for found in of["Instances"]), None)


def require_alive(cloud: Cloud, instance_id: str) -> None:
    """Raises StepFailed when the instance has ended without our doing."""
    found = describe(cloud, instance_id)
    state = found["State"]["Name"] if found is not None else "gone"
    if state not in ("pending", "running"):
        reason = (found or {}).get("StateTransitionReason") or "no reason given"
        message = f"The instance {instance_id} is {state} ({reason}). Post the build again."
        raise StepFailed(FailureCode.INSTANCE_LOST, message)


def launch_token(build_id: UUID, subnet_id: str, instance_type: str) -> str:
    """EC2's idempotency token of a launch: the same for every try of a build in a place. 64 characters."""
    return hashlib.sha256(f"{build_id}/1/{subnet_id}/{instance_type}".encode()).hexdigest()


class LaunchInstance(Step[Launched]):
    """Start the build's instance; adopts one that an earlier try launched."""

    name: ClassVar = StepName.LAUNCH_INSTANCE
    deadline: ClassVar = timedelta(minutes=20)
    output: ClassVar = Launched

    def act(self, build: BuildView, work: Workbench) -> Launched:
        # A death after RunInstances and before the id was stored left an instance with our tags.
        adopted = instances_of(work.cloud, build.id)
        found = adopted[0] if adopted else self._launch(build, work)
        return Launched(
            instance_id=found["InstanceId"],
            instance_type=found["InstanceType"],
            region=work.cloud.region,
            zone=found["Placement"]["AvailabilityZone"],
        )

    def _launch(self, build: BuildView, work: Workbench) -> "InstanceTypeDef":
        settings = work.settings
        image, network = output_of(build, FindImage), output_of(build, FindNetwork)
        tags: list[TagTypeDef] = [
            {"Key": "Name", "Value": f"{MANAGED_BY} {build.prefix}"},
            {"Key": "managed-by", "Value": MANAGED_BY},
            {"Key": "build-id", "Value": str(build.id)},
            {"Key": "prefix", "Value": build.prefix},
        ]
        with translated():
            answer = work.cloud.ec2_launch.run_instances(
                # Tags are seen late now and then: the token keeps a second try from a second instance.
                ClientToken=launch_token(build.id, network.subnet_id, settings.instance_type),
                ImageId=image.image_id,
                InstanceType=settings.instance_type,  # type: ignore[arg-type]
                KeyName=settings.key_name,
                MinCount=1,
                MaxCount=1,
                SubnetId=network.subnet_id,
                SecurityGroupIds=[network.security_group_id],
                InstanceInitiatedShutdownBehavior="terminate",
                UserData=_USER_DATA.format(minutes=int(settings.instance_lifetime.total_seconds() // 60)),
                TagSpecifications=[
                    {"ResourceType": "instance", "Tags": tags},
                    {"ResourceType": "volume", "Tags": tags},
                ],
                MetadataOptions={"HttpTokens": "required"},
            )
        return answer["Instances"][0]


class AwaitAddress(Step[Address]):
    name: ClassVar = StepName.AWAIT_ADDRESS
    deadline: ClassVar = timedelta(minutes=10)
    output: ClassVar = Address

    def act(self, build: BuildView, work: Workbench) -> Address:
        instance_id = output_of(build, LaunchInstance).instance_id
        while True:
            found = describe(work.cloud, instance_id)
            # EC2 is eventually consistent: an instance that it just launched may be unknown for a while.
            if found is not None:
                if found["State"]["Name"] not in ("pending", "running"):
                    require_alive(work.cloud, instance_id)
                private = work.settings.instance_address == "private"
                address = found.get("PrivateIpAddress") if private else found.get("PublicIpAddress")
                if address and found["State"]["Name"] == "running":
                    return Address(address=address)
            work.sleep(_POLL_S / 4)


class AwaitReady(Step[Ready]):
    """EC2's own checks of the machine; whether it lets us in is the next steps' matter."""

    name: ClassVar = StepName.AWAIT_READY
    deadline: ClassVar = timedelta(minutes=20)
    output: ClassVar = Ready

    def act(self, build: BuildView, work: Workbench) -> Ready:
        instance_id = output_of(build, LaunchInstance).instance_id
        while True:
            with translated():
                statuses = work.cloud.ec2.describe_instance_status(InstanceIds=[instance_id])[
                    "InstanceStatuses"
                ]
            checks = [
                (status["SystemStatus"]["Status"], status["InstanceStatus"]["Status"]) for status in statuses
            ]
            if checks == [("ok", "ok")]:
                return Ready(checks="system ok, instance ok")
            if ("impaired", "impaired") in checks:
                message = f"EC2 finds the instance {instance_id} impaired. Post the build again."
                raise StepFailed(FailureCode.INSTANCE_IMPAIRED, message)
            require_alive(work.cloud, instance_id)
            work.sleep(_POLL_S)


class TerminateInstance(Step[Terminated]):
    """Always runs. Ends every instance that carries the build's tag, known to us or not."""

    name: ClassVar = StepName.TERMINATE_INSTANCE
    # A machine that may still cost money is never given up on.
    deadline: ClassVar = None
    patience: ClassVar = Patience.ANY_ANSWER_OF_AWS
    output: ClassVar = Terminated

    def act(self, build: BuildView, work: Workbench) -> Terminated:
        work.drop_remote()
        ended: set[str] = set()
        known = build.outputs.get(StepName.LAUNCH_INSTANCE)
        if known is not None:
            ended.add(Launched.model_validate(known).instance_id)
        while True:
            alive = {found["InstanceId"] for found in instances_of(work.cloud, build.id)}
            alive |= {one for one in ended if _is_alive(work.cloud, one)}
            if not alive:
                return Terminated(instance_ids=tuple(sorted(ended)))
            ended |= alive
            terminate(work.cloud, sorted(alive))
            if all(not _is_alive(work.cloud, one) for one in alive):
                continue
            work.sleep(_POLL_S)


def _is_alive(cloud: Cloud, instance_id: str) -> bool:
    found = describe(cloud, instance_id)
    return found is not None and found["State"]["Name"] in ALIVE
