"""The private key, and an SSH connection that is verified by the instance's host key."""

import secrets
import shlex
from datetime import timedelta
from typing import ClassVar

from app.failures import FailureCode
from app.registry.builds.steps import BuildView
from app.words import StepName
from worker.errors import StepFailed
from worker.machine.folders import Machine
from worker.machine.remote import CommandFailed, Endpoint, Remote, RemoteFault, RemoteLost
from worker.machine.workspace import Workspace
from worker.steps.instance import AwaitAddress, LaunchInstance, cloud_of, require_alive
from worker.steps.launch_key import launch_key
from worker.steps.step import Output, Step, output_of
from worker.workbench import Workbench


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
        home = _undisturbed_home(work, remote)
        return Connection(host_key=remote.host_key, home=home)


def _undisturbed_home(work: Workbench, remote: Remote) -> str:
    """The login user's home folder, when a command reads there what was written by SFTP.

    Raises RemoteFault, RemoteLost.
    """
    try:
        if printed := remote.run("true", timeout_s=30).strip():
            work.log(f"Login scripts print this before each command. It is left out: {printed[:200]!r}")
        home, written = remote.home(), secrets.token_hex(16)
        path = f"{home}/.connection-{written}"
        remote.put_text(written, path)
        quoted = shlex.quote(path)
        remote.value(f"cat {quoted} && rm -f {quoted}", written, timeout_s=30)
    except CommandFailed as exc:
        message = (
            f"commands and SFTP do not work together: {exc}. Does a login script of {remote.endpoint.user} "
            "end the shell, or print in the middle of what a command prints?"
        )
        raise RemoteFault(message, FailureCode.INVALID_IMAGE) from exc
    return home


def connect(build: BuildView, work: Workbench) -> Remote:
    """The connection to the build's instance. Raises RemoteLost, RemoteRefused, StepFailed."""
    return work.remote(lambda: new_connection(build, work))


def new_connection(build: BuildView, work: Workbench) -> Remote:
    """A connection of its own, for another thread. Raises what `connect` raises."""
    return _connect(build, work, output_of(build, ValidateConnection).host_key)


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
        require_alive(work, cloud_of(build, work), output_of(build, LaunchInstance).instance_id)
        raise
