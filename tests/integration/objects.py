"""Objects that somebody else puts into the bucket, without any condition."""

from datetime import datetime

from app.storage.bucket import Bucket


def overwrite(bucket: Bucket, key: str, content: bytes = b"") -> None:
    bucket._client.put_object(Bucket=bucket.name, Key=key, Body=content)


def read(bucket: Bucket, key: str) -> bytes | None:
    if bucket.head(key) is None:
        return None
    return bucket._client.get_object(Bucket=bucket.name, Key=key)["Body"].read()


def written_at(bucket: Bucket, key: str) -> datetime:
    return bucket._client.head_object(Bucket=bucket.name, Key=key)["LastModified"]
