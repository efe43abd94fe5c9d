"""Runs commands and moves files on a build's instance over SSH. A broken connection raises RemoteLost."""

import base64
import contextlib
import errno
import io
import re
import secrets
import shlex
import socket
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import paramiko

from app.failures import FailureCode

_CONNECT_S = 15
# Keepalive alone does not notice a dead peer. The kernel's timeout for unacknowledged data does.
_DEAD_PEER_MS = 10_000
_BLOCK = 1 << 16
_OF_THIS_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO}
_OF_THE_NETWORK = {
    errno.EBADF,
    errno.EHOSTUNREACH,
    errno.ENETUNREACH,
    errno.ENETDOWN,
    errno.EPIPE,
    errno.ENOTCONN,
}


class RemoteLost(Exception):
    """There is no connection, or it broke. The command that was running may or may not have taken effect."""


class RemoteRefused(Exception):
    """The machine answered, but refused our key or showed another host key."""


class RemoteFault(Exception):
    """The machine cannot do it: a full or read-only disk, a missing permission, or an incomplete file.

    A few retries are worthwhile, but the fault will most likely remain.
    """

    def __init__(self, message: str, code: FailureCode = FailureCode.INSTANCE_FAULT) -> None:
        super().__init__(message)
        self.code = code


class CommandFailed(Exception):
    """A command ended with a status other than 0."""

    def __init__(self, command: str, status: int, output: str) -> None:
        super().__init__(f"`{command}` ended with status {status}: {output.strip()[-2000:]}")
        self.status = status
        self.output = output


class BadValue(CommandFailed):
    """A command succeeded, and did not print a value of the form that was expected."""

    def __init__(self, command: str, output: str) -> None:
        Exception.__init__(self, f"`{command}` did not print the value that it should: {output[-500:]!r}")
        self.status = 0
        self.output = output


@dataclass(frozen=True)
class Endpoint:
    """Where an instance listens, and who logs in.

    `host_key` has the form `type base64`. With None, the first host key that is seen is trusted.
    """

    address: str
    port: int
    user: str
    host_key: str | None


def load_key(pem: str) -> paramiko.PKey:
    """A private key of any kind that EC2 makes. Raises ValueError."""
    for kind in (paramiko.Ed25519Key, paramiko.RSAKey, paramiko.ECDSAKey):
        with contextlib.suppress(paramiko.SSHException, ValueError, IndexError):
            return kind.from_private_key(io.StringIO(pem))
    message = "not an unencrypted Ed25519, RSA or ECDSA private key in PEM form"
    raise ValueError(message)


class _RefuseOtherKinds(paramiko.MissingHostKeyPolicy):
    """A host key of another kind than the pinned one is another host key, and not a connection that broke."""

    def __init__(self, pinned: paramiko.PKey) -> None:
        self._pinned = pinned

    def missing_host_key(self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey) -> None:
        del client
        raise paramiko.BadHostKeyException(hostname, key, self._pinned)


class Remote:
    """One SSH connection. It must be used by one thread at a time."""

    def __init__(self, endpoint: Endpoint, key: paramiko.PKey) -> None:
        """Connects. Raises RemoteLost, RemoteRefused."""
        self.endpoint = endpoint
        self._client = paramiko.SSHClient()
        name = f"[{endpoint.address}]:{endpoint.port}" if endpoint.port != 22 else endpoint.address
        if endpoint.host_key is None:
            self._client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
        else:
            kind, _, blob = endpoint.host_key.partition(" ")
            pinned = paramiko.PKey.from_type_string(kind, base64.b64decode(blob))
            self._client.get_host_keys().add(name, kind, pinned)
            self._client.set_missing_host_key_policy(_RefuseOtherKinds(pinned))
        self._sftp: paramiko.SFTPClient | None = None
        try:
            self._client.connect(
                endpoint.address,
                endpoint.port,
                endpoint.user,
                pkey=key,
                sock=_open_socket(endpoint),
                look_for_keys=False,
                allow_agent=False,
                timeout=_CONNECT_S,
                banner_timeout=_CONNECT_S,
                auth_timeout=_CONNECT_S,
                channel_timeout=_CONNECT_S,
            )
        except (paramiko.AuthenticationException, paramiko.BadHostKeyException) as exc:
            self.close()
            raise RemoteRefused(str(exc)) from exc
        except (paramiko.SSHException, OSError, EOFError) as exc:
            self.close()
            message = f"{endpoint.address}:{endpoint.port}: {exc or type(exc).__name__}"
            raise RemoteLost(message) from exc

    @property
    def host_key(self) -> str:
        transport = self._client.get_transport()
        assert transport is not None  # noqa: S101 - connected in __init__
        key = transport.get_remote_server_key()
        return f"{key.get_name()} {key.get_base64()}"

    def run(self, command: str, *, timeout_s: float, stdin: bytes = b"") -> str:
        """The command's standard output. Raises CommandFailed, RemoteLost (also when it takes too long)."""
        ends = time.monotonic() + timeout_s
        with _lost():
            transport = self._client.get_transport()
            if transport is None or not transport.is_active():
                message = "the connection is closed"
                raise RemoteLost(message)
            channel = transport.open_session(timeout=_CONNECT_S)
            with contextlib.closing(channel):
                channel.settimeout(min(timeout_s, 5))
                channel.set_combine_stderr(combine=True)
                channel.exec_command(command)
                channel.sendall(stdin)
                channel.shutdown_write()
                found = bytearray()
                while True:
                    try:
                        block = channel.recv(_BLOCK)
                    except TimeoutError:
                        if time.monotonic() > ends:
                            message = f"`{command}` did not end within {timeout_s:.0f} s"
                            raise RemoteLost(message) from None
                        continue
                    if not block:
                        break
                    found += block
                status = channel.recv_exit_status() if channel.status_event.wait(10) else -1
        output = found.decode(errors="replace")
        if status == -1:
            message = f"`{command}`: the connection ended before its exit status came"
            raise RemoteLost(message)
        if status != 0:
            raise CommandFailed(command, status, output)
        return output

    def value(self, command: str, pattern: str, *, timeout_s: float = 60, stdin: bytes = b"") -> str:
        """What the command prints to its standard output, without the newlines at its end.

        Nothing else counts: what login scripts print, or the command prints to its standard error, is left
        out. `pattern` is a regular expression that the whole value must match.
        Raises BadValue when it does not, CommandFailed and RemoteLost.
        """
        mark = f"::registry-value:{secrets.token_hex(16)}::"
        # By itself on a line's start and end: a shell that shows its commands as it runs them shows the mark
        # too. `sh`, because the login shell may be any.
        script = f"value=$({command}\n) || exit; printf '\\n%s%s%s\\n' {mark} \"$value\" {mark}"
        try:
            printed = self.run(f"exec sh -c {shlex.quote(script)}", timeout_s=timeout_s, stdin=stdin)
        except CommandFailed as exc:
            raise CommandFailed(command, exc.status, exc.output) from exc
        found = re.findall(rf"^{mark}(.*?){mark}\r?$", printed, re.DOTALL | re.MULTILINE)
        if len(found) != 1 or not re.fullmatch(pattern, found[0]):
            raise BadValue(command, "".join(found) or printed)
        value: str = found[0]
        return value

    def put_file(self, source: Path, target: str) -> None:
        """Write a temporary file, then rename it, so that a file that exists is complete."""
        with _lost(target):
            sftp = self._open_sftp()
            beside = f"{target}.partial"
            sftp.put(str(source), beside, confirm=True)
            sftp.posix_rename(beside, target)

    def put_text(self, text: str, target: str) -> None:
        with _lost(target):
            sftp = self._open_sftp()
            beside = f"{target}.partial"
            with sftp.open(beside, "wb") as file:
                file.write(text.encode())
            sftp.posix_rename(beside, target)

    def get_file(self, source: str, target: Path, *, limit_bytes: int) -> None:
        """Raises FileNotFoundError, also for what is not a regular file, and RemoteFault for a larger one."""
        with _lost(source):
            sftp = self._open_sftp()
            found = sftp.lstat(source)
            if not stat.S_ISREG(found.st_mode or 0):
                message = f"{source} is not a regular file"
                raise FileNotFoundError(message)
            if (found.st_size or 0) > limit_bytes:
                message = (
                    f"{source} has {found.st_size:,} bytes, and no more than {limit_bytes:,} are fetched"
                )
                raise RemoteFault(message, FailureCode.INVALID_RESULT)
            sftp.get(source, str(target))

    def read(self, source: str, offset: int = 0, limit: int = 4 << 20) -> bytes | None:
        """Up to `limit` bytes from `offset` on; None when there is no such file."""
        with _lost(source):
            sftp = self._open_sftp()
            try:
                size = sftp.stat(source).st_size or 0
                if size <= offset:
                    return b""
                with sftp.open(source, "rb") as file:
                    file.seek(offset)
                    wanted = min(limit, size - offset)
                    if wanted > _BLOCK:
                        # The limit is given because prefetch would otherwise read to the end of the file.
                        file.prefetch(offset + wanted)
                    return file.read(wanted)
            except FileNotFoundError:
                return None

    def size(self, path: str) -> int | None:
        """In bytes; None when there is no such file."""
        with _lost(path):
            try:
                return self._open_sftp().stat(path).st_size
            except FileNotFoundError:
                return None

    def names(self, path: str) -> list[str]:
        """What is in a folder; nothing when there is no such folder."""
        with _lost(path):
            try:
                return self._open_sftp().listdir(path)
            except FileNotFoundError:
                return []

    def is_folder(self, path: str) -> bool:
        with _lost():
            try:
                return stat.S_ISDIR(self._open_sftp().stat(path).st_mode or 0)
            except FileNotFoundError:
                return False

    def home(self) -> str:
        with _lost():
            return self._open_sftp().normalize(".")

    def _open_sftp(self) -> paramiko.SFTPClient:
        if self._sftp is None:
            transport = self._client.get_transport()
            if transport is None or not transport.is_active():
                message = "the connection is closed"
                raise RemoteLost(message)
            try:
                self._sftp = self._client.open_sftp()
            except (paramiko.SFTPError, paramiko.SSHException) as exc:
                if not transport.is_active():
                    raise
                # The connection is fine, so it is the machine's SFTP that is not.
                message = (
                    f"SFTP does not work ({exc}), although the connection does. Does a login script of "
                    f"{self.endpoint.user} print something, or end the shell?"
                )
                raise RemoteFault(message, FailureCode.INVALID_IMAGE) from exc
            channel = self._sftp.get_channel()
            if channel is not None:
                channel.settimeout(60)
        return self._sftp

    def close(self) -> None:
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@contextlib.contextmanager
def _lost(path: str | None = None) -> Iterator[None]:
    """Raise RemoteLost for a broken connection, and RemoteFault for an error that the machine reports."""
    try:
        yield
    except FileNotFoundError:
        raise
    except (paramiko.SSHException, EOFError, ConnectionError, TimeoutError) as exc:
        raise RemoteLost(str(exc) or type(exc).__name__) from exc
    except OSError as exc:
        if exc.errno in _OF_THIS_DISK:
            # SFTP has no such error numbers, so the error comes from the worker's own disk.
            message = f"on the worker's own disk: {exc}"
            raise RemoteLost(message) from exc
        if path is None or exc.errno in _OF_THE_NETWORK:
            raise RemoteLost(str(exc) or type(exc).__name__) from exc
        # SFTP has no error of its own for a full disk. It only says "Failure".
        message = f"{path}: {exc}. Is the disk full or read-only?"
        raise RemoteFault(message) from exc


def _open_socket(endpoint: Endpoint) -> socket.socket:
    opened = socket.create_connection((endpoint.address, endpoint.port), timeout=_CONNECT_S)
    # A file is sent as many small messages. Each would wait up to 40 ms for the acknowledgement of the last.
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 5)
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5)
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 2)
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _DEAD_PEER_MS)
    return opened
