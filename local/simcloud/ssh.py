"""What an instance offers over SSH: programs with their input, output and exit status, and files by SFTP."""

import asyncio
import contextlib
import errno
import os
import posixpath
import signal
import subprocess
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import asyncssh

CHUNK = 1 << 16
SHELL = "/bin/bash" if Path("/bin/bash").exists() else "/bin/sh"


class Files(asyncssh.SFTPServer):
    """SFTP over the machine's files. Relative paths start at the home, absolute ones are the computer's."""

    def __init__(self, channel: Any, home: Path, disk_full: Callable[[], bool]) -> None:
        self._home = os.fsencode(home)
        self._disk_full = disk_full
        super().__init__(channel)

    def write(self, file_obj: object, offset: int, data: bytes) -> Any:
        if self._disk_full():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(file_obj, offset, data)

    def map_path(self, path: bytes) -> bytes:
        if path in (b"~", b"~/"):
            return self._home
        return posixpath.join(self._home, path.removeprefix(b"~/"))

    def exit(self) -> None:
        """Report success as a program would, because scp takes a session without a status for a failure."""
        with contextlib.suppress(OSError):
            self.channel.exit(0)


async def ended(process: subprocess.Popen[bytes]) -> int:
    """Wait for the process without a thread; returns what `Popen.wait` does."""
    loop = asyncio.get_running_loop()
    done = asyncio.Event()
    descriptor = os.pidfd_open(process.pid)
    try:
        loop.add_reader(descriptor, done.set)
        await done.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
    return process.wait()


class Session:
    """One program that an SSH client runs on a machine."""

    def __init__(
        self,
        channel: Any,
        home: Path,
        environment: Mapping[str, str],
        thawed: Callable[[], Awaitable[object]],
        disk_full: Callable[[], bool],
    ) -> None:
        self._channel = channel
        self._home = home
        self._environment = environment
        self._thawed = thawed
        self._disk_full = disk_full

    async def run(self) -> None:
        command = self._channel.command
        user = self._channel.get_extra_info("username") or "ubuntu"
        # Whoever writes to a full disk gets an error; by default Linux would kill the program.
        first = "trap '' XFSZ; ulimit -S -f 0" if self._disk_full() else "trap '' XFSZ"
        # As bash does for whoever logs in by SSH.
        first += "\n[ ! -e ~/.bashrc ] || . ~/.bashrc"
        process = subprocess.Popen(
            [SHELL, "-c", f"{first}\n{command}"] if command else [SHELL],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=self._home,
            env={**self._environment, "USER": user, "LOGNAME": user},
            start_new_session=True,
        )
        feeding = asyncio.create_task(self._feed(process))
        try:
            # As with sshd, the session lasts as long as anything holds its output open: a program in the
            # background that was not redirected keeps the caller waiting.
            await asyncio.gather(
                self._pump(process.stdout, self._channel.stdout),
                self._pump(process.stderr, self._channel.stderr),
            )
            status = await ended(process)
        finally:
            feeding.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await feeding
            if process.poll() is None:
                process.kill()
                process.wait()
        await self._thawed()
        with contextlib.suppress(OSError):
            if status < 0:
                self._channel.exit_with_signal(signal.Signals(-status).name.removeprefix("SIG"))
            else:
                self._channel.exit(status)

    async def _pump(self, pipe: Any, writer: Any) -> None:
        """Copy a program's output to the client. When the client is gone, let the pipe break as sshd does."""
        reader = asyncio.StreamReader(limit=CHUNK)
        loop = asyncio.get_running_loop()
        transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
        try:
            while data := await reader.read(CHUNK):
                await self._thawed()
                if self._disk_full():
                    # What Linux says of the limit that stands in for the full disk.
                    data = data.replace(os.strerror(errno.EFBIG).encode(), os.strerror(errno.ENOSPC).encode())
                writer.write(data)
                await writer.drain()
        except (OSError, asyncssh.Error):
            pass
        finally:
            transport.close()

    async def _feed(self, process: subprocess.Popen[bytes]) -> None:
        """Copy the client's input to the program, and signals that the client sends."""
        loop = asyncio.get_running_loop()
        transport, protocol = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, process.stdin)
        writer = asyncio.StreamWriter(transport, protocol, None, loop)
        try:
            while True:
                try:
                    data = await self._channel.stdin.read(CHUNK)
                except asyncssh.SignalReceived as received:
                    with contextlib.suppress(OSError, AttributeError):
                        os.killpg(process.pid, getattr(signal, f"SIG{received.signal}"))
                    continue
                except (asyncssh.BreakReceived, asyncssh.TerminalSizeChanged):
                    continue
                if not data:
                    break
                writer.write(data)
                await writer.drain()
        except (OSError, asyncssh.Error):
            pass  # the program ended, or the client left
        finally:
            transport.close()


class Server(asyncssh.SSHServer):
    """Tells the machine which connections it has."""

    def __init__(self, connections: set[Any]) -> None:
        self._connections = connections
        self._connection: Any = None

    def connection_made(self, connection: Any) -> None:
        self._connection = connection
        self._connections.add(connection)

    def connection_lost(self, error: Exception | None) -> None:
        self._connections.discard(self._connection)


def options(
    *,
    host_keys: list[asyncssh.SSHKey],
    authorized_key: str,
    home: Path,
    environment: Mapping[str, str],
    connections: set[Any],
    sessions: set["asyncio.Task[Any]"],
    thawed: Callable[[], Awaitable[object]],
    disk_full: Callable[[], bool],
) -> asyncssh.SSHServerConnectionOptions:
    """How a machine talks SSH. An empty `authorized_key`, of a launch without a key pair, lets nobody in."""

    async def run(channel: Any) -> None:
        # A lost connection forgets its sessions, but something must keep them until their programs end.
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine runs in a task
        sessions.add(task)
        try:
            await Session(channel, home, environment, thawed, disk_full).run()
        finally:
            sessions.discard(task)

    return asyncssh.SSHServerConnectionOptions(
        server_factory=lambda: Server(connections),
        server_host_keys=host_keys,
        authorized_client_keys=asyncssh.import_authorized_keys(authorized_key) if authorized_key else None,
        process_factory=run,
        sftp_factory=lambda channel: Files(channel, home, disk_full),
        allow_scp=True,
        encoding=None,
        line_editor=False,
        allow_pty=False,
        agent_forwarding=False,
        password_auth=False,
        kbdint_auth=False,
        host_based_auth=False,
        # Python pays for every byte, so the ciphers that the processor does itself come first.
        encryption_algs=["aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes128-ctr", "aes256-ctr"],
        compression_algs=["none"],
        login_timeout=30,
    )
