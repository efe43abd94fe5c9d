"""Deletes what builds that have ended left in the bucket, once no retry can use it any more.

It does not belong to a model, so the policy does not concern it. The janitor does it all the time, and a
collection does it too, and says how much there was.
"""

import contextlib
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import timedelta
from typing import Self
from uuid import UUID

from app.db.session import Database
from app.registry.builds import retries
from app.storage import keys
from app.storage.bucket import Bucket
from app.storage.deleting import ObjectVersion, in_order

_OBJECTS_TOGETHER = 250


@dataclass(frozen=True)
class Left:
    """Objects that nobody needs any more, and their bytes."""

    objects: int = 0
    size_bytes: int = 0

    @classmethod
    def of(cls, objects: Collection[ObjectVersion]) -> Self:
        return cls(len(objects), sum(one.size_bytes for one in objects))

    def __add__(self, other: "Left") -> "Left":
        return Left(self.objects + other.objects, self.size_bytes + other.size_bytes)


def sweep(database: Database, bucket: Bucket, retry_window: timedelta, check: Callable[[], object]) -> Left:
    """Delete the unpublished files that nobody needs any more. Returns what they were.

    A retry can take over the files of a build that has failed or was cancelled: they are kept for the window.
    `check` is called before each request that deletes, and ends the sweep by what it raises.
    Raises CloudError.
    """
    doomed = _unneeded(database, bucket, retry_window)
    for part in in_order(doomed):
        for start in range(0, len(part), _OBJECTS_TOGETHER):
            check()
            # A build that has ended writes nothing more, and no other build has its keys.
            bucket.deleter.together(part[start : start + _OBJECTS_TOGETHER])
    return Left.of(doomed)


def count(database: Database, bucket: Bucket, retry_window: timedelta) -> Left:
    """What `sweep` would delete now. Raises CloudError."""
    return Left.of(_unneeded(database, bucket, retry_window))


def _unneeded(database: Database, bucket: Bucket, retry_window: timedelta) -> list[ObjectVersion]:
    found: dict[UUID, list[ObjectVersion]] = {}
    for folder in (keys.UNPUBLISHED, keys.FORMER_UNPUBLISHED):
        for one in bucket.deleter.under(folder):
            with contextlib.suppress(ValueError):
                build_id = UUID(one.key.removeprefix(folder).partition("/")[0])
                found.setdefault(build_id, []).append(one)
    if not found:
        return []
    with database.transaction() as session:
        unneeded = retries.without_use(session, found, retry_window)
    return [one for build_id in sorted(unneeded) for one in found[build_id]]
