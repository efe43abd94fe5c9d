"""The digest of a model's file as the bucket holds it."""

import logging

from app.aws import CloudNotFound, PreconditionFailed
from worker.runs.work import RunWork

_log = logging.getLogger(__name__)


def digest_of(work: RunWork, key: str, size_bytes: int) -> tuple[str, str] | None:
    """The file's sha256 and ETag. None if it is gone, or has another size than the one that was recorded.

    The content is read if S3 knows no digest of it.
    """
    for _ in range(3):
        there = work.bucket.head(key)
        if there is None or there.size_bytes != size_bytes:
            return None
        try:
            return there.sha256 or work.bucket.digest_of(there, work.check), there.etag
        except (PreconditionFailed, CloudNotFound):
            _log.warning("key=%s changed while its digest was computed", key)
    return None
