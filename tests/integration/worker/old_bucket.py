"""A bucket as tools before this registry have filled it."""

from collections.abc import Mapping
from datetime import UTC, datetime

from moto.s3.models import s3_backends

from app.storage.bucket import Bucket
from local.simcloud.settings import ACCOUNT

# Before everything that this registry does.
YEARS_AGO = datetime(2015, 1, 1, tzinfo=UTC)

XML = b"""<?xml version="1.0"?>
<testsuites><testsuite name="everyday" tests="2" failures="0">
<testcase classname="everyday" name="top_1"><system-out>0.6200 of 200</system-out></testcase>
<testcase classname="everyday" name="no_result"><system-out>0.0500 of 200</system-out></testcase>
<testcase classname="everyday.chapter_61" name="top_1"><system-out>0.7000 of 10</system-out></testcase>
</testsuite></testsuites>
"""


def config_of(version: str) -> bytes:
    return f'# written by hand\nversion = "{version}"\nlearning_rate = 0.001\n'.encode()


def put(bucket: Bucket, key: str, content: bytes = b"", at: datetime | None = None) -> None:
    """An object without our metadata, last modified at the given time.

    It goes straight into the simulated cloud of this process: some tests need more than a thousand, and a
    request for each of them would take half a minute. As with old objects, S3 has stored no digest of it.
    """
    made = s3_backends[ACCOUNT]["aws"].put_object(bucket.name, key, content)
    if at is not None:
        made.last_modified = at


def put_model(
    bucket: Bucket,
    prefix: str,
    *,
    markers: Mapping[str, datetime] | None = None,
    at: datetime | None = None,
    files: Mapping[str, bytes | None] | None = None,
) -> None:
    """A model as the tools before wrote one. A file that is None is left out."""
    content: dict[str, bytes | None] = {
        "model.zip": b"the model " + prefix.encode(),
        "search-config.toml": config_of(prefix.rpartition("-")[0]),
        "benchmark_results.xml": XML,
    }
    content |= files or {}
    for name, of in content.items():
        if of is not None:
            put(bucket, f"{prefix}/{name}", of, at)
    for name, when in (markers or {}).items():
        put(bucket, f"{prefix}/{name}", at=when)
