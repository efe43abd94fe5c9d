"""Runs the simulated machines: their event loop in a thread, their addresses, and how they end."""

import asyncio
import concurrent.futures
import logging
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from local.simcloud import processes
from local.simcloud.faults import Call, Faults
from local.simcloud.machine import OWNER_VARIABLE, HaltedError, Launch, Machine
from local.simcloud.settings import Settings

logger = logging.getLogger("simcloud")

T = TypeVar("T")


class NoAddressError(Exception):
    """On every address of the prefix, the SSH port is taken by a machine or by another program."""


class Hypervisor:
    """Owns every machine of one simulated cloud. Call its methods from any thread except its own."""

    def __init__(
        self,
        settings: Settings,
        state: Path,
        faults: Faults,
        powered_off: Callable[[Machine, str], None],
    ) -> None:
        self._settings = settings
        self._state = state
        self._faults = faults
        self._powered_off = powered_off
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="simcloud-machines", daemon=True)
        self._lock = threading.Lock()
        self._machines: dict[str, Machine] = {}
        self._addresses: dict[str, str] = {}
        self._endings: set[concurrent.futures.Future[None]] = set()
        self._next = 0
        self._guard: subprocess.Popen[bytes] | None = None
        self._port_holder = socket.socket()
        self.ssh_port = 0

    @property
    def mark(self) -> str:
        return f"{OWNER_VARIABLE}={self._state}"

    def start(self) -> None:
        """End what an earlier run with the same state left behind, then be ready for machines."""
        if leftover := processes.end(self.mark):
            logger.warning("ended %s processes of an earlier run", leftover)
        shutil.rmtree(self._state / "instances", ignore_errors=True)
        if self._settings.ssh_port:
            self.ssh_port = self._settings.ssh_port
        else:
            # Held for as long as this cloud lives, so that no other on this computer gets the same port.
            self._port_holder.bind(("127.0.0.1", 0))
            self.ssh_port = self._port_holder.getsockname()[1]
        # The guard ends the machines' processes even when this process is killed. In a session of its own, no
        # Ctrl-C reaches it.
        self._guard = subprocess.Popen(
            [sys.executable, "-I", "-S", processes.__file__, self.mark],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env={},
            start_new_session=True,
        )
        self._thread.start()

    def stop(self) -> None:
        if self._thread.is_alive():
            self.clear()
            self._call(self._finish())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(10)
        self._loop.close()
        self._port_holder.close()
        if self._guard is not None and self._guard.stdin is not None:
            self._guard.stdin.close()
            self._guard.wait(10)

    def clear(self) -> None:
        """End every machine."""
        with self._lock:
            machines = list(self._machines)
        for machine in machines:
            self.destroy(machine)
        # Also those that were being ended already: nothing of them may happen after a reset.
        with self._lock:
            endings = list(self._endings)
        for ending in endings:
            ending.result(20)

    def find(self, instance_id: str) -> Machine | None:
        with self._lock:
            return self._machines.get(instance_id)

    def launch(
        self, launch: Launch, running: Callable[[Machine], None], failed: Callable[[Machine, str], None]
    ) -> Machine:
        """Start a machine in the background; `running` or `failed` is called in the hypervisor's thread.

        Raises NoAddressError.
        """
        with self._lock:
            address, listener = self._bind(launch.id)
        machine = Machine(launch, address, self.ssh_port, self._state, self._settings, self._powered_off)
        with self._lock:
            self._machines[launch.id] = machine
        self._submit(self._boot(machine, listener, running, failed))
        return machine

    def boot(
        self, machine: Machine, running: Callable[[Machine], None], failed: Callable[[Machine, str], None]
    ) -> None:
        """Start a machine again that was halted. It keeps its address and its home."""
        listener = self._listener(machine.address)
        self._submit(self._boot(machine, listener, running, failed))

    def halt(self, machine: Machine, halted: Callable[[Machine], None]) -> None:
        """Switch a machine off in the background. Its home stays."""

        async def halt() -> None:
            await machine.halt()
            halted(machine)

        self._submit(halt())

    def destroy(self, instance_id: str, destroyed: Callable[[Machine], None] | None = None) -> None:
        """End a machine in the background and give up its address and its home."""

        async def destroy() -> None:
            with self._lock:
                machine = self._machines.pop(instance_id, None)
            if machine is None:
                return
            killed = await machine.halt()
            with self._lock:
                self._addresses.pop(machine.address, None)
            logger.info("%s is gone, with %s processes", instance_id, killed)
            if destroyed is not None:
                destroyed(machine)
            await asyncio.get_running_loop().run_in_executor(None, shutil.rmtree, machine.folder, True)  # noqa: FBT003

        ending = self._submit(destroy())
        with self._lock:
            self._endings.add(ending)
        ending.add_done_callback(self._ended)

    def _ended(self, ending: "concurrent.futures.Future[None]") -> None:
        with self._lock:
            self._endings.discard(ending)

    def freeze(self, machine: Machine) -> None:
        self._in_loop(machine.freeze)

    def thaw(self, machine: Machine) -> None:
        self._in_loop(machine.thaw)

    def drop(self, machine: Machine) -> int:
        return self._in_loop(machine.drop)

    def fill_disk(self, machine: Machine) -> None:
        self._in_loop(machine.fill_disk)

    def free_disk(self, machine: Machine) -> None:
        self._in_loop(machine.free_disk)

    async def _boot(
        self,
        machine: Machine,
        listener: socket.socket,
        running: Callable[[Machine], None],
        failed: Callable[[Machine, str], None],
    ) -> None:
        fault = self._faults.take(Call("instance", "Boot", self._settings.region, machine.id))
        try:
            if fault is not None:
                await asyncio.get_running_loop().run_in_executor(None, fault.delay)
            await machine.boot(listener, refuse=fault.message or fault.code if fault else None)
        except HaltedError:
            listener.close()
            return
        except (OSError, subprocess.CalledProcessError) as error:
            listener.close()
            detail = (getattr(error, "stderr", None) or b"").decode(errors="replace").strip()
            logger.error("%s cannot boot: %s %s", machine.id, error, detail)  # noqa: TRY400 - one line is enough
            failed(machine, f"{error} {detail}".strip())
            return
        running(machine)
        logger.info("%s is running at %s port %s", machine.id, machine.address, machine.port)

    def _bind(self, instance_id: str) -> tuple[str, socket.socket]:
        """Take the next free address. They are handed out in turn, so that none is used again soon."""
        for _ in range(253):
            self._next = self._next % 253 + 1
            # .0 is the network, and Debian gives 127.0.1.1 to the computer's own name.
            address = f"{self._settings.address_prefix}{self._next + 1}"
            if address in self._addresses:
                continue
            try:
                listener = self._listener(address)
            except OSError:
                continue
            self._addresses[address] = instance_id
            return address, listener
        message = f"No address of {self._settings.address_prefix}* has the port {self.ssh_port} free."
        raise NoAddressError(message)

    def _listener(self, address: str) -> socket.socket:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((address, self.ssh_port))
        except OSError:
            listener.close()
            raise
        return listener

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    async def _finish(self) -> None:
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
        await self._loop.shutdown_default_executor()

    def _submit(self, coroutine: Coroutine[Any, Any, T]) -> "concurrent.futures.Future[T]":
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def _call(self, coroutine: Coroutine[Any, Any, T], timeout_s: float = 20.0) -> T:
        return self._submit(coroutine).result(timeout_s)

    def _in_loop(self, function: Callable[[], T]) -> T:
        async def call() -> T:
            return function()

        return self._call(call())
