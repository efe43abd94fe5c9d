"""Deletes what builds that failed or were cancelled have left under their prefix, after the retry window.

A build removes its files itself when its model will not exist. This is for what it could not remove, such as
while S3 was down. It does not belong to a model, so the policy does not concern it.
"""

from collections.abc import Callable, Iterator
from datetime import timedelta

from sqlalchemy.orm import Session

from app.db.session import Database
from app.registry import clearing
from app.storage import keys
from app.storage.bucket import Bucket
from app.storage.deleting import ObjectVersion
from worker.clearing import clear
from worker.unpublished import Left


def sweep(database: Database, bucket: Bucket, window: timedelta, check: Callable[[Session], object]) -> Left:
    """Delete the files. Returns what they were.

    `check` is called before each request that deletes, and ends the sweep by what it raises.
    Raises CloudError.
    """
    left = Left()
    for prefix, sizes in _found(database, bucket, window):
        gone: list[ObjectVersion] = []
        doomed = [ObjectVersion(key) for key in sizes]
        clear(database, bucket, prefix, doomed, window, check=check, deleted=gone.extend)
        left += Left(len(gone), sum(sizes[one.key] for one in gone))
    return left


def count(database: Database, bucket: Bucket, window: timedelta) -> Left:
    """What `sweep` would delete now. Raises CloudError."""
    return sum(
        (Left(len(sizes), sum(sizes.values())) for _, sizes in _found(database, bucket, window)), Left()
    )


def _found(database: Database, bucket: Bucket, window: timedelta) -> Iterator[tuple[str, dict[str, int]]]:
    """The prefixes, each with the keys and sizes of the objects that carry the id of such a build."""
    with database.transaction() as session:
        builds = clearing.left_by_builds(session, window)
    for prefix, owners in builds.items():
        heads = [bucket.head(key) for key, _ in list(bucket.list(keys.folder(prefix)))]
        sizes = {one.key: one.size_bytes for one in heads if one is not None and one.build_id in owners}
        if sizes:
            yield prefix, sizes
