"""Which machine image the instance is made from."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, ClassVar

from semver import Version

from app.aws import translated
from app.registry import inputs
from app.registry.builds.steps import BuildView
from app.registry.inputs import InputRecord
from app.words import FailureCode, InputKind, StepName
from worker.clouds import Cloud
from worker.errors import StepFailed
from worker.steps.step import Output, Step
from worker.workbench import Workbench

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import ImageTypeDef


class Image(Output):
    image_id: str
    name: str
    created: str


@dataclass(frozen=True)
class Choice:
    """The image to use, if there is one, and why others were passed over."""

    image: "ImageTypeDef | None"
    passed_over: tuple[str, ...]


class FindImage(Step[Image]):
    """The available image of the highest version whose name and architecture fit."""

    name: ClassVar = StepName.FIND_IMAGE
    deadline: ClassVar = timedelta(minutes=10)
    output: ClassVar = Image

    def act(self, build: BuildView, work: Workbench) -> Image:
        settings, cloud = work.settings, work.clouds.home
        pattern, owners = settings.image_name_pattern, list(settings.image_owners)
        with translated():
            pages = cloud.ec2.get_paginator("describe_images").paginate(
                Owners=owners, Filters=[{"Name": "name", "Values": [pattern]}]
            )
            found = [image for page in pages for image in page["Images"]]
        choice = choose(found, pattern, _architectures(cloud, settings.instance_type))
        if choice.image is None:
            code = FailureCode.NO_IMAGE
            others = "".join(f" Passed over: {one}." for one in choice.passed_over[:10])
            message = (
                f"There is no machine image named {pattern!r} of owner {', '.join(owners)} in {cloud.region} "
                f"that can be used.{others} {code.advice}"
            )
            raise StepFailed(code, message)
        image = Image(
            image_id=choice.image["ImageId"],
            name=choice.image["Name"],
            created=choice.image["CreationDate"],
        )
        origin = f"aws:{cloud.region}:{image.image_id}"
        used = InputRecord(InputKind.MACHINE_IMAGE, image.name, origin=origin)
        with work.transaction() as session:
            inputs.record(session, build.lease, [used])
        return image


def choose(images: "Iterable[ImageTypeDef]", pattern: str, architectures: frozenset[str]) -> Choice:
    """The image of the highest version that is available and of one of the architectures.

    Where the pattern ends in its only `*`, the rest of the name must be a semantic version: a copy that is
    named "... 1.2.0 backup" is not a release. Of the images of any other pattern, the newest wins.
    """
    versioned = pattern.endswith("*") and not any(wild in pattern[:-1] for wild in "*?")
    usable: list[tuple[Version, str, str, ImageTypeDef]] = []
    passed_over = []
    for image in images:
        text = image["Name"].removeprefix(pattern[:-1]) if versioned else "0.0.0"
        if image.get("State") != "available":
            passed_over.append(f"{image['Name']!r} is {image.get('State')}")
        elif image.get("Architecture") not in architectures:
            passed_over.append(f"{image['Name']!r} is for {image.get('Architecture')}")
        elif not Version.is_valid(text):
            passed_over.append(f"{image['Name']!r} does not end in a semantic version")
        else:
            # The id breaks a tie: dates have a resolution of one second.
            usable.append((Version.parse(text), image["CreationDate"], image["ImageId"], image))
    best = max(usable, key=lambda one: one[:3], default=None)
    return Choice(None if best is None else best[3], tuple(passed_over))


def _architectures(cloud: Cloud, instance_type: str) -> frozenset[str]:
    """What the instance type can run. Raises CloudError."""
    with translated():
        types = cloud.ec2.describe_instance_types(
            InstanceTypes=[instance_type]  # type: ignore[list-item]
        )["InstanceTypes"]
    return frozenset(
        name for found in types for name in found.get("ProcessorInfo", {}).get("SupportedArchitectures", [])
    )
