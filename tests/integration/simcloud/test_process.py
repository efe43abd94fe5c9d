"""`python -m local.simcloud` as a process: what survives its end, and what does not."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest

Eventually = Callable[[Callable[[], object]], None]


@dataclass
class Running:
    process: subprocess.Popen[str]
    url: str
    started_s: float

    def client(self, service: str) -> Any:
        return boto3.client(
            service,  # type: ignore[call-overload]
            endpoint_url=self.url,
            region_name="eu-west-2",
            aws_access_key_id="a",
            aws_secret_access_key="a",
        )

    def launch_a_sleeper(self, state: Path) -> str:
        """An instance with a detached program in it."""
        ec2 = self.client("ec2")
        image = ec2.describe_images(Filters=[{"Name": "name", "Values": ["FPO Training 1.1.0"]}])["Images"][0]
        script = "#!/bin/sh\nsetsid nohup sleep 100 >/dev/null 2>&1 </dev/null &\necho begun\n"
        made: str = ec2.run_instances(
            ImageId=image["ImageId"], MinCount=1, MaxCount=1, KeyName="fpo-training", UserData=script
        )["Instances"][0]["InstanceId"]
        log = state / "instances" / made / "home" / "cloud-init-output.log"
        deadline = time.monotonic() + 10
        while not (log.exists() and "begun" in log.read_text(encoding="utf-8")):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        while not programs_of(made):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return made


def programs_of(instance_id: str) -> list[int]:
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if f"SIMCLOUD_INSTANCE_ID={instance_id}".encode() in (entry / "environ").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    processes: list[subprocess.Popen[str]] = []

    def start(*arguments: str, state: Path = tmp_path / "state") -> Running:
        begun = time.monotonic()
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "local.simcloud",
                "--port=0",
                "--ssh-port=0",
                f"--state={state}",
                *arguments,
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        processes.append(process)
        assert process.stdout is not None
        said = ""
        while not (match := re.search(r"listens on (http://\S+?:\d+)", said)):
            line = process.stdout.readline()
            assert line, said
            said += line
        return Running(process, match[1], time.monotonic() - begun)

    yield start
    for process in processes:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def test_a_signal_ends_the_cloud_with_the_programs_of_its_own_instances(
    start: Callable[..., Running], tmp_path: Path
) -> None:
    running, other = start(), start(state=tmp_path / "other")
    made, others = running.launch_a_sleeper(tmp_path / "state"), other.launch_a_sleeper(tmp_path / "other")
    for each, number, instance in ((running, signal.SIGINT, made), (other, signal.SIGTERM, others)):
        assert programs_of(others)
        each.process.send_signal(number)
        output, _ = each.process.communicate(timeout=5)
        assert each.process.returncode == 0
        assert programs_of(instance) == []
        assert "Traceback" not in output
        assert "Warning" not in output
    assert not list((tmp_path / "state" / "instances").iterdir())


def test_a_kill_leaves_no_program_behind_and_keeps_every_object(
    start: Callable[..., Running], tmp_path: Path, eventually: Eventually
) -> None:
    state = tmp_path / "state"
    running = start()
    s3 = running.client("s3")
    large = os.urandom(300_000)
    s3.put_object(Bucket="tariff-models", Key="a/large", Body=large, ContentType="x/y", Metadata={"k": "v"})
    s3.put_object(Bucket="tariff-models", Key="a/marker", Body=b"")
    s3.put_object(Bucket="tariff-models", Key="a/gone", Body=b"1")
    s3.delete_object(Bucket="tariff-models", Key="a/gone")
    s3.create_bucket(Bucket="second", CreateBucketConfiguration={"LocationConstraint": "eu-west-2"})
    upload = s3.create_multipart_upload(Bucket="second", Key="parts")["UploadId"]
    part = s3.upload_part(Bucket="second", Key="parts", UploadId=upload, PartNumber=1, Body=large)
    s3.complete_multipart_upload(
        Bucket="second",
        Key="parts",
        UploadId=upload,
        MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]},
    )
    s3.copy_object(Bucket="second", Key="copied", CopySource="tariff-models/a/large")
    before = [s3.head_object(Bucket="tariff-models", Key=f"a/{key}") for key in ("large", "marker")]
    secret = running.client("secretsmanager").get_secret_value(SecretId="fpo-training-ssh-key")[
        "SecretString"
    ]
    made = running.launch_a_sleeper(state)

    running.process.kill()
    running.process.communicate()
    eventually(lambda: not programs_of(made))

    again = start()
    s3 = again.client("s3")
    found = s3.get_object(Bucket="tariff-models", Key="a/large")
    assert found["Body"].read() == large
    after = [s3.head_object(Bucket="tariff-models", Key=f"a/{key}") for key in ("large", "marker")]
    for old, new in zip(before, after, strict=True):
        for name in ("ETag", "ContentType", "ContentLength", "Metadata", "LastModified"):
            assert new[name] == old[name]
    with pytest.raises(s3.exceptions.NoSuchKey):
        s3.get_object(Bucket="tariff-models", Key="a/gone")
    assert s3.get_object(Bucket="second", Key="parts")["Body"].read() == large
    assert s3.head_object(Bucket="second", Key="parts")["ETag"].endswith('-1"')
    assert s3.get_object(Bucket="second", Key="copied")["Body"].read() == large
    assert again.client("ec2").describe_instances()["Reservations"] == []
    assert secret_of(again) == secret


def secret_of(running: Running) -> str:
    found = running.client("secretsmanager").get_secret_value(SecretId="fpo-training-ssh-key")
    return str(found["SecretString"])


def test_the_next_start_ends_what_a_killed_one_left_behind(
    start: Callable[..., Running], tmp_path: Path
) -> None:
    running = start()
    made = running.launch_a_sleeper(tmp_path / "state")
    # Not even its guard survives.
    children = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(running.process.pid)], capture_output=True, text=True, check=True
    ).stdout.split()
    for pid in [*map(int, children), running.process.pid]:
        os.kill(pid, signal.SIGKILL)
    running.process.communicate()
    assert programs_of(made)
    start()
    assert programs_of(made) == []


def test_an_upload_that_a_kill_interrupts_leaves_the_old_object(
    start: Callable[..., Running], tmp_path: Path
) -> None:
    running = start()
    s3 = running.client("s3")
    contents = [bytes([number]) * 2_000_000 for number in range(4)]
    s3.put_object(Bucket="tariff-models", Key="key", Body=contents[0])
    writer = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import boto3, sys\n"
            f"s3 = boto3.client('s3', endpoint_url={running.url!r}, region_name='eu-west-2',"
            " aws_access_key_id='a', aws_secret_access_key='a')\n"
            "print('ready', flush=True)\n"
            "while True:\n"
            "    for number in range(4):\n"
            "        s3.put_object(Bucket='tariff-models', Key='key', Body=bytes([number]) * 2_000_000)\n",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert writer.stdout is not None
    writer.stdout.readline()
    time.sleep(0.25)
    running.process.kill()
    running.process.communicate()
    writer.kill()
    writer.communicate()
    assert start().client("s3").get_object(Bucket="tariff-models", Key="key")["Body"].read() in contents
    assert len(list((tmp_path / "state" / "s3").glob("*/*"))) == 1


def test_a_start_that_fails_says_why_without_a_traceback(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "local.simcloud", "--port=0", "--ssh-port=0"]
    result = subprocess.run(
        [*command, f"--state={tmp_path / 'state'}", f"--repository={tmp_path}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert "not a git repository" in result.stderr
    assert "Traceback" not in result.stderr
