"""Deletes objects of the bucket: many with one request, or so that S3 refuses what comes too late."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING

from botocore.awsrequest import AWSRequest

from app.aws import CloudUnavailable, error_of, http_session, translated
from app.storage.keys import is_marker

if TYPE_CHECKING:
    from botocore.httpsession import URLLib3Session
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import ObjectIdentifierTypeDef

# S3 takes no more with one request.
MOST_TOGETHER = 1000


@dataclass(frozen=True)
class ObjectVersion:
    """One object to delete. In a bucket that keeps versions, it can name one of them.

    `is_current` says that readers find this version, or that they find nothing because this version is a
    delete marker: what S3 puts over an object that is deleted without the name of a version.
    """

    key: str
    version: str | None = None
    size_bytes: int = 0
    is_current: bool = True
    is_delete_marker: bool = False


@dataclass(frozen=True)
class SignedDelete:
    """A delete that was signed already. S3 refuses it once it has expired, however late it is sent."""

    key: str
    url: str


def in_order(doomed: Iterable[ObjectVersion]) -> Iterator[list[ObjectVersion]]:
    """The parts in which objects are deleted, one after the other.

    Older versions come first, because readers would find them as soon as a newer one is gone. The registry's
    markers come last: as long as one is there, readers see that something was there.
    """
    older, files, markers = list[ObjectVersion](), list[ObjectVersion](), list[ObjectVersion]()
    for one in doomed:
        (older if not one.is_current else markers if is_marker(one.key) else files).append(one)
    yield from (older, files, markers)


class Deleter:
    """Deletes objects of one bucket. Every failure of AWS is raised as a CloudError.

    With `every_version`, nothing is left in a bucket that keeps versions. Otherwise, S3 keeps the versions of
    what is deleted there, and only the bucket's own lifecycle rules can end them.
    """

    def __init__(self, client: "S3Client", bucket: str, *, every_version: bool) -> None:
        self._client = client
        self._bucket = bucket
        self.every_version = every_version

    def under(self, prefix: str) -> Iterator[ObjectVersion]:
        """What must be deleted so that nothing is left whose key begins with the prefix."""
        return self._versions(prefix) if self.every_version else self._objects(prefix)

    def at(self, key: str) -> list[ObjectVersion]:
        """What must be deleted so that nothing is left at the key, older versions first."""
        if not self.every_version:
            return [ObjectVersion(key)]
        return [one for part in in_order(self._versions(key)) for one in part if one.key == key]

    def _objects(self, prefix: str) -> Iterator[ObjectVersion]:
        with translated():
            for page in self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=prefix
            ):
                for item in page.get("Contents", []):
                    yield ObjectVersion(item["Key"], None, item["Size"])

    def _versions(self, prefix: str) -> Iterator[ObjectVersion]:
        """Every version of every object with this prefix, and the delete markers."""
        with translated():
            for page in self._client.get_paginator("list_object_versions").paginate(
                Bucket=self._bucket, Prefix=prefix
            ):
                for version in page.get("Versions", []):
                    yield ObjectVersion(
                        version["Key"], version["VersionId"], version["Size"], version["IsLatest"]
                    )
                for marker in page.get("DeleteMarkers", []):
                    yield ObjectVersion(
                        marker["Key"], marker["VersionId"], 0, marker["IsLatest"], is_delete_marker=True
                    )

    def together(self, doomed: Sequence[ObjectVersion]) -> None:
        """Delete up to MOST_TOGETHER objects with one request. Some of them may be gone already.

        If S3 has refused to delete one of them, others may be deleted.
        """
        wanted: list[ObjectIdentifierTypeDef] = [
            {"Key": one.key} if one.version is None else {"Key": one.key, "VersionId": one.version}
            for one in doomed
        ]
        if not wanted:
            return
        with translated():
            answer = self._client.delete_objects(
                Bucket=self._bucket, Delete={"Objects": wanted, "Quiet": True}
            )
        for refused in answer.get("Errors", []):
            code = refused.get("Code", "Unknown")
            if code not in ("NoSuchKey", "NoSuchVersion"):
                message = f"{refused.get('Key')} was not deleted: {refused.get('Message', '')}"
                raise error_of(code, message)

    def sign(self, one: ObjectVersion, valid_for: timedelta) -> SignedDelete:
        """Sign a delete of the object, or of one version of it. `send` sends it."""
        version = {} if one.version is None else {"VersionId": one.version}
        which = {"Bucket": self._bucket, "Key": one.key} | version
        with translated():
            url = self._client.generate_presigned_url(
                "delete_object",
                Params=which,
                ExpiresIn=int(valid_for.total_seconds()),
            )
        return SignedDelete(one.key, url)

    def send(self, delete: SignedDelete) -> None:
        """The object may be gone already. Raises CloudUnavailable if the delete has expired."""
        with translated():
            answer = self._requests.send(AWSRequest("DELETE", delete.url).prepare())
        if answer.status_code < 300:
            return
        said = answer.content.decode("utf-8", errors="replace")
        code = _element(said, "Code") or str(answer.status_code)
        message = f"{delete.key} was not deleted: {_element(said, 'Message')}"
        if "expired" in message:
            raise CloudUnavailable(code, message)
        if code not in ("NoSuchKey", "404"):
            raise error_of(code, message)

    def send_each(self, deletes: Iterable[SignedDelete]) -> None:
        """Send the deletes one after the other, as `send` does."""
        for delete in deletes:
            self.send(delete)

    @cached_property
    def _requests(self) -> "URLLib3Session":
        return http_session(self._client.meta.endpoint_url)


def _element(document: str, name: str) -> str:
    """What an error of S3 says in the element of this name."""
    found = re.search(f"<{name}>(.*?)</{name}>", document, re.DOTALL)
    return "" if found is None else found[1]
