"""What moto's EC2 does not do: client tokens, instances that take time to start and end, and machines."""

import base64
import json
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest import mock

from moto import settings as moto_settings
from moto.core.responses import ActionResult
from moto.core.types import Base64EncodedString
from moto.ec2 import utils as ec2_utils
from moto.ec2.exceptions import EC2ClientError, InvalidInstanceTypeError
from moto.ec2.models import EC2Backend, ec2_backends
from moto.ec2.models.instance_types import INSTANCE_TYPES
from moto.ec2.models.instances import Instance, InstanceState, StateReason
from moto.ec2.responses._base_response import EC2BaseResponse
from moto.ec2.responses.instances import InstanceResponse

from local.simcloud.hypervisor import Hypervisor, NoAddressError
from local.simcloud.machine import Launch, Machine
from local.simcloud.settings import ACCOUNT

logger = logging.getLogger("simcloud")

USER_DATA_LIMIT = 16 * 1024
"""In bytes, before it is encoded."""

PENDING, RUNNING, SHUTTING_DOWN, TERMINATED, STOPPING, STOPPED = 0, 16, 32, 48, 64, 80
NAMES = {
    PENDING: "pending",
    RUNNING: "running",
    SHUTTING_DOWN: "shutting-down",
    TERMINATED: "terminated",
    STOPPING: "stopping",
    STOPPED: "stopped",
}


@dataclass(frozen=True)
class SimulatedInstance:
    """A simulated instance as it is at the moment."""

    id: str
    state: str
    address: str
    ssh_port: int
    home: Path
    region: str
    image_id: str
    key_name: str | None
    launched_at: datetime
    tags: dict[str, str]
    frozen: bool
    disk_full: bool


class Compute:
    """Puts machines behind moto's instances. One in each process, because moto's backends are global."""

    def __init__(self, hypervisor: Hypervisor) -> None:
        self._hypervisor = hypervisor
        self._lock = threading.RLock()
        self._tokens: dict[tuple[str, str], tuple[str, Any]] = {}
        self._private_addresses: dict[str, str] = {}

    def install(self, patches: ExitStack) -> None:
        """Change moto's classes, until the stack is closed."""

        def patch(owner: Any, name: str, value: Any) -> None:
            patches.enter_context(mock.patch.object(owner, name, value))

        for setting in ("AMI_VALIDATION", "KEYPAIR_VALIDATION"):
            patch(moto_settings, f"ENABLE_{setting}", True)  # noqa: FBT003
        patch(moto_settings, "EC2_ENABLE_INSTANCE_TYPE_VALIDATION", True)  # noqa: FBT003
        filters = {"client-token": "client_token", "instance-lifecycle": "lifecycle"}
        patch(
            ec2_utils, "filter_dict_attribute_mapping", {**ec2_utils.filter_dict_attribute_mapping, **filters}
        )
        answer, run = InstanceResponse.run_instances, EC2Backend.run_instances
        patch(InstanceResponse, "run_instances", lambda response: self._answer_run(response, answer))
        patch(EC2Backend, "run_instances", lambda *a, **k: self._run(run, *a, **k))
        terminate, stop, reboot = Instance.terminate, Instance.stop, Instance.reboot
        patch(Instance, "terminate", lambda instance: self._terminate(instance, terminate))
        patch(Instance, "stop", lambda instance: self._stop(instance, stop))
        patch(Instance, "start", _refuse_start)
        patch(Instance, "reboot", lambda instance: self._reboot(instance, reboot))
        # moto writes "pending" whatever the state is; after a repeated call it may be another.
        transformers = dict(EC2BaseResponse.RESPONSE_KEY_PATH_TO_TRANSFORMER)
        del transformers["RunInstances.Reservation.Instances.Instance.State"]
        patch(EC2BaseResponse, "RESPONSE_KEY_PATH_TO_TRANSFORMER", transformers)

    def reset(self) -> None:
        with self._lock:
            self._tokens.clear()
            self._private_addresses.clear()

    def instances(self, *, ended: bool = False) -> list[SimulatedInstance]:
        """The instances of every region, oldest first, with `ended` also those that are gone or going."""
        found = []
        for instance in _all():
            machine = self._hypervisor.find(instance.id)
            if instance.state_code in (SHUTTING_DOWN, TERMINATED) and not ended:
                continue
            found.append(
                SimulatedInstance(
                    id=instance.id,
                    state=instance.state,
                    address=machine.address if machine else "",
                    ssh_port=self._hypervisor.ssh_port,
                    home=machine.home if machine else Path(),
                    region=instance.region_name,
                    image_id=instance.image_id,
                    key_name=instance.key_name,
                    launched_at=instance.launch_time.replace(tzinfo=UTC),
                    tags={tag["key"]: tag["value"] for tag in instance.get_tags()},
                    frozen=machine.frozen if machine else False,
                    disk_full=machine.disk_full if machine else False,
                )
            )
        return sorted(found, key=lambda each: each.launched_at)

    def kill(self, instance_id: str, code: str, message: str) -> None:
        """End an instance as AWS would. It is gone when this returns. Raises KeyError."""
        instance = _find(instance_id)
        instance.terminate()
        instance.state_reason = StateReason(message, code)
        deadline = time.monotonic() + 20
        while instance.state_code != TERMINATED:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{instance_id} does not end.")
            time.sleep(0.005)

    def reboot(self, instance_id: str) -> None:
        """Reboot an instance. It runs again when this returns. Raises KeyError."""
        instance = _find(instance_id)
        instance.reboot()
        deadline = time.monotonic() + 20
        while instance.state_code == RUNNING and not self._is_on(instance_id):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{instance_id} does not boot again.")
            time.sleep(0.005)

    def _is_on(self, instance_id: str) -> bool:
        machine = self._hypervisor.find(instance_id)
        return machine is not None and machine.on

    def powered_off(self, machine: Machine, action: str) -> None:
        """An instance shut itself down. Called in the hypervisor's thread, which must not wait for itself."""
        threading.Thread(target=self._power_off, args=(machine.id, action), daemon=True).start()

    def _power_off(self, instance_id: str, action: str) -> None:
        try:
            instance = _find(instance_id)
        except KeyError:
            return
        if action == "reboot":
            instance.reboot()
            return
        behavior = instance.instance_initiated_shutdown_behavior
        logger.info("%s shut itself down, which means: %s", instance_id, behavior)
        if behavior == "terminate":
            instance.terminate()
        else:
            instance.stop()
        code = "Client.InstanceInitiatedShutdown"
        instance.state_reason = StateReason(f"{code}: Instance initiated shutdown", code)

    def _answer_run(self, response: Any, original: Callable[[Any], Any]) -> Any:
        """RunInstances: the same token again gives the instances of the first call."""
        if len(base64.b64decode(response._get_param("UserData") or "")) > USER_DATA_LIMIT:  # noqa: SLF001
            message = f"User data is limited to {USER_DATA_LIMIT} bytes"
            raise EC2ClientError("InvalidParameterValue", message)
        token = response._get_param("ClientToken")  # noqa: SLF001
        if not token:
            return original(response)
        if len(token) > 64:
            raise EC2ClientError(
                "InvalidParameterValue", "The ClientToken is longer than 64 ASCII characters."
            )
        asked = {
            name: value for name, value in response.params.items() if name not in ("ClientToken", "DryRun")
        }
        request = json.dumps(asked, sort_keys=True, default=str)
        key = (response.region, token)
        # Held while the instance is made, so that two calls at the same moment do not make two instances.
        with self._lock:
            if known := self._tokens.get(key):
                if known[0] != request:
                    raise EC2ClientError(
                        "IdempotentParameterMismatch",
                        f"The client token {token} was used before, with other parameters.",
                    )
                return ActionResult(known[1])
            result = original(response)
            self._tokens[key] = (request, result.result)
            return result

    def _run(self, original: Callable[..., Any], backend: Any, *args: Any, **kwargs: Any) -> Any:
        """Make the instances as moto does, in the state `pending`, and start a machine for each."""
        if kwargs.get("client_token") == "ABCDE":  # what moto puts where there is none
            kwargs["client_token"] = None
        with self._lock:
            try:
                reservation = original(backend, *args, **kwargs)
            except Exception as error:
                # moto registers the reservation before it has checked everything.
                for empty in [key for key, each in backend.reservations.items() if not each.instances]:
                    del backend.reservations[empty]
                if isinstance(error, InvalidInstanceTypeError):
                    raise _wrong_type(kwargs.get("instance_type", "")) from error
                raise
            for instance in reservation.instances:
                instance._state = InstanceState(NAMES[PENDING], PENDING)  # noqa: SLF001
                instance.instance_lifecycle = instance.lifecycle
                self._launch(backend, instance)
        return reservation

    def _launch(self, backend: Any, instance: Any) -> None:
        key_pair = backend.key_pairs.get(instance.key_name)
        data = instance.user_data
        launch = Launch(
            id=instance.id,
            authorized_key=key_pair.public_key if key_pair else "",
            user_data=data.decode() if isinstance(data, Base64EncodedString) else data or "",
        )
        try:
            machine = self._hypervisor.launch(launch, self._running(instance), self._failed(instance))
        except NoAddressError as error:
            instance.terminate()
            raise EC2ClientError("InsufficientFreeAddressesInSubnet", str(error)) from error
        self._private_addresses[instance.id] = instance.private_ip
        _set_address(instance, machine.address, machine.address)
        logger.info("%s is launched from %s in %s", instance.id, instance.image_id, instance.region_name)

    def _running(self, instance: Any) -> Callable[[Machine], None]:
        def running(_: Machine) -> None:
            with self._lock:
                if instance.state_code == PENDING:
                    _set_state(instance, RUNNING)

        return running

    def _failed(self, instance: Any) -> Callable[[Machine, str], None]:
        def failed(_: Machine, message: str) -> None:
            def end() -> None:
                instance.terminate()
                code = "Server.InternalError"
                instance.state_reason = StateReason(f"{code}: {message}", code)

            threading.Thread(target=end, daemon=True).start()

        return failed

    def _terminate(self, instance: Any, original: Callable[[Any], Any]) -> Any:
        with self._lock:
            previous = InstanceState(instance.state, instance.state_code)
            if instance.state_code in (SHUTTING_DOWN, TERMINATED):
                return previous
            # moto gives addresses back to the subnet by their value.
            _set_address(instance, self._private_addresses.pop(instance.id, instance.private_ip), None)
            original(instance)
            if self._hypervisor.find(instance.id) is None:
                return previous
            _set_state(instance, SHUTTING_DOWN)

        def gone(_: Machine) -> None:
            _set_state(instance, TERMINATED)

        self._hypervisor.destroy(instance.id, gone)
        return previous

    def _stop(self, instance: Any, original: Callable[[Any], Any]) -> Any:
        with self._lock:
            previous = InstanceState(instance.state, instance.state_code)
            if instance.state_code in (STOPPING, STOPPED):
                return previous
            if instance.state_code not in (PENDING, RUNNING):
                raise _incorrect_state(instance, "stopped")
            machine = self._hypervisor.find(instance.id)
            original(instance)
            if machine is None:
                return previous
            _set_state(instance, STOPPING)

        def halted(_: Machine) -> None:
            with self._lock:
                if instance.state_code == STOPPING:
                    _set_state(instance, STOPPED)

        self._hypervisor.halt(machine, halted)
        return previous

    def _reboot(self, instance: Any, original: Callable[[Any], Any]) -> None:
        with self._lock:
            machine = self._hypervisor.find(instance.id)
            if instance.state_code != RUNNING or machine is None:
                raise _incorrect_state(instance, "rebooted")
            original(instance)
        rebooted: Future[None] = Future()

        def halted(_: Machine) -> None:
            rebooted.set_result(None)

        self._hypervisor.halt(machine, halted)
        rebooted.result(20)
        self._hypervisor.boot(machine, self._running(instance), self._failed(instance))


def _all() -> list[Any]:
    return [
        instance
        for backend in list(ec2_backends[ACCOUNT].values())
        for reservation in list(backend.reservations.values())
        for instance in list(reservation.instances)
    ]


def _find(instance_id: str) -> Any:
    for instance in _all():
        if instance.id == instance_id:
            return instance
    raise KeyError(instance_id)


def _set_state(instance: Any, code: int) -> None:
    instance._state = InstanceState(NAMES[code], code)  # noqa: SLF001


def _set_address(instance: Any, private: str | None, public: str | None) -> None:
    interface = instance.nics[0]
    interface.private_ip_address = private
    interface.private_ip_addresses[0]["PrivateIpAddress"] = private
    interface.public_ip = public


def _wrong_type(name: str) -> EC2ClientError:
    """AWS has one error for a type that does not exist, and one for a type that the region does not offer."""
    if name not in INSTANCE_TYPES:
        return EC2ClientError("InvalidParameterValue", f"Invalid value '{name}' for InstanceType.")
    return EC2ClientError("Unsupported", f"The instance type {name} is not supported in this region.")


def _incorrect_state(instance: Any, verb: str) -> EC2ClientError:
    message = f"The instance '{instance.id}' is {instance.state}, so it cannot be {verb}."
    return EC2ClientError("IncorrectInstanceState", message)


def _refuse_start(instance: Any) -> None:
    message = f"The simulated EC2 cannot start {instance.id} again. Launch another instance."
    raise EC2ClientError("UnsupportedOperation", message)
