"""The simulated cloud as one object, in threads of the process that makes it."""

import fcntl
import logging
import os
import shutil
import socket
import subprocess
import tempfile
import threading
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar
from unittest import mock

from moto.core.base_backend import BackendDict
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import ThreadedWSGIServer

from local.simcloud.ec2 import Compute, SimulatedInstance
from local.simcloud.faults import Faults
from local.simcloud.gateway import Gateway
from local.simcloud.hypervisor import Hypervisor
from local.simcloud.machine import Machine
from local.simcloud.s3 import Storage
from local.simcloud.seed import add_image, private_key, seed
from local.simcloud.settings import ACCOUNT, Settings
from local.simcloud.store import Store

logger = logging.getLogger("simcloud")

MOTO_ENVIRONMENT = {
    "MOTO_EC2_LOAD_DEFAULT_AMIS": "false",
    # An object stays in memory until it is in the store: moto makes no temporary file for it.
    "MOTO_S3_DEFAULT_KEY_BUFFER_SIZE": str(1 << 40),
}


class SimCloudError(Exception):
    """The simulated cloud cannot start, or does not run. The message says what to do."""


class SimCloud:
    """A simulated AWS. `with SimCloud(Settings()) as cloud:` starts it, and ends it with all that it started.

    Any number may run on a computer, but only one at a time in a process, because moto's services are global.
    """

    _running: ClassVar["SimCloud | None"] = None

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        self.faults = Faults()
        self._patches = ExitStack()
        self._temporary: Path | None = None
        self._lock_file: int | None = None
        self._store: Store | None = None
        self._server: ThreadedWSGIServer | None = None
        self._thread: threading.Thread | None = None
        self._stopping = threading.Lock()
        self._stopped = False

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
        """The instances, oldest first. With `ended`, also those that are terminated or about to be."""
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
        """Register a machine image, and return its id. An image of the same name and owner is replaced."""
        return add_image(
            region or self.region, name, created_at, state=state, owner=owner, public=public, tags=tags
        )

    def kill_instance(
        self,
        instance_id: str,
        code: str = "Server.SpotInstanceTermination",
        message: str = "Server.SpotInstanceTermination: Spot instance termination",
    ) -> None:
        """End an instance as AWS does. It is gone when this returns. Raises KeyError."""
        self._machine(instance_id)
        self._compute.kill(instance_id, code, message)

    def freeze_ssh(self, instance_id: str) -> None:
        """Let the instance hang: its connections stay up but nothing more comes. Raises KeyError."""
        self._hypervisor.freeze(self._machine(instance_id))

    def thaw_ssh(self, instance_id: str) -> None:
        """End `freeze_ssh`. Raises KeyError."""
        self._hypervisor.thaw(self._machine(instance_id))

    def drop_ssh(self, instance_id: str) -> int:
        """Cut the SSH connections. What runs goes on. Returns how many there were. Raises KeyError."""
        return self._hypervisor.drop(self._machine(instance_id))

    def reboot_instance(self, instance_id: str) -> None:
        """Reboot: every process ends, the home stays. It runs again when this returns. Raises KeyError."""
        self._machine(instance_id)
        self._compute.reboot(instance_id)

    def fill_disk(self, instance_id: str) -> None:
        """Let the instance's disk be full: whoever writes to a file gets an error. Raises KeyError."""
        self._hypervisor.fill_disk(self._machine(instance_id))

    def free_disk(self, instance_id: str) -> None:
        """End `fill_disk`. Raises KeyError."""
        self._hypervisor.free_disk(self._machine(instance_id))

    def reset(self) -> None:
        """Go back to the start: no instance, no object, no fault."""
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
        self._check_repository()
        if SimCloud._running is not None:
            raise SimCloudError("Another simulated cloud runs in this process. Stop it first.")
        SimCloud._running = self
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def _start(self) -> None:
        self._state = self._open_state()
        self._patches.enter_context(mock.patch.dict(os.environ, MOTO_ENVIRONMENT))
        BackendDict.reset()
        self._hypervisor = Hypervisor(self.settings, self._state, self.faults, self._powered_off)
        self._compute = Compute(self._hypervisor)
        self._compute.install(self._patches)
        self._store = Store(self._state / "s3")
        storage = Storage(self._store, self.settings.region)
        gateway = Gateway(self, DomainDispatcherApplication(create_backend_app), storage)
        try:
            self._server = _Server(self.settings.host, self.settings.port, gateway)
        except OSError as error:
            raise SimCloudError(
                f"The port {self.settings.port} of {self.settings.host} is not free ({error.strerror}). "
                "Another simulated cloud may use it. Choose another --port, or 0 for any free one."
            ) from error
        self._hypervisor.start()
        self._private_key, self._public_key = private_key(self._state, self.settings.key_pair)
        seed(self.settings, self._private_key.read_text(encoding="utf-8"), self._public_key)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name="simcloud-http", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """End every instance and what runs in it. The bucket stays if a state folder was given."""
        with self._stopping:
            if self._stopped or SimCloud._running is not self:
                return
            self._stopped = True
        self.faults.clear()
        if self._server is not None:
            if self._thread is not None:
                self._server.shutdown()
                self._thread.join(10)
            self._server.server_close()
        if hasattr(self, "_hypervisor"):
            self._hypervisor.stop()
        BackendDict.reset()
        self._patches.close()
        if self._lock_file is not None:
            os.close(self._lock_file)
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)
        SimCloud._running = None

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
                f"Another simulated cloud uses {state}. Stop it, or choose another --state."
            ) from None
        return state

    def _check_repository(self) -> None:
        source = self.settings.repository
        if source is None:
            return
        command = ["git", "-c", "safe.directory=*", "-C", str(source), "rev-parse", "--git-dir"]
        if subprocess.run(command, check=False, capture_output=True).returncode:
            raise SimCloudError(f"{source} is not a git repository, so instances cannot get a clone of it.")


class _Handler(MotoRequestHandler):
    def log_request(self, *_: Any, **__: Any) -> None:
        """Nothing: the gateway logs what matters."""

    def connection_dropped(self, error: BaseException, environ: Any = None) -> None:
        """Hang up instead of waiting for the next request. A fault may ask for this."""
        self.close_connection = True


class _Server(ThreadedWSGIServer):
    request_queue_size = 128
    daemon_threads = True

    def __init__(self, host: str, port: int, application: Any) -> None:
        # werkzeug would end the process if the port is not free.
        with socket.create_server((host, port), backlog=self.request_queue_size) as listener:
            bound = listener.getsockname()[1]
            super().__init__(host, bound, application, handler=_Handler, fd=listener.fileno())
        self.server_name, self.server_port = host, bound

    def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002 - werkzeug's name
        logger.error(message, *args) if type == "error" else logger.debug(message, *args)
