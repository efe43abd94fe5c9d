"""AWS clients of one region, made once for each worker."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from app.aws import ec2_client, secrets_client
from app.settings import Settings
from app.storage.bucket import Bucket

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_secretsmanager import SecretsManagerClient


@dataclass(frozen=True)
class Cloud:
    """AWS clients of one region, shared by all of a worker's builds (boto3's clients are thread-safe)."""

    ec2: "EC2Client"
    # One try a call: a capacity error must reach us at once.
    ec2_launch: "EC2Client"
    secrets: "SecretsManagerClient"
    bucket: Bucket
    region: str

    @classmethod
    def of(cls, settings: Settings) -> "Cloud":
        return cls(
            ec2=ec2_client(settings),
            ec2_launch=ec2_client(settings, attempts=1),
            secrets=secrets_client(settings),
            bucket=Bucket.of(settings),
            region=settings.region,
        )
