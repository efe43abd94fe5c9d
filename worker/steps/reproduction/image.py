"""Before anything costs money: everything that the model was made from can be had as it was recorded."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from app.aws import CloudError, CloudNotFound, translated
from app.failures import FailureCode
from app.registry import inputs
from app.registry.builds.steps import BuildView
from app.registry.inputs import InputRecord
from app.registry.reproductions import recorded
from app.registry.reproductions.outcomes import NotPinned, Wanted
from app.registry.reproductions.recorded import Recorded, RecordedImage
from app.registry.reproductions.requests import not_accepted
from app.storage import keys
from app.words import Pinned
from worker.clouds import Cloud
from worker.errors import StepFailed
from worker.machine.git import LocalGit
from worker.steps.commit import found_commit
from worker.steps.image import FindImage, Image
from worker.steps.needed import KeptFile
from worker.steps.pins import PinnedCode, Pins
from worker.steps.preflight import whole_zip
from worker.workbench import Workbench

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import ImageTypeDef

# The inputs of the bucket's root, by the words by which they can be accepted as they are now.
_ROOT = {Pinned.RAW_DATA: keys.RAW_SOURCE_DATA, Pinned.BENCHMARK_DATA: keys.BENCHMARKING_DATA}


class PinnedImage(Image):
    """The recorded image, or the one that a build would use now where that was accepted."""

    pins: Pins


class FindRecordedImage(FindImage):
    """The recorded image, and whether every other recorded input is still there.

    Whatever is gone is named at once. If it was accepted, what a build would use now takes its place.
    """

    output: ClassVar[type[Image]] = PinnedImage

    def act(self, build: BuildView, work: Workbench) -> PinnedImage:
        if build.reproduces is None:
            message = f"the build {build.id} does not say which model it reproduces"
            raise AssertionError(message)
        cloud = work.clouds.home
        with work.transaction() as session:
            known = recorded.of_model(session, build.reproduces)
        lost = recorded.lost(known, work.clouds.bucket)
        found, why = _recorded_image(cloud, known.image)
        if why is not None:
            lost.append(NotPinned(what=Pinned.MACHINE_IMAGE, name=_name(known.image), reason=why))
        if known.instance_type is not None and not _is_offered(cloud, known.instance_type):
            reason = f"EC2 does not offer it in {cloud.region}"
            lost.append(NotPinned(what=Pinned.INSTANCE_TYPE, name=known.instance_type, reason=reason))
        accept = Wanted.of(build.reproduction_wanted).accept
        if refused := not_accepted(lost, accept):
            raise _refusal(refused)
        for one in lost:
            work.note(f"This cannot be had as it was recorded, which was accepted: {one}.")
        pins = _pins(known, lost)
        _check_instead(build, work, lost)
        instance_type = pins.instance_type or work.settings.instance_type
        image = self.newest(work, instance_type) if found is None else found
        used = self.record_of(cloud, image)
        if found is not None and known.image is not None:
            # To the letter, so that a comparison finds no difference.
            used = known.image.used
        with work.transaction() as session:
            inputs.record(session, build.lease, [used])
        return PinnedImage(
            image_id=image["ImageId"], name=image["Name"], created=image["CreationDate"], pins=pins
        )


def _name(image: RecordedImage | None) -> str:
    return Pinned.MACHINE_IMAGE if image is None else image.used.name


def _recorded_image(cloud: Cloud, image: RecordedImage | None) -> tuple["ImageTypeDef | None", str | None]:
    """The image, or why it cannot be used. Neither where none was recorded. Raises CloudError."""
    if image is None:
        return None, None
    if image.region != cloud.region:
        return None, f"it is in {image.region}, and instances are launched in {cloud.region}"
    try:
        with translated():
            images = cloud.ec2.describe_images(ImageIds=[image.image_id])["Images"]
    except CloudNotFound:
        images = []
    if not images:
        return None, f"EC2 has no image {image.image_id} any more"
    if images[0].get("State") != "available":
        return None, f"the image {image.image_id} is {images[0].get('State')}"
    return images[0], None


def _is_offered(cloud: Cloud, instance_type: str) -> bool:
    """Raises CloudError."""
    try:
        with translated():
            found = cloud.ec2.describe_instance_types(
                InstanceTypes=[instance_type]  # type: ignore[list-item]
            )["InstanceTypes"]
    except CloudError as exc:
        if exc.code != "InvalidInstanceType":
            raise
        found = []
    return bool(found)


def _refusal(refused: Sequence[NotPinned]) -> StepFailed:
    code = FailureCode.NOT_REPRODUCIBLE
    named = "; ".join(map(str, refused))
    return StepFailed(code, f"Not everything that the model was made from can be had: {named}. {code.advice}")


def _pins(known: Recorded, lost: Sequence[NotPinned]) -> Pins:
    """What is used as it was recorded: everything but what is lost."""
    gone = {(one.what, one.name) for one in lost}
    kinds = {one.what for one in lost}

    def kept(kind: Pinned, name: str) -> KeptFile | None:
        used = known.input(kind, name)
        return None if used is None or (kind, name) in gone else _kept(used)

    snapshots = [
        (known.snapshot_files[used.name], _kept(used))
        for used in known.snapshots
        if (Pinned.ADDITIONAL_SOURCE, used.name) not in gone
    ]
    archives = {name: kept(kind, name) for kind, name in _ROOT.items()}
    pack, commit = kept(Pinned.CODE, keys.CODE_PACK), known.commit
    return Pins(
        code=None
        if pack is None or commit is None
        else PinnedCode(commit=commit.sha, origin=commit.origin, pack=pack),
        instance_type=None if Pinned.INSTANCE_TYPE in kinds else known.instance_type,
        inputs={name: file for name, file in archives.items() if file is not None},
        snapshots={file: kept for file, kept in snapshots if kept is not None},
        not_pinned=tuple(lost),
    )


def _kept(used: InputRecord) -> KeptFile | None:
    if used.sha256 is None or used.size_bytes is None:
        return None
    return KeptFile(key=keys.input_key(used.sha256), sha256=used.sha256, size_bytes=used.size_bytes)


def _check_instead(build: BuildView, work: Workbench, lost: Sequence[NotPinned]) -> None:
    """Whether what is used instead can be used. Raises StepFailed, CloudError."""
    for one in lost:
        if one.what == Pinned.CODE and work.settings.code_repository is not None:
            found_commit(LocalGit(Path(work.settings.code_repository)), build.sha)
        if one.what in list(_ROOT):
            whole_zip(work.clouds.bucket, one.name)
