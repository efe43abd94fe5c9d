"""docs/auditing.md: every command of the page is run, in its order, against a registry with one model."""

import io
import os
import re
import shutil
import stat
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import httpx
import pytest

from app.settings import Settings
from app.words import Stage
from tests.conftest import skip_or_fail
from tests.integration.app.serving import ROOT, free_port, served
from tests.integration.objects import overwrite
from tests.integration.worker.conftest import Flow
from tests.integration.worker.test_signing import finish
from worker import mirror
from worker.clouds import Clouds

PAGE = (ROOT / "docs" / "auditing.md").read_text(encoding="utf-8")
TABLE = b"code,description\n610462,mens cotton trousers\n"

# What the page does with the AWS command line, which is not a part of this project.
AWS = f"""#!{sys.executable}
import pathlib, sys
import boto3
s3, (command, source, to) = boto3.client("s3"), sys.argv[2:]
bucket, _, key = source.removeprefix("s3://").partition("/")
if command == "cp":
    s3.download_file(bucket, key, to)
else:
    for item in s3.list_objects_v2(Bucket=bucket, Prefix=key)["Contents"]:
        file = pathlib.Path(to, item["Key"].removeprefix(key))
        file.parent.mkdir(parents=True, exist_ok=True)
        s3.download_file(bucket, item["Key"], str(file))
"""


def commands() -> str:
    """The blocks of the page that are meant to be run, in their order."""
    blocks = re.findall(r"^( *)```sh\n(.*?)^\1```$", PAGE, re.MULTILINE | re.DOTALL)
    return "".join(textwrap.dedent(block) for _, block in blocks)


@pytest.fixture
def filled_bucket(filled_bucket: Clouds) -> Clouds:
    """With the file in the raw data that the page asks for."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("cn.csv", "CNKEY,CN_CODE,NAME_EN\n")
        archive.writestr("tradesets/2024.csv", TABLE)
    overwrite(filled_bucket.bucket, "raw_source_data.zip", packed.getvalue())
    return filled_bucket


def test_every_command_of_the_page_does_what_it_says(
    trained: Flow, settings: Settings, tmp_path: Path, cloud: object
) -> None:
    del cloud
    for tool in ("bash", "curl", "jq", "git", "sha256sum"):
        if shutil.which(tool) is None:
            skip_or_fail(f"{tool} is not installed")
    prefix = finish(trained)
    aws = tmp_path / "bin" / "aws"
    aws.parent.mkdir()
    aws.write_text(AWS)
    aws.chmod(aws.stat().st_mode | stat.S_IXUSR)
    work = tmp_path / "work"
    work.mkdir()
    (work / "2024.csv").write_bytes(TABLE)
    url = f"http://127.0.0.1:{(port := free_port())}"
    with served(settings, port):
        for stage in Stage:
            httpx.post(f"{url}/models/{prefix}/promotions", json={"stage": stage}).raise_for_status()
        mirror.drain(trained.database, trained.clouds.bucket)
        done = subprocess.run(
            ["bash", "-euxo", "pipefail", "-c", commands()],
            cwd=work,
            env=os.environ
            | {
                "PATH": os.pathsep.join(
                    [str(aws.parent), str(Path(sys.executable).parent), os.environ["PATH"]]
                ),
                # This checkout's, where another one is installed.
                "PYTHONPATH": str(ROOT),
                "REGISTRY_URL": url,
                "REGISTRY_TOKEN": "any",
                "BUCKET": settings.bucket,
                "AWS_ENDPOINT_URL": str(settings.aws_endpoint_url),
                "AWS_DEFAULT_REGION": settings.region,
                "COLUMNS": "200",
            },
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
    said = done.stdout
    assert done.returncode == 0, said + done.stderr
    for expected in (
        f"{prefix} runs in production",
        "registry.pub: OK",
        f"✓ {prefix}: all files are those that were signed",
        f"✓ ./{prefix}: all files are those that were signed",
        "Verification succeeded",
        f"production runs {prefix}",
        "tradesets/2024.csv in raw_source_data.zip (2 lines)",
        f"{prefix} is signed since",
        '"action": "promoted"',
    ):
        assert expected in said, expected
    # The commit, made from its pack alone.
    assert (work / "code" / "pyproject.toml").is_file()
