"""Finds EC2 instances by tag, describes them and terminates them."""

from collections.abc import Iterable
from typing import TYPE_CHECKING
from uuid import UUID

from app.aws import CloudNotFound, translated
from worker.clouds import Cloud

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import FilterTypeDef, ImageTypeDef, InstanceTypeDef

MANAGED_BY = "tariff-model-registry"

ALIVE = ("pending", "running", "stopping", "stopped")


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


def images_named(cloud: Cloud, pattern: str, owners: Iterable[str]) -> list["ImageTypeDef"]:
    """The machine images of these owners whose names match. Raises CloudError."""
    with translated():
        pages = cloud.ec2.get_paginator("describe_images").paginate(
            Owners=list(owners), Filters=[{"Name": "name", "Values": [pattern]}]
        )
        return [image for page in pages for image in page["Images"]]
