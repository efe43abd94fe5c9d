"""Everything on one machine: Postgres, the simulated AWS, the API and a worker."""

import fcntl
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

import httpx
from rich.console import Console

from app.db import migrate
from app.db.session import Database
from local import guard, signing
from local.postgres import EmbeddedPostgres

ROOT = Path(__file__).resolve().parents[1]
_START_S = 60.0
_STOP_S = 20.0


class StackError(Exception):
    """A part did not start, or ended by itself. The message says which one, and where its log is."""


def default_state() -> Path:
    """The folder that keeps everything between runs. git ignores it."""
    return ROOT / ".tariff-registry"


class Stack:
    """The parts, each a process of its own. `with` starts them and leaves none behind.

    Raises StackError when one does not start.
    """

    def __init__(self, state: Path, console: Console, *, port: int = 8000) -> None:
        self.state = state.resolve()
        self._console = console
        self._port = port
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._exit = ExitStack()
        self._interrupted = threading.Event()
        self._guard: subprocess.Popen[str] | None = None
        self.url = ""
        self.environment: dict[str, str] = {}

    def __enter__(self) -> Self:
        self.state.mkdir(parents=True, exist_ok=True)
        (self.state / "logs").mkdir(exist_ok=True)
        with ExitStack() as starting:
            starting.callback(self._restore_signals, self._catch_signals())
            starting.enter_context(_only_one(self.state))
            self._guard = starting.enter_context(_guarded(self.state))
            began = time.monotonic()
            postgres = EmbeddedPostgres(self.state / "postgres")
            database_url = postgres.start()
            starting.callback(postgres.stop)
            self._end_with_us(postgres.pid, signal.SIGINT)
            starting.callback(self._stop_children)
            self._say("Postgres", began)
            self._start(database_url)
            self._exit = starting.pop_all()
        return self

    def _start(self, database_url: str) -> None:
        began = time.monotonic()
        simcloud_port, ssh_port = free_port(), free_port()
        self.environment = self._environment(database_url, simcloud_port, ssh_port)
        self._spawn(
            "simcloud",
            [
                *("-m", "local.simcloud", "--port", str(simcloud_port), "--ssh-port", str(ssh_port)),
                *("--state", str(self.state / "simcloud"), "--repository", str(ROOT)),
            ],
        )
        self._await_http("simcloud", f"http://127.0.0.1:{simcloud_port}/_simcloud/health")
        self._say(f"simulated AWS at http://127.0.0.1:{simcloud_port}", began)

        began = time.monotonic()
        database = Database(database_url)
        migrate.upgrade(database)
        database.close()
        self._say("migrations", began)

        began = time.monotonic()
        port = self._port if port_is_free(self._port) else free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._spawn("api", ["-m", "app", "api", "--port", str(port)])
        # Only the worker signs, so only it gets the private key.
        self._spawn(
            "worker",
            ["-m", "worker"],
            {"REGISTRY_SIGNING_KEY": signing.kept_key(self.state / "signing-key.pem")},
        )
        self._await_http("api", f"{self.url}/readyz")
        self._say(f"API at {self.url}, and a worker", began)

    def _environment(self, database_url: str, simcloud_port: int, ssh_port: int) -> dict[str, str]:
        """The children's environment. Nothing of the caller's own AWS account is in it."""
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "REGISTRY_"))
        }
        return kept | {
            "DATABASE_URL": database_url,
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{simcloud_port}",
            "AWS_REGION": "eu-west-2",
            "AWS_ACCESS_KEY_ID": "simulated",
            "AWS_SECRET_ACCESS_KEY": secrets.token_hex(8),
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
            # Only this computer can reach the API, so nobody needs a token.
            "REGISTRY_ACCESS": "open",
            "REGISTRY_SSH_PORT": str(ssh_port),
            "REGISTRY_CODE_REPOSITORY": str(ROOT),
            "HF_HUB_OFFLINE": "1",
            "PYTHONUNBUFFERED": "1",
        }

    def _spawn(self, name: str, arguments: list[str], environment: Mapping[str, str] | None = None) -> None:
        with self._log(name).open("ab") as log:
            child = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=ROOT,
                env={**self.environment, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Ctrl-C reaches only this process, which stops the parts in their order.
                start_new_session=True,
            )
        self._children[name] = child
        self._end_with_us(child.pid, signal.SIGTERM)

    def _end_with_us(self, pid: int, ask: signal.Signals) -> None:
        """Have the guard end the process if this one is killed."""
        assert self._guard is not None and self._guard.stdin is not None  # noqa: S101, PT018 - since __enter__
        self._guard.stdin.write(f"{pid} {int(ask)}\n")
        self._guard.stdin.flush()

    def _await_http(self, name: str, url: str) -> None:
        ends = time.monotonic() + _START_S
        while True:
            self.check()
            try:
                answer = httpx.get(url, timeout=5)
                if answer.is_success:
                    return
                reason = answer.text
            except httpx.HTTPError as exc:
                reason = str(exc)
            if time.monotonic() > ends:
                message = (
                    f"{name} did not start within {_START_S:.0f} s ({reason}). Its log is {self._log(name)}."
                )
                raise StackError(message)
            time.sleep(0.1)

    def check(self) -> None:
        """Raises StackError when a part has ended by itself, KeyboardInterrupt after Ctrl-C."""
        if self._interrupted.is_set():
            raise KeyboardInterrupt
        for name, child in self._children.items():
            if (status := child.poll()) is not None:
                tail = self._log(name).read_text(errors="replace").splitlines()[-15:]
                message = f"{name} ended with status {status}. The end of its log, {self._log(name)}:"
                raise StackError("\n".join([message, *tail]))

    def wait(self) -> None:
        """Wait for Ctrl-C or SIGTERM. Raises StackError when a part ends by itself."""
        try:
            while not self._interrupted.wait(0.5):
                self.check()
        except KeyboardInterrupt:
            pass
        self._console.print("Stopping …")

    def _stop_children(self) -> None:
        # The worker first: it hands its builds over while the database and the cloud still answer.
        for name in ("worker", "api", "simcloud"):
            child = self._children.get(name)
            if child is None or child.poll() is not None:
                continue
            child.terminate()
            try:
                child.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()

    def _catch_signals(self) -> dict[signal.Signals, object]:
        """Ctrl-C and SIGTERM end the stack in order. A second Ctrl-C does not interrupt this."""

        def on_signal(_number: int, _frame: FrameType | None) -> None:
            if not self._interrupted.is_set():
                self._interrupted.set()
                raise KeyboardInterrupt

        return {of: signal.signal(of, on_signal) for of in (signal.SIGINT, signal.SIGTERM)}

    def _restore_signals(self, handlers: dict[signal.Signals, object]) -> None:
        for of, handler in handlers.items():
            signal.signal(of, handler)  # type: ignore[arg-type]

    def _log(self, name: str) -> Path:
        return self.state / "logs" / f"{name}.log"

    def _say(self, what: str, began: float) -> None:
        self._console.print(f"  [green]✓[/] {what} [dim]{time.monotonic() - began:.1f} s[/]", highlight=False)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._interrupted.set()
        self._exit.close()


@contextmanager
def _only_one(state: Path) -> Iterator[None]:
    """Hold the folder's lock, because two stacks over one folder would share a database.

    Raises StackError.
    """
    with (state / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            message = f"Another run uses {state}. Stop it, or give --state another folder."
            raise StackError(message) from None
        yield


@contextmanager
def _guarded(state: Path) -> Iterator["subprocess.Popen[str]"]:
    """A process that outlives this one and ends the parts, should this one be killed."""
    # The folder is only there to tell people, in a list of processes, what is guarded.
    command = [sys.executable, "-I", "-S", guard.__file__, str(state)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, cwd="/", env={}, start_new_session=True, text=True
    ) as process:
        yield process


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def port_is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
