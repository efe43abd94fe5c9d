"""One simulated machine: a home folder, an SSH server on its own address, and the processes in it."""

import asyncio
import contextlib
import functools
import logging
import os
import shlex
import socket
import stat
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncssh

from local.simcloud import processes, shutdown, ssh
from local.simcloud.settings import Settings

logger = logging.getLogger("simcloud")

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ID_VARIABLE = "SIMCLOUD_INSTANCE_ID"
OWNER_VARIABLE = "SIMCLOUD_OWNER"
PASSED_ON = ("HF_HUB_OFFLINE",)


class HaltedError(Exception):
    """The machine was switched off while it booted."""


@dataclass(frozen=True)
class Launch:
    """What a machine is made from."""

    id: str
    authorized_key: str
    """The public key that may log in, as OpenSSH writes it; empty: none may."""
    user_data: str


class Machine:
    """Lives in the event loop: every coroutine and method but the properties runs there."""

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
        self.console = ""
        self.on = False
        """Its SSH server listens. False before it has booted, and from the moment it is switched off."""
        self._launch = launch
        self._settings = settings
        self._powered_off = powered_off
        self._booted_before = False
        self._halting = asyncio.Event()
        self._not_booting = asyncio.Event()
        self._not_booting.set()
        self._host_key = asyncssh.generate_private_key("ssh-ed25519")
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

    @property
    def host_key(self) -> str:
        """The public host key, as OpenSSH writes it."""
        return self._host_key.export_public_key().decode().strip()

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
        if self._settings.boot_s:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._halting.wait(), self._settings.boot_s)
        if self._halting.is_set():
            raise HaltedError
        self._open_control()
        options = ssh.options(
            host_key=self._host_key,
            authorized_key=self._launch.authorized_key,
            home=self.home,
            environment=self.environment,
            connections=self._connections,
            sessions=self._sessions,
            thawed=self._thawed.wait,
        )
        listener.setblocking(False)  # noqa: FBT003
        listener.listen(128)
        self._accepting = asyncio.create_task(self._accept(listener, options))
        self.on = True
        self._booted_before = True
        self.console += (
            f"[    0.000000] simcloud: {self.id} booted\n"
            "-----BEGIN SSH HOST KEY KEYS-----\n"
            f"{self.host_key} root@{self.id}\n"
            "-----END SSH HOST KEY KEYS-----\n"
        )
        if first and self._launch.user_data:
            self._spawn(self._run_user_data())

    async def halt(self) -> int:
        """Switch off: no connection and no process is left. Returns how many processes it killed."""
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
        # Whatever a session started while the first ones were killed; none can start any more.
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
        """Hang: connections stay up and nothing comes; new ones get no greeting."""
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
        """Cut every SSH connection; what runs goes on. Returns how many there were."""
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
        # One that was accepted as the freeze began.
        await self._thawed.wait()
        with contextlib.suppress(OSError, asyncssh.Error, asyncio.TimeoutError):
            await asyncssh.run_server(accepted, options=options)

    def _spawn(self, coroutine: Any) -> None:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run_user_data(self) -> None:
        """Run a script in the user data as cloud-init does: once, at the first boot, output into a log."""
        script = self._launch.user_data
        log = self.home / "cloud-init-output.log"
        if not script.startswith("#!"):
            log.write_text("Only user data that starts with #! is run here.\n", encoding="utf-8")
            logger.warning("%s ignores its user data: it does not start with #!", self.id)
            return
        path = self.folder / "user-data"
        path.write_text(script, encoding="utf-8")
        path.chmod(0o700)
        interpreter = shlex.split(script.partition("\n")[0].removeprefix("#!"))
        with log.open("wb") as output:
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
                output.write(f"The user data cannot be run: {error}\n".encode())
                return
        status = await ssh.ended(process)
        self.console += log.read_text(encoding="utf-8", errors="replace")
        if status:
            logger.warning("%s: its user data ended with status %s, see %s", self.id, status, log)

    def _make_home(self) -> None:
        """What the image holds."""
        training = self.home / "training"
        environment = training / "environment" / "bin"
        commands = self.home / "bin"
        for folder in (environment, commands):
            folder.mkdir(parents=True)
        python = environment / "python"
        # A link would lose the virtual environment: Python looks for it beside the name it was called by.
        python.write_text(f'#!/bin/sh\nexec {shlex.quote(self._settings.python)} "$@"\n', encoding="utf-8")
        python.chmod(0o755)
        control = self.folder / "control"
        os.mkfifo(control)
        shutdown.install(commands, control)
        # The repository that is cloned may be another user's.
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
            raise OSError(f"{path} is no pipe")
        # Open for writing too: a pipe without writers would be readable all the time.
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
                logger.warning("%s: not understood on its control pipe: %r", self.id, line)
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
