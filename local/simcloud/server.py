"""The simulated cloud as one object, in threads of the process that makes it."""

import fcntl
import logging
import os
import shutil
import socket
import subprocess
import tempfile
import threading
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar

from moto.core.base_backend import BackendDict
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import ThreadedWSGIServer

from local.simcloud.ec2 import Compute, SimulatedInstance
from local.simcloud.faults import Faults
from local.simcloud.gateway import Gateway
from local.simcloud.hypervisor import Hypervisor
from local.simcloud.machine import Machine
from local.simcloud.patches import Backends, Patches
from local.simcloud.s3 import Storage
from local.simcloud.seed import add_image, private_key, seed
from local.simcloud.settings import ACCOUNT, Settings
from local.simcloud.store import Store

logger = logging.getLogger("simcloud")

MOTO_ENVIRONMENT = {
    "MOTO_EC2_LOAD_DEFAULT_AMIS": "false",
    # Objects stay in memory until they are in the store: no temporary file for each.
    "MOTO_S3_DEFAULT_KEY_BUFFER_SIZE": str(1 << 40),
}


class SimCloudError(Exception):
    """The simulated cloud cannot start; the message says why and what to do."""


class SimCloud:
    """A simulated AWS. `with SimCloud(Settings()) as cloud:` starts it, and ends it with all that it started.

    Any number may run on a machine. In one process the last one that started is the one that answers, since
    moto's services are global: the one before is suspended until it has stopped.
    """

    _current: ClassVar["SimCloud | None"] = None

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        self.faults = Faults()
        self._patches = Patches()
        self._temporary: Path | None = None
        self._lock_file: int | None = None
        self._store: Store | None = None
        self._server: ThreadedWSGIServer | None = None
        self._thread: threading.Thread | None = None
        self._stopping = threading.Lock()
        self._started = False
        self._stopped = False
        self._outer: SimCloud | None = None
        self._aside: Backends | None = None

    # What tests and people use

    @property
    def endpoint_url(self) -> str:
        """What AWS_ENDPOINT_URL has to be."""
        return f"http://{self.settings.host}:{self.port}"

    @property
    def port(self) -> int:
        if self._server is None:
            raise RuntimeError("The simulated cloud is not running.")
        return self._server.server_port

    @property
    def ssh_port(self) -> int:
        return self._hypervisor.ssh_port

    @property
    def region(self) -> str:
        return self.settings.region

    @property
    def bucket(self) -> str:
        return self.settings.bucket

    @property
    def state(self) -> Path:
        """The folder that holds everything."""
        return self._state

    @property
    def private_key(self) -> Path:
        """The file with the private key of the seeded key pair, for `ssh -i`."""
        return self._private_key

    def environment(self) -> dict[str, str]:
        """What a process needs in its environment to use this cloud through boto3."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint_url,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_REGION": self.region,
            "AWS_ACCESS_KEY_ID": "simcloud",
            "AWS_SECRET_ACCESS_KEY": "simcloud",
        }

    def instances(self, *, ended: bool = False) -> list[SimulatedInstance]:
        """The instances, oldest first; with `ended` those that are terminated or about to be, too."""
        self._must_run()
        return self._compute.instances(ended=ended)

    def add_image(
        self,
        name: str,
        created_at: datetime,
        *,
        state: str = "available",
        owner: str = ACCOUNT,
        public: bool = False,
        tags: dict[str, str] | None = None,
        region: str | None = None,
    ) -> str:
        """Register a machine image; returns its id. An image of the same name and owner is replaced."""
        self._must_run()
        return add_image(
            region or self.region, name, created_at, state=state, owner=owner, public=public, tags=tags
        )

    def kill_instance(
        self,
        instance_id: str,
        code: str = "Server.SpotInstanceTermination",
        message: str = "Server.SpotInstanceTermination: Spot instance termination",
    ) -> None:
        """End an instance as AWS does: it is gone when this returns. Raises KeyError."""
        self._must_run()
        self._machine(instance_id)
        self._compute.kill(instance_id, code, message)

    def freeze_ssh(self, instance_id: str) -> None:
        """The instance hangs: its connections stay up and nothing more comes. Raises KeyError."""
        self._hypervisor.freeze(self._machine(instance_id))

    def thaw_ssh(self, instance_id: str) -> None:
        """End `freeze_ssh`. Raises KeyError."""
        self._hypervisor.thaw(self._machine(instance_id))

    def drop_ssh(self, instance_id: str) -> int:
        """Cut the SSH connections; what runs goes on. Returns how many there were. Raises KeyError."""
        return self._hypervisor.drop(self._machine(instance_id))

    def reset(self) -> None:
        """Back to the seeds: no instance, no object, no fault. Raises SimCloudError."""
        self._must_run()
        self.faults.clear()
        self._hypervisor.clear()
        self._compute.reset()
        if self._store is not None:
            self._store.clear()
        BackendDict.reset()
        seed(self.settings, self._private_key.read_text(encoding="utf-8"), self._public_key)

    # Its life

    def __enter__(self) -> "SimCloud":
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Raises SimCloudError."""
        if self._started:
            raise SimCloudError("This simulated cloud was started before: make another.")
        self._check_repository()
        self._started = True
        self._outer = SimCloud._current
        if self._outer is not None:
            self._outer._suspend()  # noqa: SLF001
        SimCloud._current = self
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def _must_run(self) -> None:
        if self.suspended:
            raise SimCloudError("Another simulated cloud runs in this process, or this one has stopped.")

    @property
    def suspended(self) -> bool:
        """Another simulated cloud of this process runs at the moment."""
        return SimCloud._current is not self

    def _start(self) -> None:
        self._state = self._open_state()
        for name, value in MOTO_ENVIRONMENT.items():
            self._patches.set_environment(name, value)
        if self._outer is None:
            BackendDict.reset()
        self._hypervisor = Hypervisor(self.settings, self._state, self.faults, self._powered_off)
        self._compute = Compute(self._hypervisor, self._patches)
        self._compute.install()
        folder = self._state / "s3"
        folder.mkdir(exist_ok=True)
        self._store = Store(folder)
        storage = Storage(self._store, self._patches)
        storage.install()
        gateway = Gateway(self, DomainDispatcherApplication(create_backend_app), storage)
        try:
            self._server = _Server(self.settings.host, self.settings.port, gateway)
        except OSError as error:
            raise SimCloudError(
                f"Port {self.settings.port} of {self.settings.host} cannot be had ({error.strerror}). "
                "Another simulated cloud may use it: choose another --port, 0 for any."
            ) from error
        self._hypervisor.start()
        storage.load(gateway.moto)
        self._private_key, self._public_key = private_key(self._state, self.settings.key_pair)
        seed(self.settings, self._private_key.read_text(encoding="utf-8"), self._public_key)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name="simcloud-http", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """End every instance and what runs in it; the bucket stays if a state folder was given."""
        with self._stopping:
            if self._stopped or not self._started:
                return
            self._stopped = True
        if self._server is not None:
            if self._thread is not None:
                self._server.shutdown()
                self._thread.join(10)
            self._server.server_close()
        if hasattr(self, "_hypervisor"):
            self._hypervisor.stop()
        if self._aside is None:
            BackendDict.reset()
        self._patches.undo()
        if self._store is not None:
            self._store.close()
        if self._lock_file is not None:
            os.close(self._lock_file)
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)
        self._leave()

    def _leave(self) -> None:
        """Give the process back to the cloud that ran before this one."""
        if SimCloud._current is self:
            SimCloud._current = self._outer
            if self._outer is not None:
                self._outer._resume()  # noqa: SLF001
            return
        inner = SimCloud._current
        while inner is not None and inner._outer is not self:  # noqa: SLF001
            inner = inner._outer  # noqa: SLF001
        if inner is not None:
            inner._outer = self._outer  # noqa: SLF001

    def _suspend(self) -> None:
        self._patches.undo()
        self._aside = Backends()

    def _resume(self) -> None:
        if self._aside is not None:
            self._aside.put_back()
            self._aside = None
        self._patches.redo()

    def _powered_off(self, machine: Machine, action: str) -> None:
        self._compute.powered_off(machine, action)

    def _machine(self, instance_id: str) -> Machine:
        machine = self._hypervisor.find(instance_id)
        if machine is None:
            raise KeyError(instance_id)
        return machine

    def _open_state(self) -> Path:
        if self.settings.state is None:
            self._temporary = Path(tempfile.mkdtemp(prefix="simcloud-")).resolve()
            return self._temporary
        state = self.settings.state.resolve()
        state.mkdir(parents=True, exist_ok=True)
        self._lock_file = os.open(state / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SimCloudError(
                f"Another simulated cloud uses {state}: stop it, or choose another --state."
            ) from None
        return state

    def _check_repository(self) -> None:
        source = self.settings.repository
        if source is None:
            return
        command = ["git", "-c", "safe.directory=*", "-C", str(source), "rev-parse", "--git-dir"]
        if subprocess.run(command, check=False, capture_output=True).returncode:
            raise SimCloudError(f"{source} is no git repository: instances could not have a clone of it.")


class _Handler(MotoRequestHandler):
    def log_request(self, *_: Any, **__: Any) -> None:
        """The gateway logs what matters."""

    def connection_dropped(self, error: BaseException, environ: Any = None) -> None:
        """Also when a fault asks for it: hang up instead of waiting for the next request."""
        self.close_connection = True


class _Server(ThreadedWSGIServer):
    request_queue_size = 128
    daemon_threads = True

    def __init__(self, host: str, port: int, application: Any) -> None:
        # werkzeug would end the process where the port cannot be had.
        with socket.create_server((host, port), backlog=self.request_queue_size) as listener:
            bound = listener.getsockname()[1]
            super().__init__(host, bound, application, handler=_Handler, fd=listener.fileno())
        self.server_name, self.server_port = host, bound

    def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002 - werkzeug's name
        logger.error(message, *args) if type == "error" else logger.debug(message, *args)
