"""Deletes machine images that nothing needs any more, with their snapshots."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from semver import Version

from app.aws import CloudError, CloudNotFound, translated
from app.registry import images
from app.registry.images import ListedImage, origin_of
from app.registry.runs import lifecycle
from worker.clouds import Cloud
from worker.ec2 import MANAGED_BY
from worker.images import listed, regions_in_use
from worker.runs.work import RunWork

# A younger image may be about to be used for the first time.
_YOUNGEST = timedelta(days=1)

_NEEDED = "a model or a build that is not over was made on it"


@dataclass
class Cleaning:
    """What a run has found and done."""

    kept: list[dict[str, str]] = field(default_factory=list)
    deleted: list[dict[str, str]] = field(default_factory=list)
    snapshots: int = 0

    def to_json(self, *, dry_run: bool) -> dict[str, Any]:
        return {
            "dry_run": dry_run,
            "kept": len(self.kept),
            "deleted": 0 if dry_run else len(self.deleted),
            "would_delete": len(self.deleted) if dry_run else 0,
            "snapshots": self.snapshots,
            "images_kept": self.kept[: lifecycle.LISTED],
            "images_deleted": self.deleted[: lifecycle.LISTED],
        }


def clean_images(work: RunWork) -> None:
    """Delete the images of every region that neither the newest versions nor a model need.

    Only images of this account that Packer has made for the registry, as their tag says. Options: `dry_run`
    only reports, and `keep_newest` is how many of the newest versions stay in each region.
    """
    dry_run, keep_newest = bool(work.options["dry_run"]), int(work.options["keep_newest"])
    cleaning = Cleaning()
    _finish_snapshots(work)
    for region in regions_in_use(work.database, work.clouds):
        cloud = work.clouds.region(region)
        ours = [
            image
            for image in listed(cloud, work.settings, owners=("self",))
            if image.tags.get("managed-by") == MANAGED_BY
        ]
        for image, why in _judged(work, region, ours, keep_newest):
            shown = {"region": region, "image": image.image_id, "name": image.name}
            if why is not None:
                cleaning.kept.append(shown | {"reason": why})
                continue
            if not dry_run and not _delete(work, cloud, image, cleaning):
                cleaning.kept.append(shown | {"reason": _NEEDED})
                continue
            cleaning.deleted.append(shown)
            cleaning.snapshots += len(image.snapshots)
            _save(work, cleaning, dry_run=dry_run)
    _save(work, cleaning, dry_run=dry_run)


def _save(work: RunWork, cleaning: Cleaning, *, dry_run: bool) -> None:
    progress = {"phase": "clean", "kept": len(cleaning.kept), "deleted": len(cleaning.deleted)}
    with work.transaction() as session:
        lifecycle.save(session, work.lease, {}, progress, cleaning.to_json(dry_run=dry_run))


def _judged(
    work: RunWork, region: str, ours: list[ListedImage], keep_newest: int
) -> Iterator[tuple[ListedImage, str | None]]:
    """Each image with the reason to keep it, or None."""
    origins = [origin_of(region, image.image_id) for image in ours]
    with work.transaction() as session:
        needed = images.needed(session, origins)
    # What cannot be compared by its version may be in use by other means.
    by_version = sorted(
        (image for image in ours if image.version is not None and image.state == "available"),
        key=lambda image: (Version.parse(image.version or ""), image.created_at, image.image_id),
        reverse=True,
    )
    newest = {image.image_id for image in by_version[:keep_newest]}
    for image, origin in zip(ours, origins, strict=True):
        if origin in needed:
            why = _NEEDED
        elif image.version is None:
            why = "its name does not end in a version"
        elif image.image_id in newest:
            why = f"it is one of the newest {keep_newest}"
        elif datetime.now(UTC) - image.created_at < _YOUNGEST:
            why = "it was made less than a day ago"
        elif image.state not in ("available", "failed", "error"):
            why = f"it is {image.state}"
        else:
            why = None
        yield image, why


def _delete(work: RunWork, cloud: Cloud, image: ListedImage, cleaning: Cleaning) -> bool:
    """Delete the image, then its snapshots, which AWS does not let go before. Returns whether it did.

    The snapshots are stored first: once the image is gone, nobody could tell whose they were.
    Raises CloudError.
    """
    work.check()
    pending = {"region": cloud.region, "image": image.image_id, "snapshots": list(image.snapshots)}
    with work.transaction() as session:
        # Again, because a model may have been restored, or a build begun, since the images were judged.
        if images.needed(session, [origin_of(cloud.region, image.image_id)]):
            return False
        result = cleaning.to_json(dry_run=False)
        lifecycle.save(session, work.lease, {"pending": pending}, {"phase": "delete"}, result)
    _delete_pending(cloud, image.image_id, image.snapshots)
    return True


def _finish_snapshots(work: RunWork) -> None:
    """Finish what a worker before had begun."""
    pending = work.checkpoint.get("pending")
    if pending is not None:
        _delete_pending(work.clouds.region(pending["region"]), pending["image"], tuple(pending["snapshots"]))


def _delete_pending(cloud: Cloud, image_id: str, snapshots: tuple[str, ...]) -> None:
    try:
        with translated():
            cloud.ec2.deregister_image(ImageId=image_id)
    except CloudError as exc:
        # An earlier try has done it.
        if not isinstance(exc, CloudNotFound) and exc.code != "InvalidAMIID.Unavailable":
            raise
    for snapshot in snapshots:
        try:
            with translated():
                cloud.ec2.delete_snapshot(SnapshotId=snapshot)
        except CloudNotFound:
            continue
