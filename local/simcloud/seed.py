"""What the simulated account holds at the start: images, a network, a key pair, its secret, the bucket."""

import hashlib
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from moto.ec2.models import ec2_backends
from moto.ec2.models.amis import Ami
from moto.s3.models import s3_backends
from moto.secretsmanager.models import secretsmanager_backends

from local.simcloud.settings import ACCOUNT, OTHER_ACCOUNT, Settings

FIRST_IMAGE = datetime(2026, 1, 12, 9, 30, tzinfo=UTC)


def private_key(state: Path, name: str) -> tuple[Path, str]:
    """The path of the private key in the state folder, and its public key. The first start makes them."""
    path = state / "ssh" / name
    public = path.with_name(f"{name}.pub")
    if not (path.exists() and public.exists()):
        path.parent.mkdir(parents=True, exist_ok=True)
        key = Ed25519PrivateKey.generate()
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
        )
        line = key.public_key().public_bytes(
            serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
        )
        _write(public, line + f" {name}\n".encode(), 0o644)
        _write(path, pem, 0o600)
    return path, public.read_text(encoding="utf-8").strip()


def _write(path: Path, content: bytes, mode: int) -> None:
    beside = path.with_name(f"{path.name}.tmp")
    beside.unlink(missing_ok=True)
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
    beside.rename(path)


def seed(settings: Settings, private: str, public: str) -> None:
    for region in settings.regions:
        _seed_region(settings, region, private, public)
    buckets = s3_backends[ACCOUNT]["aws"]
    if settings.bucket not in buckets.buckets:
        buckets.create_bucket(settings.bucket, settings.region)


def _seed_region(settings: Settings, region: str, private: str, public: str) -> None:
    ec2: Any = ec2_backends[ACCOUNT][region]
    vpc = ec2.create_vpc(settings.vpc_cidr)
    ec2.create_tags([vpc.id], {"Name": settings.security_group})
    subnet = ec2.create_subnet(vpc.id, settings.subnet_cidr, availability_zone=f"{region}a")
    ec2.create_tags([subnet.id], {"Name": settings.security_group})
    group = ec2.create_security_group(settings.security_group, "SSH to training machines", vpc_id=vpc.id)
    ec2.authorize_security_group_ingress(group.id, "tcp", "22", "22", [{"CidrIp": settings.vpc_cidr}])
    ec2.import_key_pair(settings.key_pair, public.encode(), {})
    secretsmanager_backends[ACCOUNT][region].create_secret(
        name=settings.secret,
        secret_string=private,
        secret_binary=None,
        description=f"The private key of the key pair {settings.key_pair}",
        tags=[],
        kms_key_id=None,
        client_request_token=None,
        replica_regions=[],
        force_overwrite=False,
    )
    name = settings.image
    last = len(settings.image_versions)
    for number, version in enumerate(settings.image_versions):
        add_image(region, f"{name} {version}", _month(number))
    # None of these may be taken for the newest image, though each is newer.
    add_image(region, f"{name} 9.9.9", _month(last), state="pending")
    add_image(region, f"{name} 9.9.8", _month(last + 1), owner=OTHER_ACCOUNT, public=True)
    add_image(region, f"{name.replace(' ', '-')}-9.9.7", _month(last + 2))
    base = "Deep Learning OSS Nvidia Driver AMI GPU PyTorch (Ubuntu 22.04)"
    add_image(region, base, _month(last + 3), owner=OTHER_ACCOUNT, public=True)


def _month(number: int) -> datetime:
    return FIRST_IMAGE + timedelta(days=30 * number)


def add_image(
    region: str,
    name: str,
    created_at: datetime,
    *,
    state: str = "available",
    owner: str = ACCOUNT,
    public: bool = False,
    tags: dict[str, str] | None = None,
) -> str:
    """Register an image and return its id. moto's own call cannot set tags, state and date."""
    ec2: Any = ec2_backends[ACCOUNT][region]
    # The same name has the same id in every run, so that what a model records about its image stays true.
    digest = hashlib.sha256(f"{region} {owner} {name}".encode()).hexdigest()
    image = Ami(
        ec2,
        f"ami-{digest[:17]}",
        name=name,
        description="Simulated machine image",
        owner_id=owner,
        public=public,
        state=state,
        architecture="x86_64",
        virtualization_type="hvm",
        root_device_type="ebs",
        root_device_name="/dev/sda1",
        image_location=f"{owner}/{name}",
        hypervisor="xen",
        region_name=f"{region}a",
        # moto's times are in UTC and have no zone.
        creation_date=created_at.astimezone(UTC).replace(tzinfo=None),
        tags={"Name": name, **(tags or {})} if owner == ACCOUNT else tags,
    )
    ec2.amis[image.id] = image
    return image.id
