"""Launches the build's EC2 instance, waits for it, and always terminates it."""

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, ClassVar

from sqlalchemy.orm import Session

from app.aws import CloudError, CloudNotFound, CloudUnavailable, translated
from app.failures import FailureCode
from app.registry import inputs, launches
from app.registry.builds.lease import Lease
from app.registry.builds.steps import BuildView
from app.registry.inputs import INSTANCE_TYPE, InputRecord
from app.registry.launches import Place, TooManyLaunches
from app.words import InputKind, StepName
from worker import ec2
from worker.clouds import Cloud
from worker.errors import StepFailed
from worker.machine.hostkey import HostKey, derive
from worker.retry import Patience
from worker.steps.image import FindImage
from worker.steps.launch_key import launch_key
from worker.steps.network import FindNetwork
from worker.steps.pins import pins_of
from worker.steps.step import Output, Step, output_of
from worker.workbench import Workbench

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import InstanceTypeDef, TagTypeDef

# EC2 is eventually consistent and may not know an existing instance yet. After this long, it counts as gone.
_UNKNOWN_S = 60.0
_POLL_S = 2.0
_FIRST_POLL_S = 0.1

# A dead-man's switch: even if the registry is gone, the machine shuts down, and a shutdown terminates it. It
# is set to the same moment at every boot, so a reboot neither removes it nor gives the machine more time.
# So early in the boot, the service that schedules shutdowns may not run yet. The request is then repeated.
_SWITCH = """\
set_switch() {{ left=$(( ({ends_at} - $(date +%s)) / 60 )); shutdown -h +$(( left > 0 ? left : 0 )); }}
set_switch || {{ until sleep 5; set_switch; do :; done & }}"""


def user_data(host_key: HostKey, ends_at: int) -> str:
    """Has cloud-init install the host key and shut the machine down at `ends_at` (seconds since 1970)."""
    config = {
        "ssh_keys": {"ed25519_private": host_key.private, "ed25519_public": host_key.public},
        "bootcmd": [["sh", "-c", _SWITCH.format(ends_at=ends_at)]],
    }
    # cloud-init reads YAML, and JSON is valid YAML.
    return f"#cloud-config\n{json.dumps(config, sort_keys=True)}\n"


class Launched(Output):
    """`launch_id` and `host_key` are None for an instance that the release before launched.

    `host_key` has the form `type base64`. The instance must show it at every connection.
    """

    instance_id: str
    instance_type: str
    region: str
    zone: str
    launch_id: int | None = None
    host_key: str | None = None


class Address(Output):
    address: str


class Ready(Output):
    """`checks` is the result of EC2's own checks of the machine."""

    checks: str


class Terminated(Output):
    """The instances that were terminated; there are none if the build never got one."""

    instance_ids: tuple[str, ...]


def cloud_of(build: BuildView, work: Workbench) -> Cloud:
    """The region that the build's instance runs in."""
    return work.clouds.region(output_of(build, LaunchInstance).region)


def require_alive(work: Workbench, cloud: Cloud, instance_id: str) -> "InstanceTypeDef":
    """The instance as EC2 describes it. Raises StepFailed when the instance has ended without our doing.

    An instance that EC2 does not know is asked for again for a while before it counts as gone.
    """
    asked_s = 0.0
    while (found := ec2.describe(cloud, instance_id)) is None and asked_s < _UNKNOWN_S:
        work.sleep(_POLL_S)
        asked_s += _POLL_S
    state = found["State"]["Name"] if found is not None else "gone"
    if found is None or state not in ("pending", "running"):
        reason = (found or {}).get("StateTransitionReason") or "EC2 gives no reason"
        message = f"The instance {instance_id} is {state} ({reason})."
        raise StepFailed(FailureCode.INSTANCE_LOST, message)
    return found


def _waits_s() -> Iterator[float]:
    """Seconds to wait before each next question: few at first, then more, because EC2 limits its calls."""
    wait_s = _FIRST_POLL_S
    while True:
        yield wait_s
        wait_s = min(2 * wait_s, _POLL_S)


class LaunchInstance(Step[Launched]):
    """Start the build's instance, or adopt one that an earlier try launched."""

    name: ClassVar = StepName.LAUNCH_INSTANCE
    deadline: ClassVar = timedelta(minutes=20)
    output: ClassVar = Launched

    def act(self, build: BuildView, work: Workbench) -> Launched:
        cloud, network = work.clouds.home, output_of(build, FindNetwork)
        place = Place(cloud.region, network.zone, network.subnet_id)
        try:
            with work.transaction() as session:
                request = launches.request(session, build.lease, place, _instance_type(build, work))
        except TooManyLaunches as exc:
            code = FailureCode.TOO_MANY_LAUNCHES
            raise StepFailed(code, f"The {exc}, and lost each of them. {code.advice}") from exc
        host_key = derive(launch_key(work, cloud).pem, request.client_token)
        # If a worker died after RunInstances and before it stored the id, an instance with our tags exists.
        adopted = ec2.instances_of(cloud, build.id)
        found = adopted[0] if adopted else self._launch(build, work, cloud, request, host_key)
        ours = found.get("ClientToken") == request.client_token
        return Launched(
            instance_id=found["InstanceId"],
            instance_type=found["InstanceType"],
            region=cloud.region,
            zone=found["Placement"]["AvailabilityZone"],
            launch_id=request.id,
            host_key=host_key.public if ours else None,
        )

    def apply(self, session: Session, lease: Lease, output: Launched) -> None:
        if output.launch_id is not None:
            launches.launched(session, lease, output.launch_id, output.instance_id)
        machine = InputRecord(
            InputKind.HARDWARE,
            INSTANCE_TYPE,
            origin=f"aws:{output.region}:{output.instance_type}",
            details={"instance_type": output.instance_type, "region": output.region},
        )
        inputs.record(session, lease, [machine])
        super().apply(session, lease, output)

    def _launch(
        self,
        build: BuildView,
        work: Workbench,
        cloud: Cloud,
        request: launches.Request,
        host_key: HostKey,
    ) -> "InstanceTypeDef":
        try:
            return self._run_instances(build, work, cloud, request, host_key)
        except CloudUnavailable:
            # It is not known whether EC2 has launched the instance, so the same request is sent again.
            raise
        except CloudError as exc:
            with work.transaction() as session:
                launches.refused(session, build.lease, request.id, exc.code, exc.message)
            raise

    def _run_instances(
        self,
        build: BuildView,
        work: Workbench,
        cloud: Cloud,
        request: launches.Request,
        host_key: HostKey,
    ) -> "InstanceTypeDef":
        settings = work.settings
        image, network = output_of(build, FindImage), output_of(build, FindNetwork)
        # Computed from the record of the launch, so that a repeated request is exactly the same.
        ends_at = int((request.requested_at + settings.instance_lifetime).timestamp())
        tags: list[TagTypeDef] = [
            {"Key": "Name", "Value": f"{ec2.MANAGED_BY} {build.prefix}"},
            {"Key": "managed-by", "Value": ec2.MANAGED_BY},
            {"Key": "build-id", "Value": str(build.id)},
            {"Key": "prefix", "Value": build.prefix},
        ]
        with translated():
            answer = cloud.ec2_launch.run_instances(
                # Tags may become visible late. The token keeps a second try from making a second instance.
                ClientToken=request.client_token,
                ImageId=image.image_id,
                InstanceType=_instance_type(build, work),  # type: ignore[arg-type]
                KeyName=settings.key_name,
                MinCount=1,
                MaxCount=1,
                SubnetId=network.subnet_id,
                SecurityGroupIds=[network.security_group_id],
                InstanceInitiatedShutdownBehavior="terminate",
                UserData=user_data(host_key, ends_at),
                TagSpecifications=[
                    {"ResourceType": "instance", "Tags": tags},
                    {"ResourceType": "volume", "Tags": tags},
                ],
                MetadataOptions={"HttpTokens": "required"},
            )
        return answer["Instances"][0]


def _instance_type(build: BuildView, work: Workbench) -> str:
    pins = pins_of(build)
    return pins.instance_type if pins is not None and pins.instance_type else work.settings.instance_type


class AwaitAddress(Step[Address]):
    name: ClassVar = StepName.AWAIT_ADDRESS
    deadline: ClassVar = timedelta(minutes=10)
    output: ClassVar = Address

    def act(self, build: BuildView, work: Workbench) -> Address:
        cloud, instance_id = cloud_of(build, work), output_of(build, LaunchInstance).instance_id
        private = work.settings.instance_address == "private"
        waits_s = _waits_s()
        while True:
            found = require_alive(work, cloud, instance_id)
            if found["State"]["Name"] == "running":
                address = found.get("PrivateIpAddress") if private else found.get("PublicIpAddress")
                if address:
                    return Address(address=address)
            work.sleep(next(waits_s))


class AwaitReady(Step[Ready]):
    """Wait for EC2's own checks of the machine. Later steps check whether the worker can log in."""

    name: ClassVar = StepName.AWAIT_READY
    deadline: ClassVar = timedelta(minutes=20)
    output: ClassVar = Ready

    def act(self, build: BuildView, work: Workbench) -> Ready:
        cloud, instance_id = cloud_of(build, work), output_of(build, LaunchInstance).instance_id
        waits_s = _waits_s()
        while True:
            checks = _checks(cloud, instance_id)
            if checks == [("ok", "ok")]:
                return Ready(checks="system ok, instance ok")
            if ("impaired", "impaired") in checks:
                code = FailureCode.INSTANCE_IMPAIRED
                raise StepFailed(code, f"EC2 finds the instance {instance_id} impaired. {code.advice}")
            require_alive(work, cloud, instance_id)
            work.sleep(next(waits_s))


def _checks(cloud: Cloud, instance_id: str) -> list[tuple[str, str]]:
    """EC2's checks of system and instance. The list is empty while EC2 does not know the instance."""
    try:
        with translated():
            answer = cloud.ec2.describe_instance_status(InstanceIds=[instance_id])
    except CloudNotFound:
        return []
    return [
        (status["SystemStatus"]["Status"], status["InstanceStatus"]["Status"])
        for status in answer["InstanceStatuses"]
    ]


class TerminateInstance(Step[Terminated]):
    """Terminate every instance that carries the build's tag, even one that was not recorded. Always runs."""

    name: ClassVar = StepName.TERMINATE_INSTANCE
    # There is no deadline, because a machine that may still cost money must be terminated.
    deadline: ClassVar = None
    patience: ClassVar = Patience.FROM_THE_TRAINING_ON
    output: ClassVar = Terminated

    def act(self, build: BuildView, work: Workbench) -> Terminated:
        work.drop_remote()
        known: dict[str, set[str]] = {work.clouds.home.region: set()}
        stored = build.outputs.get(StepName.LAUNCH_INSTANCE)
        if stored is not None:
            launched = Launched.model_validate(stored)
            known.setdefault(launched.region, set()).add(launched.instance_id)
        with work.transaction() as session:
            for region in launches.regions(session):
                known.setdefault(region, set())
        ended = [
            instance_id
            for region, instance_ids in known.items()
            for instance_id in self._end(build, work, work.clouds.region(region), instance_ids)
        ]
        return Terminated(instance_ids=tuple(sorted(ended)))

    def apply(self, session: Session, lease: Lease, output: Terminated) -> None:
        launches.ended(session, lease)
        super().apply(session, lease, output)

    def _end(self, build: BuildView, work: Workbench, cloud: Cloud, known: set[str]) -> set[str]:
        """Returns every instance of the build in the region, when none of them is alive any more."""
        ended = set(known)
        while True:
            alive = {found["InstanceId"] for found in ec2.instances_of(cloud, build.id)}
            alive |= {one for one in ended if ec2.is_alive(cloud, one)}
            if not alive:
                return ended
            ended |= alive
            ec2.terminate(cloud, sorted(alive))
            if any(ec2.is_alive(cloud, one) for one in alive):
                work.sleep(_POLL_S)
