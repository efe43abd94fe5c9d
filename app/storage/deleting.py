"""Deletes objects of the bucket: many with one request, or so that S3 refuses what comes too late."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING

from botocore.awsrequest import AWSRequest

from app.aws import CloudUnavailable, error_of, http_session, translated

if TYPE_CHECKING:
    from botocore.httpsession import URLLib3Session
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import ObjectIdentifierTypeDef

# S3 takes no more with one request.
MOST_TOGETHER = 1000


@dataclass(frozen=True)
class ObjectVersion:
    """One object to delete. In a bucket that keeps versions, it can name one of them."""

    key: str
    version: str | None = None


@dataclass(frozen=True)
class SignedDelete:
    """A delete that was signed already. S3 refuses it once it has expired, however late it is sent."""

    key: str
    url: str


class Deleter:
    """Deletes objects of one bucket. Every failure of AWS is raised as a CloudError."""

    def __init__(self, client: "S3Client", bucket: str) -> None:
        self._client = client
        self._bucket = bucket

    def versions(self, prefix: str) -> Iterator[ObjectVersion]:
        """Every version of every object with this prefix, and the markers of earlier deletes."""
        with translated():
            for page in self._client.get_paginator("list_object_versions").paginate(
                Bucket=self._bucket, Prefix=prefix
            ):
                for version in page.get("Versions", []):
                    yield ObjectVersion(version["Key"], version["VersionId"])
                for marker in page.get("DeleteMarkers", []):
                    yield ObjectVersion(marker["Key"], marker["VersionId"])

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

    def sign(self, key: str, valid_for: timedelta, version: str | None = None) -> SignedDelete:
        """Sign a delete of the object, or of one version of it. `send` sends it."""
        which = {"Bucket": self._bucket, "Key": key} | ({} if version is None else {"VersionId": version})
        with translated():
            url = self._client.generate_presigned_url(
                "delete_object",
                Params=which,
                ExpiresIn=int(valid_for.total_seconds()),
            )
        return SignedDelete(key, url)

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

    @cached_property
    def _requests(self) -> "URLLib3Session":
        return http_session(self._client.meta.endpoint_url)


def _element(document: str, name: str) -> str:
    """What an error of S3 says in the element of this name."""
    found = re.search(f"<{name}>(.*?)</{name}>", document, re.DOTALL)
    return "" if found is None else found[1]
