"""A simulated cloud for each module, back at its seeds for each test, and clients of it."""

import functools
import io
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import paramiko
import pytest
from botocore.config import Config

from local.simcloud.server import SimCloud
from local.simcloud.settings import Settings

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_secretsmanager import SecretsManagerClient


@pytest.fixture(scope="session")
def source_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A git repository with two commits and an uncommitted change."""
    folder = tmp_path_factory.mktemp("source")

    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "init.defaultBranch=main"]
        subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)

    git("init")
    for text in ("first", "second"):
        (folder / "file").write_text(text, encoding="utf-8")
        git("add", "file")
        git("commit", "-m", text)
    (folder / "file").write_text("not committed", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def running_cloud(source_repository: Path) -> Iterator[SimCloud]:
    with SimCloud(Settings(repository=source_repository, shutdown_minute_s=0.3)) as cloud:
        yield cloud


@pytest.fixture
def cloud(running_cloud: SimCloud) -> Iterator[SimCloud]:
    yield running_cloud
    running_cloud.reset()


@pytest.fixture(scope="module")
def client_of(running_cloud: SimCloud) -> Callable[[str], Any]:
    """boto3 clients that never retry, made once: to make one takes longer than most calls."""

    @functools.cache
    def client(service: str) -> Any:
        signature = "s3v4" if service == "s3" else None
        return boto3.client(
            service,  # type: ignore[call-overload]
            endpoint_url=running_cloud.endpoint_url,
            region_name=running_cloud.region,
            aws_access_key_id="any",
            aws_secret_access_key="any",
            config=Config(retries={"total_max_attempts": 1}, signature_version=signature),
        )

    return client


@pytest.fixture
def ec2(cloud: SimCloud, client_of: Callable[[str], "EC2Client"]) -> "EC2Client":
    return client_of("ec2")


@pytest.fixture
def s3(cloud: SimCloud, client_of: Callable[[str], "S3Client"]) -> "S3Client":
    return client_of("s3")


@pytest.fixture
def secrets(cloud: SimCloud, client_of: Callable[[str], "SecretsManagerClient"]) -> "SecretsManagerClient":
    return client_of("secretsmanager")


@pytest.fixture
def request_of(ec2: "EC2Client", cloud: SimCloud) -> Callable[..., dict[str, Any]]:
    """The parameters of a launch as production makes it, with changes."""
    images = ec2.describe_images(Owners=["self"], Filters=[{"Name": "name", "Values": ["FPO Training *"]}])
    available = [image for image in images["Images"] if image["State"] == "available"]
    subnets = ec2.describe_subnets(Filters=[{"Name": "cidr-block", "Values": ["10.0.1.0/24"]}])["Subnets"]
    groups = ec2.describe_security_groups(Filters=[{"Name": "group-name", "Values": ["fpo-training"]}])

    def parameters(**changes: Any) -> dict[str, Any]:
        return {
            "ImageId": max(available, key=lambda image: image["CreationDate"])["ImageId"],
            "InstanceType": "g4dn.xlarge",
            "MinCount": 1,
            "MaxCount": 1,
            "KeyName": cloud.settings.key_pair,
            "SubnetId": subnets[0]["SubnetId"],
            "SecurityGroupIds": [groups["SecurityGroups"][0]["GroupId"]],
            **changes,
        }

    return parameters


@pytest.fixture
def state_of(ec2: "EC2Client") -> Callable[[str], str]:
    def state(instance_id: str) -> str:
        found = ec2.describe_instances(InstanceIds=[instance_id])
        return found["Reservations"][0]["Instances"][0]["State"]["Name"]

    return state


@pytest.fixture
def eventually() -> Callable[[Callable[[], object]], None]:
    """Wait until a condition holds."""

    def wait(condition: Callable[[], object], timeout_s: float = 10.0) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, "it never came to hold"
            time.sleep(0.01)

    return wait


@pytest.fixture
def launch(
    ec2: "EC2Client",
    request_of: Callable[..., dict[str, Any]],
    state_of: Callable[[str], str],
    eventually: Callable[[Callable[[], object]], None],
) -> Callable[..., str]:
    """Launch an instance and wait until it runs; returns its id."""

    def launch(**changes: Any) -> str:
        made = ec2.run_instances(**request_of(**changes))["Instances"][0]["InstanceId"]
        eventually(lambda: state_of(made) == "running")
        return made

    return launch


@pytest.fixture
def login(
    ec2: "EC2Client", secrets: "SecretsManagerClient", cloud: SimCloud
) -> Iterator[Callable[..., paramiko.SSHClient]]:
    """Connect to an instance as production does: address from EC2, key from Secrets Manager."""
    clients = []

    def connect(instance_id: str, **changes: Any) -> paramiko.SSHClient:
        found = ec2.describe_instances(InstanceIds=[instance_id])["Reservations"][0]["Instances"][0]
        pem = secrets.get_secret_value(SecretId="fpo-training-ssh-key")["SecretString"]
        client = paramiko.SSHClient()
        client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
        clients.append(client)
        client.connect(
            found["PrivateIpAddress"],
            **{
                "port": cloud.ssh_port,
                "username": "ubuntu",
                "pkey": paramiko.Ed25519Key.from_private_key(io.StringIO(pem)),
                "look_for_keys": False,
                "allow_agent": False,
                "timeout": 10,
                **changes,
            },
        )
        return client

    yield connect
    for client in clients:
        client.close()


@pytest.fixture
def sh(login: Callable[..., paramiko.SSHClient]) -> Callable[..., tuple[int, str, str]]:
    """Run a command on an instance: exit status, output, errors."""

    def run(instance_id: str, command: str, stdin: bytes = b"") -> tuple[int, str, str]:
        client = login(instance_id)
        source, output, errors = client.exec_command(command, timeout=20)
        source.write(stdin)
        source.channel.shutdown_write()
        result = output.read().decode(), errors.read().decode()
        return output.channel.recv_exit_status(), *result

    return run
