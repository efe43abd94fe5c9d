"""Deletes what builds that failed or were cancelled have left under their prefix, after the retry window.

A build removes its files itself when its model will not exist. This is for what it could not remove, such as
while S3 was down. It does not belong to a model, so the policy does not concern it.
"""

from collections.abc import Callable, Collection, Iterator
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
    gone: list[ObjectVersion] = []
    for prefix, doomed in _found(database, bucket, window):
        clear(database, bucket, prefix, doomed, window, check=check, deleted=gone.extend)
    return Left.of(gone)


def count(database: Database, bucket: Bucket, window: timedelta) -> Left:
    """What `sweep` would delete now. Raises CloudError."""
    return Left.of([one for _, doomed in _found(database, bucket, window) for one in doomed])


def _found(
    database: Database, bucket: Bucket, window: timedelta
) -> Iterator[tuple[str, list[ObjectVersion]]]:
    """The prefixes, each with the objects that carry the id of such a build."""
    with database.transaction() as session:
        builds = clearing.left_by_builds(session, window)
    for prefix, owners in builds.items():
        there = list(bucket.deleter.under(keys.folder(prefix)))
        contents = [one for one in there if not one.is_delete_marker]
        doomed = [one for one in contents if _is_by(bucket, one, owners)]
        # Without its delete marker, what somebody else has put there and deleted would show again.
        others = {one.key for one in set(contents).difference(doomed)}
        doomed += [one for one in there if one.is_delete_marker and one.key not in others]
        if doomed:
            yield prefix, doomed


def _is_by(bucket: Bucket, one: ObjectVersion, owners: Collection[str]) -> bool:
    """Whether one of these builds has written the object, or this version of it. It may be gone by now."""
    found = bucket.head(one.key, version=None if one.is_current else one.version)
    return found is not None and found.build_id in owners
