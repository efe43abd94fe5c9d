"""Deletes objects under a prefix that has no model."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

from sqlalchemy.orm import Session

from app.db.session import Database
from app.registry import clearing, late_deletes
from app.storage.bucket import Bucket
from app.storage.deleting import Deleter, ObjectVersion, SignedDelete, in_order

# How many are deleted before the database is asked again. They are gone within a second.
_TOGETHER = 100
_CALLS = 16


def clear(
    database: Database,
    bucket: Bucket,
    prefix: str,
    doomed: Sequence[ObjectVersion],
    window: timedelta,
    *,
    check: Callable[[Session], object],
    deleted: Callable[[Sequence[ObjectVersion]], object],
) -> str | None:
    """Delete the objects, markers last. Returns why it has stopped before it was through, if it has.

    Immediately before each request, `check` and the database are asked; `check` ends it by what it raises.
    `deleted` is told of what is gone. Raises CloudError.
    """
    deleter = bucket.deleter
    parts = (part[at : at + _TOGETHER] for part in in_order(doomed) for at in range(0, len(part), _TOGETHER))
    for few in parts:
        # Signed before the question: app/registry/clearing.py says why.
        signed = [deleter.sign(one, late_deletes.EXPIRE_AFTER) for one in few]
        with database.transaction() as session:
            check(session)
            why = clearing.kept_because(session, prefix, window)
        if why is not None:
            return why
        _send(deleter, few, signed, deleted)
    return None


def _send(
    deleter: Deleter,
    few: Sequence[ObjectVersion],
    signed: Sequence[SignedDelete],
    deleted: Callable[[Sequence[ObjectVersion]], object],
) -> None:
    gone: list[ObjectVersion] = []

    def send(one: ObjectVersion, delete: SignedDelete) -> None:
        deleter.send(delete)
        gone.append(one)

    try:
        with ThreadPoolExecutor(_CALLS, thread_name_prefix="clearing") as threads:
            list(threads.map(send, few, signed))
    finally:
        # If one of them failed, others are gone.
        deleted(gone)
