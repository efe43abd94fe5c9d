"""One simulated machine: a home folder, an SSH server on its own address, and its processes."""

import asyncio
import contextlib
import functools
import logging
import os
import resource
import shlex
import socket
import stat
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncssh

from local.simcloud import cloudinit, processes, shutdown, ssh
from local.simcloud.settings import Settings

logger = logging.getLogger("simcloud")

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ID_VARIABLE = "SIMCLOUD_INSTANCE_ID"
OWNER_VARIABLE = "SIMCLOUD_OWNER"
PASSED_ON = ("HF_HUB_OFFLINE",)

_CAT = """\
#!/bin/sh
# The kernel's boot id is the computer's. Each simulated instance has its own, which changes at each boot.
[ "$*" = /proc/sys/kernel/random/boot_id ] && exec /bin/cat '{boot_id}'
exec /bin/cat "$@"
"""


class HaltedError(Exception):
    """The machine was switched off while it booted."""


@dataclass(frozen=True)
class Launch:
    """What a machine is made from."""

    id: str
    authorized_key: str
    """The public key that may log in, as OpenSSH writes it. Empty: nobody may log in."""
    user_data: str


class Machine:
    """Lives in the event loop: every method except the properties must be called there."""

    def __init__(
        self,
        launch: Launch,
        address: str,
        port: int,
        state: Path,
        settings: Settings,
        powered_off: Callable[["Machine", str], None],
    ) -> None:
        self.id = launch.id
        self.address = address
        self.port = port
        self.folder = state / "instances" / launch.id
        self.home = self.folder / "home"
        self.on = False
        """Its SSH server listens: from the end of a boot until the machine is switched off."""
        self.disk_full = False
        self._launch = launch
        self._settings = settings
        self._powered_off = powered_off
        self._booted_before = False
        self._halting = asyncio.Event()
        self._not_booting = asyncio.Event()
        self._not_booting.set()
        self._user_data = cloudinit.parse(launch.user_data)
        self._host_keys = self._make_host_keys()
        self._listener: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._connections: set[Any] = set()
        self._sessions: set[asyncio.Task[Any]] = set()
        self._thawed = asyncio.Event()
        self._thawed.set()
        self._timer: asyncio.TimerHandle | None = None
        self._control: int | None = None
        self.environment = {
            **settings.session_environment,
            **{name: os.environ[name] for name in PASSED_ON if name in os.environ},
            "PATH": f"{self.home}/bin:{SYSTEM_PATH}",
            "HOME": str(self.home),
            "USER": settings.login_user,
            "LOGNAME": settings.login_user,
            "SHELL": ssh.SHELL,
            "LANG": "C.UTF-8",
            ID_VARIABLE: launch.id,
            OWNER_VARIABLE: str(state),
        }

    @property
    def mark(self) -> str:
        """What the environment of every process on this machine holds."""
        return f"{ID_VARIABLE}={self.id}"

    async def boot(self, listener: socket.socket, *, refuse: str | None = None) -> None:
        """Make the home at the first boot, then listen on the bound socket; or fail for the reason `refuse`.

        Raises OSError, CalledProcessError, HaltedError.
        """
        if refuse is not None:
            raise OSError(refuse)
        self._halting.clear()
        self._not_booting.clear()
        try:
            await self._boot(listener)
        finally:
            self._not_booting.set()

    async def _boot(self, listener: socket.socket) -> None:
        self._listener = listener
        loop = asyncio.get_running_loop()
        first = not self._booted_before
        if first:
            await loop.run_in_executor(None, self._make_home)
        if self._halting.is_set():
            raise HaltedError
        (self.folder / "boot-id").write_text(f"{uuid4()}\n", encoding="utf-8")
        self._open_control()
        options = ssh.options(
            host_keys=self._host_keys,
            authorized_key=self._launch.authorized_key,
            home=self.home,
            environment=self.environment,
            connections=self._connections,
            sessions=self._sessions,
            thawed=self._thawed.wait,
            disk_full=lambda: self.disk_full,
        )
        listener.setblocking(False)  # noqa: FBT003
        listener.listen(128)
        self._accepting = asyncio.create_task(self._accept(listener, options))
        self.on = True
        self._booted_before = True
        scripts = [*self._user_data.every_boot, *(self._user_data.first_boot if first else ())]
        self._spawn(self._run_scripts(scripts))

    async def halt(self) -> int:
        """Switch off: neither a connection nor a process is left. Returns how many processes were killed."""
        self.on = False
        self._halting.set()
        loop = asyncio.get_running_loop()
        killed = await loop.run_in_executor(None, processes.end, self.mark)
        await self._not_booting.wait()
        self._cancel_shutdown()
        if self._accepting is not None:
            self._accepting.cancel()
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        self._close_control()
        self.drop()
        # Whoever waits for the thaw must wake up to end.
        self._thawed.set()
        # Sessions may have started more while the first ones were killed. No session can start any more.
        killed += await loop.run_in_executor(None, processes.end, self.mark)
        if self._sessions:
            # Their programs are gone, so they end by themselves.
            await asyncio.wait(list(self._sessions), timeout=2)
        tasks = [task for task in (*self._tasks, *self._sessions, self._accepting) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._accepting = None
        return killed

    def freeze(self) -> None:
        """Hang: connections stay up but nothing comes, and new ones get no greeting."""
        self._thawed.clear()
        for connection in self._connections:
            if transport := _transport(connection):
                transport.pause_reading()

    def thaw(self) -> None:
        self._thawed.set()
        for connection in self._connections:
            if transport := _transport(connection):
                transport.resume_reading()

    @property
    def frozen(self) -> bool:
        return not self._thawed.is_set()

    def drop(self) -> int:
        """Cut every SSH connection. What runs goes on. Returns how many connections there were."""
        connections = list(self._connections)
        for connection in connections:
            connection.abort()
        return len(connections)

    async def _accept(self, listener: socket.socket, options: asyncssh.SSHServerConnectionOptions) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._thawed.wait()
            accepted, _ = await loop.sock_accept(listener)
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._spawn(self._serve(accepted, options))

    async def _serve(self, accepted: socket.socket, options: asyncssh.SSHServerConnectionOptions) -> None:
        # This one may have been accepted just as the freeze began.
        await self._thawed.wait()
        with contextlib.suppress(OSError, asyncssh.Error, asyncio.TimeoutError):
            await asyncssh.run_server(accepted, options=options)

    def _spawn(self, coroutine: Any) -> None:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def fill_disk(self) -> None:
        """From now on, nothing can be written to a file; to read, and to write to a pipe, still works."""
        self.disk_full = True
        self._limit_files()

    def free_disk(self) -> None:
        """End `fill_disk`."""
        self.disk_full = False
        self._limit_files()

    def _limit_files(self) -> None:
        """Set for every process on the machine how large a file it may write."""
        limited: set[int] = set()
        # Again until there is no new one: a process may be started while the others are limited.
        while new := processes.carrying(self.mark) - limited:
            for pid in new:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    _, most = resource.prlimit(pid, resource.RLIMIT_FSIZE)
                    resource.prlimit(pid, resource.RLIMIT_FSIZE, (0 if self.disk_full else most, most))
            limited |= new

    def _make_host_keys(self) -> list[asyncssh.SSHKey]:
        keys = []
        for text in self._user_data.host_keys:
            try:
                keys.append(asyncssh.import_private_key(text))
            except asyncssh.KeyImportError as error:
                logger.warning("%s: a host key of its user data cannot be read: %s", self.id, error)
        return keys or [asyncssh.generate_private_key("ssh-ed25519")]

    async def _run_scripts(self, scripts: list[str]) -> None:
        """Run what the user data asks for, one after the other, as cloud-init does. A log gets the output."""
        log = self.home / "cloud-init-output.log"
        with log.open("ab") as output:
            for message in self._user_data.ignored:
                logger.warning("%s: %s", self.id, message)
                output.write(f"{message}\n".encode())
        for number, script in enumerate(scripts):
            path = self.folder / f"user-data-{number}"
            path.write_text(script, encoding="utf-8")
            path.chmod(0o700)
            interpreter = shlex.split(script.partition("\n")[0].removeprefix("#!"))
            with log.open("ab") as output:
                try:
                    process = subprocess.Popen(
                        [*interpreter, str(path)],
                        stdin=subprocess.DEVNULL,
                        stdout=output,
                        stderr=subprocess.STDOUT,
                        cwd=self.home,
                        env=self.environment,
                        start_new_session=True,
                    )
                except OSError as error:
                    output.write(f"The script cannot be run: {error}\n".encode())
                    continue
            if status := await ssh.ended(process):
                logger.warning("%s: a script of its user data ended with %s, see %s", self.id, status, log)

    def _make_home(self) -> None:
        """What the image holds."""
        training = self.home / "training"
        environment = training / "environment" / "bin"
        commands = self.home / "bin"
        for folder in (environment, commands):
            folder.mkdir(parents=True)
        python = environment / "python"
        # A link would lose the virtual environment, because Python looks for it beside the called name.
        python.write_text(f'#!/bin/sh\nexec {shlex.quote(self._settings.python)} "$@"\n', encoding="utf-8")
        python.chmod(0o755)
        control = self.folder / "control"
        os.mkfifo(control)
        shutdown.install(commands, control)
        cat = commands / "cat"
        cat.write_text(_CAT.format(boot_id=self.folder / "boot-id"), encoding="utf-8")
        cat.chmod(0o755)
        # The repository that is cloned may belong to another user.
        (self.home / ".gitconfig").write_text("[safe]\n\tdirectory = *\n", encoding="utf-8")
        clone = training / "repository"
        source = self._settings.repository
        command = (
            ["git", "clone", "--quiet", "--no-checkout", str(source), str(clone)]
            if source is not None
            else ["git", "init", "--quiet", str(clone)]
        )
        subprocess.run(command, env=self.environment, check=True, capture_output=True)

    def _open_control(self) -> None:
        path = self.folder / "control"
        if not stat.S_ISFIFO(path.stat().st_mode):
            raise OSError(f"{path} is not a pipe.")
        # Opened for writing too, because a pipe without writers is readable all the time.
        self._control = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        asyncio.get_running_loop().add_reader(self._control, self._read_control, self._control)

    def _close_control(self) -> None:
        if self._control is not None:
            asyncio.get_running_loop().remove_reader(self._control)
            os.close(self._control)
            self._control = None

    def _read_control(self, descriptor: int) -> None:
        for line in os.read(descriptor, 4096).decode(errors="replace").splitlines():
            asked = shutdown.parse(line)
            if asked is None:
                logger.warning("%s: its control pipe holds a line that means nothing: %r", self.id, line)
                continue
            self._cancel_shutdown()
            if asked.action == "cancel":
                logger.info("%s: its shutdown is cancelled", self.id)
                continue
            delay_s = asked.minutes * self._settings.shutdown_minute_s
            logger.info("%s: shuts itself down in %g s", self.id, delay_s)
            act = functools.partial(self._powered_off, self, asked.action)
            self._timer = asyncio.get_running_loop().call_later(delay_s, act)

    def _cancel_shutdown(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _transport(connection: Any) -> Any:
    # asyncssh offers no way to stop reading.
    return getattr(connection, "_transport", None)
