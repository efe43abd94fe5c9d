"""Keeps the registry's list of machine images like that of AWS."""

import logging
from datetime import datetime
from typing import TYPE_CHECKING

from app.aws import CloudError
from app.db.session import Database
from app.registry import images, launches
from app.registry.images import ListedImage, version_in
from app.settings import Settings
from worker.clouds import Cloud, Clouds
from worker.ec2 import images_named

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import ImageTypeDef

_log = logging.getLogger(__name__)


def list_images(database: Database, clouds: Clouds, settings: Settings) -> int:
    """List the images of every region in use. Returns how many there are.

    A region that cannot be listed keeps what is known of it, with the problem.
    """
    count = 0
    for region in regions_in_use(database, clouds):
        try:
            found = listed(clouds.region(region), settings)
        except CloudError as exc:
            _log.warning("region=%s its images could not be listed: %s", region, exc)
            with database.transaction() as session:
                images.note_problem(session, region, str(exc))
            continue
        with database.transaction() as session:
            images.record(session, region, found)
        count += len(found)
    return count


def regions_in_use(database: Database, clouds: Clouds) -> list[str]:
    with database.transaction() as session:
        return sorted({clouds.home.region, *launches.regions(session)})


def listed(cloud: Cloud, settings: Settings, owners: tuple[str, ...] | None = None) -> list[ListedImage]:
    """The images whose names match, of the configured owners unless others are given. Raises CloudError."""
    pattern = settings.image_name_pattern
    found = images_named(cloud, pattern, settings.image_owners if owners is None else owners)
    return [_image(image, pattern) for image in found]


def _image(image: "ImageTypeDef", pattern: str) -> ListedImage:
    version = version_in(image["Name"], pattern)
    blocks = (block.get("Ebs", {}).get("SnapshotId") for block in image.get("BlockDeviceMappings", ()))
    return ListedImage(
        image_id=image["ImageId"],
        name=image["Name"],
        version=None if version is None else str(version),
        state=image.get("State", "unknown"),
        architecture=image.get("Architecture", "unknown"),
        created_at=datetime.fromisoformat(image["CreationDate"]),
        snapshots=tuple(snapshot for snapshot in blocks if snapshot),
        tags={tag["Key"]: tag["Value"] for tag in image.get("Tags", ())},
    )
