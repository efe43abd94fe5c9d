"""The way in: the private key, and an SSH connection that is known to be the instance's."""

from datetime import timedelta
from typing import ClassVar

import paramiko

from app.aws import CloudNotFound, translated
from app.registry.builds.steps import BuildView
from app.words import FailureCode, StepName
from worker import ec2
from worker.clouds import Cloud
from worker.errors import StepFailed
from worker.remote import Endpoint, Remote, RemoteLost, load_key
from worker.steps.instance import AwaitAddress, LaunchInstance, cloud_of
from worker.steps.step import Output, Step, output_of
from worker.workbench import Workbench


class Key(Output):
    """Which key it is. The key itself is never stored: whoever needs it fetches it."""

    secret: str
    secret_version: str
    fingerprint: str


class Connection(Output):
    """The host key that later connections must show again, and the login user's home folder."""

    host_key: str
    home: str


def fetch_key(work: Workbench, cloud: Cloud) -> tuple[paramiko.PKey, str]:
    """The launch's private key, and the version of its secret. Raises StepFailed, CloudError."""
    name = work.settings.ssh_key_secret
    try:
        with translated():
            secret = cloud.secrets.get_secret_value(SecretId=name)
    except CloudNotFound as exc:
        message = f"Secrets Manager has no secret {name!r} in {cloud.region}. Set REGISTRY_SSH_KEY_SECRET."
        raise StepFailed(FailureCode.NO_KEY, message) from exc
    try:
        return load_key(secret["SecretString"]), secret["VersionId"]
    except (KeyError, ValueError) as exc:
        message = f"The secret {name!r} holds no private key: {exc}."
        raise StepFailed(FailureCode.NO_KEY, message) from exc


class FetchKey(Step[Key]):
    name: ClassVar = StepName.FETCH_KEY
    deadline: ClassVar = timedelta(minutes=10)
    output: ClassVar = Key

    def act(self, build: BuildView, work: Workbench) -> Key:
        key, version = fetch_key(work, cloud_of(build, work))
        return Key(secret=work.settings.ssh_key_secret, secret_version=version, fingerprint=key.fingerprint)


class ValidateConnection(Step[Connection]):
    """The first connection: remembers the host key, and that commands and files work."""

    name: ClassVar = StepName.VALIDATE_CONNECTION
    deadline: ClassVar = timedelta(minutes=10)
    output: ClassVar = Connection

    def act(self, build: BuildView, work: Workbench) -> Connection:
        remote = work.remote(lambda: _connect(build, work, None))
        remote.run("true", timeout_s=30)
        return Connection(host_key=remote.host_key, home=remote.home())


def connect(build: BuildView, work: Workbench) -> Remote:
    """The connection to the build's instance. Raises RemoteLost, RemoteRefused, StepFailed."""
    return work.remote(lambda: _connect(build, work, output_of(build, ValidateConnection).host_key))


def _connect(build: BuildView, work: Workbench, host_key: str | None) -> Remote:
    settings = work.settings
    key, _ = fetch_key(work, cloud_of(build, work))
    address = output_of(build, AwaitAddress).address
    try:
        return Remote(Endpoint(address, settings.ssh_port, settings.ssh_user, host_key), key)
    except RemoteLost:
        # Worth another try only while there is a machine behind the address.
        ec2.require_alive(work, cloud_of(build, work), output_of(build, LaunchInstance).instance_id)
        raise
