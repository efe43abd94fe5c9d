"""The private key, and an SSH connection that is verified by the instance's host key."""

from datetime import timedelta
from typing import ClassVar

from app.registry.builds.steps import BuildView
from app.words import StepName
from worker import ec2
from worker.errors import StepFailed
from worker.launch_key import launch_key
from worker.remote import Endpoint, Remote, RemoteLost
from worker.steps.instance import AwaitAddress, LaunchInstance, cloud_of
from worker.steps.machine import Machine
from worker.steps.step import Output, Step, output_of
from worker.workbench import Workbench
from worker.workspace import Workspace


class Key(Output):
    """Which key it is. The key itself is never stored, but fetched each time it is needed."""

    secret: str
    secret_version: str
    fingerprint: str


class Connection(Output):
    """The host key that later connections must show again, and the login user's home folder."""

    host_key: str
    home: str


class FetchKey(Step[Key]):
    name: ClassVar = StepName.FETCH_KEY
    deadline: ClassVar = timedelta(minutes=10)
    output: ClassVar = Key

    def act(self, build: BuildView, work: Workbench) -> Key:
        found = launch_key(work, cloud_of(build, work))
        return Key(
            secret=work.settings.ssh_key_secret,
            secret_version=found.version,
            fingerprint=found.key.fingerprint,
        )


class ValidateConnection(Step[Connection]):
    """Make the first connection: check the instance's host key, and that commands and file transfers work.

    An instance of the release before made its own host key, which is remembered here.
    """

    name: ClassVar = StepName.VALIDATE_CONNECTION
    deadline: ClassVar = timedelta(minutes=10)
    output: ClassVar = Connection

    def act(self, build: BuildView, work: Workbench) -> Connection:
        launched = output_of(build, LaunchInstance)
        remote = work.remote(lambda: _connect(build, work, launched.host_key))
        remote.run("true", timeout_s=30)
        return Connection(host_key=remote.host_key, home=remote.home())


def connect(build: BuildView, work: Workbench) -> Remote:
    """The connection to the build's instance. Raises RemoteLost, RemoteRefused, StepFailed."""
    return work.remote(lambda: _connect(build, work, output_of(build, ValidateConnection).host_key))


def workspace(build: BuildView, work: Workbench) -> Workspace:
    """The build's folder on its instance, to which only the worker that holds the lease can write.

    Raises RemoteLost, RemoteRefused, StepFailed.
    """
    folder = Machine(output_of(build, ValidateConnection).home).build(build.id)
    return Workspace(connect(build, work), folder.path, build.lease.epoch)


def _connect(build: BuildView, work: Workbench, host_key: str | None) -> Remote:
    settings = work.settings
    try:
        key = launch_key(work, cloud_of(build, work)).key
    except StepFailed as exc:
        # An earlier step could fetch the key, so it may come back. Waiting for it saves the instance.
        raise RemoteLost(exc.message) from exc
    address = output_of(build, AwaitAddress).address
    try:
        return Remote(Endpoint(address, settings.ssh_port, settings.ssh_user, host_key), key)
    except RemoteLost:
        # Another try makes sense only while the instance is alive.
        ec2.require_alive(work, cloud_of(build, work), output_of(build, LaunchInstance).instance_id)
        raise
