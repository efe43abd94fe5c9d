"""Whether the bucket still holds a model's files as they were recorded."""

from collections.abc import Sequence
from dataclasses import dataclass

from app.aws import CloudError
from app.registry.models.catalogue import ArtifactRef
from app.storage.bucket import Bucket


@dataclass(frozen=True)
class Findings:
    """What S3 said about the files of a model.

    `lacking` names the files that are gone or have other content. `unavailable` is the error with which S3
    could not answer. `signature` is why the signature does not hold, if it was looked at.
    """

    lacking: tuple[str, ...] = ()
    unavailable: str | None = None
    signature: str | None = None

    @property
    def whole(self) -> bool:
        return not self.lacking and self.unavailable is None


WHOLE = Findings()


def look(bucket: Bucket, files: Sequence[ArtifactRef], *, at_most: int | None = None) -> Findings:
    """Ask S3 for the size and the stored checksum of each file. No session may be open meanwhile.

    The looking ends with the first error, or when `at_most` files are found to be lacking. An object without
    a stored checksum, and a file whose digest has not been computed yet, are compared by their size.
    """
    lacking: list[str] = []
    for file in files:
        try:
            there = bucket.head(file.key, patient=False)
        except CloudError as exc:
            return Findings(tuple(lacking), str(exc))
        digests = {there.sha256, file.sha256} - {None} if there is not None else set()
        if there is None or there.size_bytes != file.size_bytes or len(digests) > 1:
            lacking.append(file.name)
            if len(lacking) == at_most:
                break
    return Findings(tuple(lacking))
