"""The commands with which existing tools read the bucket, on a bucket that this registry has written.

They run with the real AWS command line.
"""

import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from app.db.session import Database
from app.storage.bucket import Bucket, digest_of
from app.words import Stage, Verdict
from local.simcloud.server import SimCloud
from tests.integration.app.registry import Registry
from tests.integration.worker.old_bucket import put_model
from worker import mirror
from worker.clouds import Clouds

DEVELOPMENT, STAGING, PRODUCTION = Stage
AWS = Path(sys.executable).with_name("aws")
CONFIG = 'name = "tariff-model"\nversion = "{version}"\ndigits = 6\n'


@pytest.fixture
def registry(database: Database) -> Registry:
    return Registry(database)


@pytest.fixture
def bucket(clients: Clouds) -> Bucket:
    return clients.bucket


@pytest.fixture
def shell(cloud: SimCloud, tmp_path: Path) -> Callable[[str], str]:
    """Runs a script as the existing tools are written, and returns what it prints."""
    environment = os.environ | cloud.environment() | {"BUCKET": cloud.bucket}
    environment["PATH"] = f"{AWS.parent}:{environment['PATH']}"

    def shell(script: str) -> str:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return shell


@pytest.fixture
def publish(registry: Registry, bucket: Bucket, tmp_path: Path) -> Callable[..., str]:
    """A model as a build publishes it: its files copied to the prefix, then its markers by the mirror."""

    def publish(version: str, *stages: Stage, verdict: Verdict = Verdict.PASSED) -> str:
        build_id = registry.queue(version)
        prefix = registry.publish(build_id, verdict)
        results = tmp_path / "results.zip"
        with zipfile.ZipFile(results, "w") as archive:
            archive.writestr("everyday.json", "{}")
        files = {
            "model.zip": f"model {version}".encode(),
            "search-config.toml": CONFIG.format(version=version).encode(),
            "benchmark_results.zip": results.read_bytes(),
        }
        for name, content in files.items():
            local = tmp_path / "content"
            local.write_bytes(content)
            digest = digest_of(local)
            kept = f"unpublished/{build_id}/{digest.sha256}"
            bucket.put_once(kept, local, digest, content_type="application/zip", build_id=str(build_id))
            made = bucket.head(kept)
            assert made is not None
            bucket.copy(made, f"{prefix}/{name}", over=None)
        for stage in stages:
            registry.promote(prefix, stage)
        mirror.drain(registry.database, bucket)
        return prefix

    return publish


def test_the_real_command_line_is_there() -> None:
    assert AWS.exists(), "Install the extra `dev`, which has awscli."


def test_a_recursive_listing_names_every_model_once(
    publish: Callable[..., str], shell: Callable[[str], str]
) -> None:
    prefixes = {publish(version, DEVELOPMENT) for version in ("0.0.1", "0.0.2", "0.1.0")}
    listed = shell("aws s3 ls \"s3://$BUCKET\" --recursive | awk '{print $4}' | grep 'model\\.zip$'")
    # What builds keep until they are published is not listed as a model.
    assert {line.removesuffix("/model.zip") for line in listed.splitlines()} == prefixes
    folders = shell("aws s3 ls \"s3://$BUCKET\" | awk '/PRE/ {print $2}'").split()
    assert set(folders) == {f"{prefix}/" for prefix in prefixes} | {"unpublished/"}


def test_the_newest_model_of_a_version_is_found_by_its_time(
    publish: Callable[..., str], bucket: Bucket, shell: Callable[[str], str]
) -> None:
    put_model(bucket, "0.0.2-aaaaaaa", at=datetime.now(UTC) - timedelta(days=3))
    newest = publish("0.0.2")
    publish("0.0.3")
    found = shell(
        'aws s3api list-objects-v2 --bucket "$BUCKET" --prefix 0.0.2- --output text --query '
        "\"sort_by(Contents[?ends_with(Key, 'model.zip')], &LastModified)[-1].Key\""
    )
    assert found == f"{newest}/model.zip"


def test_a_marker_that_is_mirrored_again_keeps_its_time(
    publish: Callable[..., str], shell: Callable[[str], str], registry: Registry, bucket: Bucket
) -> None:
    prefix = publish("0.0.1", DEVELOPMENT)
    ask = f"aws s3api head-object --bucket $BUCKET --key {prefix}/development --query LastModified"
    before = shell(ask)
    other = publish("0.0.2", DEVELOPMENT)
    registry.promote(prefix, DEVELOPMENT)
    mirror.drain(registry.database, bucket)
    assert shell(ask) == before
    assert shell(f"aws s3 ls s3://$BUCKET/{other}/development")


def test_markers_are_empty_and_say_where_a_model_was_deployed_and_how_it_was_judged(
    publish: Callable[..., str], shell: Callable[[str], str]
) -> None:
    prefix = publish("0.0.1", DEVELOPMENT, STAGING)
    failed = publish("0.0.2", verdict=Verdict.FAILED)
    for name in ("development", "staging", "passed"):
        assert shell(f"aws s3 ls s3://$BUCKET/{prefix}/{name} | awk '{{print $3, $4}}'") == f"0 {name}"
    assert shell(f"aws s3 ls s3://$BUCKET/{failed}/failed | awk '{{print $3}}'") == "0"
    assert shell(f"aws s3 ls s3://$BUCKET/{prefix}/production || echo none") == "none"
    staging = shell("aws s3 ls s3://$BUCKET --recursive | grep '/staging$' | awk '{print $4}'")
    assert staging == f"{prefix}/staging"


def test_the_version_is_read_from_the_published_configuration(
    publish: Callable[..., str], shell: Callable[[str], str]
) -> None:
    prefix = publish("0.0.7")
    version = shell(
        f"aws s3 cp s3://$BUCKET/{prefix}/search-config.toml . --quiet\n"
        "grep version search-config.toml | cut -d '\"' -f 2"
    )
    assert version == "0.0.7"


def test_model_and_results_are_downloaded_with_their_content(
    publish: Callable[..., str], shell: Callable[[str], str]
) -> None:
    prefix = publish("0.0.1")
    assert shell(f"aws s3 cp s3://$BUCKET/{prefix}/model.zip -") == "model 0.0.1"
    shell(f"aws s3 sync s3://$BUCKET/{prefix} copy --quiet")
    assert "everyday.json" in shell("python -m zipfile -l copy/benchmark_results.zip")


def test_a_bucket_of_more_than_a_thousand_keys_is_listed_to_its_end(
    publish: Callable[..., str], bucket: Bucket, shell: Callable[[str], str]
) -> None:
    for minor in range(350):
        put_model(bucket, f"1.{minor}.0-aaaaaaa")
    prefix = publish("2.0.0")
    assert shell("aws s3 ls s3://$BUCKET --recursive | grep -c 'model\\.zip$'") == "351"
    assert shell(f"aws s3 ls s3://$BUCKET/{prefix}/model.zip")
