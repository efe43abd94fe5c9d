"""Which machine image the instance is made from."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, ClassVar

from semver import Version

from app.aws import translated
from app.failures import FailureCode
from app.registry import inputs
from app.registry.builds.steps import BuildView
from app.registry.images import origin_of, version_in
from app.registry.inputs import InputRecord
from app.words import InputKind, StepName
from worker.clouds import Cloud
from worker.ec2 import images_named
from worker.errors import StepFailed
from worker.steps.step import Output, Step
from worker.workbench import Workbench

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import ImageTypeDef

# The tags by which .packer/ says what an image was made from. A copy in another account lacks them.
_BASE = {"source-image": "base_image_id", "source-image-name": "base_image_name"}


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
    output: ClassVar[type[Image]] = Image

    def act(self, build: BuildView, work: Workbench) -> Image:
        found = self.newest(work, work.settings.instance_type)
        with work.transaction() as session:
            inputs.record(session, build.lease, [self.record_of(work.clouds.home, found)])
        return Image(image_id=found["ImageId"], name=found["Name"], created=found["CreationDate"])

    def newest(self, work: Workbench, instance_type: str) -> "ImageTypeDef":
        """The image that a build uses if nothing else is said. Raises StepFailed, CloudError."""
        settings, cloud = work.settings, work.clouds.home
        pattern, owners = settings.image_name_pattern, list(settings.image_owners)
        choice = choose(images_named(cloud, pattern, owners), pattern, _architectures(cloud, instance_type))
        if choice.image is None:
            code = FailureCode.NO_IMAGE
            others = "".join(f" Passed over: {one}." for one in choice.passed_over[:10])
            message = (
                f"There is no machine image named {pattern!r} of owner {', '.join(owners)} in {cloud.region} "
                f"that can be used.{others} {code.advice}"
            )
            raise StepFailed(code, message)
        for one in choice.passed_over[:10]:
            work.log(f"passed over: {one}")
        return choice.image

    def record_of(self, cloud: Cloud, image: "ImageTypeDef") -> InputRecord:
        """The image as an input of a build."""
        image_id = image["ImageId"]
        tags = {tag["Key"]: tag["Value"] for tag in image.get("Tags", [])}
        based_on = {name: tags[tag] for tag, name in _BASE.items() if tag in tags}
        details = {"region": cloud.region, "image_id": image_id, "created": image["CreationDate"], **based_on}
        origin = origin_of(cloud.region, image_id)
        return InputRecord(InputKind.MACHINE_IMAGE, image["Name"], origin=origin, details=details)


def choose(images: "Iterable[ImageTypeDef]", pattern: str, architectures: frozenset[str]) -> Choice:
    """The image of the highest version that is available and of one of the architectures.

    Where the pattern ends in `*`, the rest of the name must be a semantic version: a copy that is named
    "... 1.2.0 backup" is not a release. Pre-releases come after every release. Of the images of a pattern
    that ends in anything else, the newest wins.
    """
    usable: list[tuple[bool, Version, str, str, ImageTypeDef]] = []
    passed_over = []
    for image in images:
        version = version_in(image["Name"], pattern)
        if image.get("State") != "available":
            passed_over.append(f"{image['Name']!r} is {image.get('State')}")
        elif image.get("Architecture") not in architectures:
            passed_over.append(f"{image['Name']!r} is for {image.get('Architecture')}")
        elif version is None:
            passed_over.append(f"{image['Name']!r} does not end in a semantic version")
        else:
            # The id breaks a tie: dates have a resolution of one second.
            released = version.prerelease is None
            usable.append((released, version, image["CreationDate"], image["ImageId"], image))
    best = max(usable, key=lambda one: one[:4], default=None)
    return Choice(None if best is None else best[4], tuple(passed_over))


def _architectures(cloud: Cloud, instance_type: str) -> frozenset[str]:
    """What the instance type can run. Raises CloudError."""
    with translated():
        types = cloud.ec2.describe_instance_types(
            InstanceTypes=[instance_type]  # type: ignore[list-item]
        )["InstanceTypes"]
    found = {name for one in types for name in one.get("ProcessorInfo", {}).get("SupportedArchitectures", [])}
    return frozenset(found) or frozenset({"x86_64"})
