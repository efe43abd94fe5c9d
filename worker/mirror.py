"""Outbox → bucket: carried out again and again until S3 has it."""

import logging

from app.aws import CloudError
from app.db.session import Database
from app.registry import outbox
from app.storage.bucket import Bucket

_log = logging.getLogger(__name__)


def drain(database: Database, bucket: Bucket) -> int:
    """Carry out what is due; returns how many were done. A failure puts that one off, and the rest goes on.

    A death between the write and its record repeats the write, which changes nothing.
    """
    written = 0
    while True:
        with database.transaction() as session:
            due = outbox.due(session)
        if not due:
            return written
        for change in due:
            try:
                bucket.put_marker(change.key)
            except CloudError as exc:
                with database.transaction() as session:
                    wait = outbox.failed(session, change.id, str(exc))
                _log.warning("key=%s not mirrored, again in %s: %s", change.key, wait, exc)
                continue
            with database.transaction() as session:
                outbox.done(session, change.id)
            written += 1
            _log.info("key=%s mirrored", change.key)
