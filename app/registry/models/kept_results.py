"""Reads models' archives of results from the bucket, and keeps a few of them in memory."""

import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass

from app.aws import CloudError, CloudNotFound, PreconditionFailed
from app.registry.errors import ArtifactsMissing, BucketUnavailable
from app.registry.models import predictions
from app.registry.models.catalogue import ArtifactRef
from app.registry.models.predictions import Results
from app.storage.bucket import Bucket

# What the kept results may take in memory, by their own estimate.
LIMIT_BYTES = 16 << 20
# How long a request waits while another one reads an archive.
_PATIENCE_S = 10.0

Read = Mapping[str, Results]


@dataclass(frozen=True)
class Archive:
    """The archive of a model's results. `missing` if the bucket is known to lack it."""

    prefix: str
    file: ArtifactRef
    missing: bool


class KeptResults:
    """The results of the archives that were asked for last, by the digest of their content.

    One thread at a time reads an archive, so that many requests for large archives take the memory of one.
    """

    def __init__(self, bucket: Bucket, limit_bytes: int = LIMIT_BYTES) -> None:
        self._bucket = bucket
        self._limit_bytes = limit_bytes
        self._kept: OrderedDict[str, Read] = OrderedDict()
        self._size_bytes = 0
        # One guards what is kept, and is held for moments; the other is held while S3 is asked.
        self._guard = threading.Lock()
        self._reading = threading.Lock()

    def of(self, archive: Archive) -> Read:
        """The results by benchmark; none if the archive cannot be read. No session may be open meanwhile.

        Raises ArtifactsMissing, and BucketUnavailable if S3 does not answer within seconds.
        """
        if archive.missing:
            raise _lacking(archive)
        found = self._find(archive.file.sha256)
        if found is not None:
            return found
        if not self._reading.acquire(timeout=_PATIENCE_S):
            message = "Other archives of results are being read. Send the request again in a few seconds."
            raise BucketUnavailable(message)
        try:
            return self._read(archive)
        except (CloudNotFound, PreconditionFailed) as exc:
            raise _lacking(archive) from exc
        except CloudError as exc:
            message = f"S3 does not hand out {archive.file.key}: {exc}. Send the request again."
            raise BucketUnavailable(message) from exc
        finally:
            self._reading.release()

    def _read(self, archive: Archive) -> Read:
        file = archive.file
        # Another thread may have read it meanwhile.
        found = self._find(file.sha256)
        if found is not None:
            return found
        there = self._bucket.head(file.key, patient=False)
        digests = {there.sha256, file.sha256} - {None} if there is not None else set()
        if there is None or there.size_bytes != file.size_bytes or len(digests) > 1:
            raise _lacking(archive)
        # The ETag stands for a digest that is not known yet.
        name = file.sha256 or there.sha256 or there.etag
        found = self._find(name)
        if found is None:
            with closing(self._bucket.open(there, patient=False)) as opened:
                found = predictions.of_zip(opened)
            self._keep(name, found)
        return found

    def _find(self, name: str | None) -> Read | None:
        with self._guard:
            if name is None or name not in self._kept:
                return None
            self._kept.move_to_end(name)
            return self._kept[name]

    def _keep(self, name: str, results: Read) -> None:
        size = _size(results.values())
        if size > self._limit_bytes:
            return
        with self._guard:
            self._kept[name] = results
            self._size_bytes += size
            while self._size_bytes > self._limit_bytes:
                _, gone = self._kept.popitem(last=False)
                self._size_bytes -= _size(gone.values())


def _size(results: Iterable[Results]) -> int:
    return sum(one.size_bytes for one in results)


def _lacking(archive: Archive) -> ArtifactsMissing:
    message = (
        f"The bucket lacks {archive.file.name} of {archive.prefix}, or has other content there. Restore it "
        "and have POST /mirror/reconcile look at it."
    )
    return ArtifactsMissing(message, prefix=archive.prefix, artifacts=(archive.file.name,))
