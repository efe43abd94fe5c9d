"""Which machine image the instance is made from."""

from datetime import timedelta
from typing import ClassVar

from app.aws import translated
from app.registry import inputs
from app.registry.builds.steps import BuildView
from app.registry.inputs import InputRecord
from app.words import FailureCode, InputKind, StepName
from worker.errors import StepFailed
from worker.steps.step import Output, Step
from worker.workbench import Workbench


class Image(Output):
    image_id: str
    name: str
    created: str


class FindImage(Step[Image]):
    """The newest available image whose name matches."""

    name: ClassVar = StepName.FIND_IMAGE
    deadline: ClassVar = timedelta(minutes=10)
    output: ClassVar = Image

    def act(self, build: BuildView, work: Workbench) -> Image:
        settings = work.settings
        pattern, owners = settings.image_name_pattern, list(settings.image_owners)
        with translated():
            pages = work.clouds.home.ec2.get_paginator("describe_images").paginate(
                Owners=owners,
                Filters=[{"Name": "name", "Values": [pattern]}, {"Name": "state", "Values": ["available"]}],
            )
            found = [image for page in pages for image in page["Images"]]
        if not found:
            message = (
                f"There is no available machine image named {pattern!r} of owner {', '.join(owners)} "
                f"in {work.clouds.home.region}. Make one with Packer (.packer/)."
            )
            raise StepFailed(FailureCode.NO_IMAGE, message)
        # The id breaks ties, because dates have a resolution of one second.
        newest = max(found, key=lambda image: (image["CreationDate"], image["ImageId"]))
        image = Image(image_id=newest["ImageId"], name=newest["Name"], created=newest["CreationDate"])
        origin = f"aws:{work.clouds.home.region}:{image.image_id}"
        with work.transaction() as session:
            inputs.record(
                session, build.lease, [InputRecord(InputKind.MACHINE_IMAGE, image.name, origin=origin)]
            )
        return image
