"""What a simulated cloud is made of, and under which names."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

ACCOUNT = "123456789012"
OTHER_ACCOUNT = "999999999999"


@dataclass(frozen=True)
class Settings:
    """What shapes a simulated cloud. The defaults suit tests: free ports, and a temporary folder."""

    host: str = "127.0.0.1"
    port: int = 0
    """0 takes any free port."""
    ssh_port: int = 0
    """The same for every instance; 0 takes any free port."""
    state: Path | None = None
    """Keeps the bucket and the private key between runs. None: a temporary folder, removed at the end."""
    repository: Path | None = None
    """Cloned into every instance's home. None: instances get an empty repository."""
    python: str = sys.executable
    """What the image's `~/training/environment/bin/python` runs."""
    session_environment: Mapping[str, str] = field(default_factory=dict)
    """Put into the environment of everything that runs on an instance."""

    region: str = "eu-west-2"
    more_regions: tuple[str, ...] = ()
    """Regions with a network and images as in `region`, but without a bucket."""
    bucket: str = "tariff-models"
    vpc_cidr: str = "10.0.0.0/16"
    subnet_cidr: str = "10.0.1.0/24"
    security_group: str = "fpo-training"
    key_pair: str = "fpo-training"
    secret: str = "fpo-training-ssh-key"  # noqa: S105 - the secret's name
    image: str = "FPO Training"
    """An image's name is this, a space and a version."""
    image_versions: tuple[str, ...] = ("1.0.0", "1.1.0")
    """Oldest first."""
    login_user: str = "ubuntu"

    address_prefix: str = "127.0.1."
    shutdown_minute_s: float = 60.0
    """How long a minute of `shutdown -h +MINUTES` takes."""

    @property
    def regions(self) -> tuple[str, ...]:
        return (self.region, *self.more_regions)
