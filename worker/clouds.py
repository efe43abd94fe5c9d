"""AWS clients by region, made once for each worker (boto3's clients are thread-safe)."""

import threading
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
    """AWS clients of one region."""

    region: str
    ec2: "EC2Client"
    # One try for each call, because the registry itself decides what to do when there is no capacity.
    ec2_launch: "EC2Client"
    secrets: "SecretsManagerClient"

    @classmethod
    def of(cls, settings: Settings, region: str) -> "Cloud":
        return cls(
            region=region,
            ec2=ec2_client(settings, region),
            ec2_launch=ec2_client(settings, region, attempts=1),
            secrets=secrets_client(settings, region),
        )


class Clouds:
    """The bucket, and the clients of each region that is in use."""

    def __init__(self, settings: Settings) -> None:
        self.bucket = Bucket.of(settings)
        self._settings = settings
        self._regions: dict[str, Cloud] = {}
        self._making = threading.Lock()
        self.home = self.region(settings.region)

    def region(self, name: str) -> Cloud:
        """The clients of a region, made when it is first asked for."""
        with self._making:
            if name not in self._regions:
                self._regions[name] = Cloud.of(self._settings, name)
            return self._regions[name]
