"""Finds EC2 instances by tag, describes them and terminates them."""

from typing import TYPE_CHECKING
from uuid import UUID

from app.aws import CloudNotFound, translated
from app.words import FailureCode
from worker.clouds import Cloud
from worker.errors import StepFailed
from worker.workbench import Workbench

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import FilterTypeDef, InstanceTypeDef

MANAGED_BY = "tariff-model-registry"

ALIVE = ("pending", "running", "stopping", "stopped")
# EC2 is eventually consistent and may not know an existing instance yet. After this long, it counts as gone.
_UNKNOWN_S = 60.0
_POLL_S = 2.0


def managed_instances(cloud: Cloud, *filters: "FilterTypeDef") -> list["InstanceTypeDef"]:
    """Every instance that carries our tag and is not terminated. Raises CloudError."""
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
    """Tell EC2 to terminate them. An instance that it no longer knows has ended. Raises CloudError."""
    for instance_id in instance_ids:
        try:
            with translated():
                cloud.ec2.terminate_instances(InstanceIds=[instance_id])
        except CloudNotFound:
            continue


def describe(cloud: Cloud, instance_id: str) -> "InstanceTypeDef | None":
    """None when EC2 does not know it, not yet or no longer. Raises CloudError."""
    try:
        with translated():
            reservations = cloud.ec2.describe_instances(InstanceIds=[instance_id])["Reservations"]
    except CloudNotFound:
        return None
    return next((found for of in reservations for found in of["Instances"]), None)


def is_alive(cloud: Cloud, instance_id: str) -> bool:
    found = describe(cloud, instance_id)
    return found is not None and found["State"]["Name"] in ALIVE


def require_alive(work: Workbench, cloud: Cloud, instance_id: str) -> None:
    """Raises StepFailed when the instance has ended without our doing.

    An instance that EC2 does not know is asked for again for a while before it counts as gone.
    """
    asked_s = 0.0
    while (found := describe(cloud, instance_id)) is None and asked_s < _UNKNOWN_S:
        work.sleep(_POLL_S)
        asked_s += _POLL_S
    state = found["State"]["Name"] if found is not None else "gone"
    if state not in ("pending", "running"):
        reason = (found or {}).get("StateTransitionReason") or "EC2 gives no reason"
        message = f"The instance {instance_id} is {state} ({reason}). Post the build again."
        raise StepFailed(FailureCode.INSTANCE_LOST, message)
