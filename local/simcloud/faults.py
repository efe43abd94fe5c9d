"""Faults that a test or a person asks for: refused calls, slow ones, hanging ones, answers that get lost."""

import threading
import time
from dataclasses import dataclass, field, fields
from typing import Literal

Loss = Literal["request", "answer"]


@dataclass(frozen=True)
class Call:
    """One call of the simulated AWS."""

    service: str
    """`ec2`, `s3`, `secretsmanager`, `sts`, or `instance` for what happens inside one."""
    action: str
    """As AWS names it: `RunInstances`, `PutObject`. `Boot` of an instance."""
    region: str = ""
    request: str = ""
    """The request as text (path, query, the start of its body), for `Fault.match`."""


@dataclass(eq=False)
class Fault:
    """What happens to the calls that it fits."""

    service: str
    action: str = "*"
    code: str | None = None
    """The AWS error code to answer with. None: the call goes on."""
    message: str = ""
    status: int = 400
    """The HTTP status of the error."""
    times: int | None = 1
    """How many calls it hits. None: every call, until the fault is removed."""
    skip: int = 0
    """How many calls it lets pass first."""
    latency_s: float = 0.0
    hang: bool = False
    """The call gets no answer until the fault is removed. Then it goes on as if nothing had been."""
    lose: Loss | None = None
    """`request`: the connection ends and nothing is done. `answer`: it is done, then the connection ends."""
    match: str = ""
    """Text that the request must hold: an instance type, a subnet, a key."""
    region: str = ""
    hits: int = field(default=0, init=False)
    removed: threading.Event = field(default_factory=threading.Event, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.code is None and self.lose is None and not self.latency_s and not self.hang:
            raise ValueError("This fault changes nothing. Give it a code, a latency_s, hang or lose.")
        if self.lose not in (None, "request", "answer"):
            raise ValueError(f"{self.lose!r} cannot be lost. Set lose to 'request' or 'answer'.")
        if self.code is not None and self.lose is not None:
            raise ValueError("A fault cannot both answer with a code and lose something. Give it one.")

    def fits(self, call: Call) -> bool:
        return (
            self.service == call.service
            and self.action in ("*", call.action)
            and self.region in ("", call.region)
            and self.match in call.request
        )

    def delay(self) -> None:
        """Spend the time that the fault takes."""
        time.sleep(self.latency_s)
        if self.hang:
            self.removed.wait()

    def describe(self) -> dict[str, object]:
        """Its fields, as plain values."""
        return {each.name: getattr(self, each.name) for each in fields(self) if each.name != "removed"}


class Faults:
    """The faults in force. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: list[Fault] = []
        self._hanging: list[Fault] = []

    def add(
        self,
        service: str,
        action: str = "*",
        *,
        code: str | None = None,
        message: str = "",
        status: int = 400,
        times: int | None = 1,
        skip: int = 0,
        latency_s: float = 0.0,
        hang: bool = False,
        lose: Loss | None = None,
        match: str = "",
        region: str = "",
    ) -> Fault:
        """Put a fault in force. Its `hits` counts the calls that it has met. Raises ValueError."""
        fault = Fault(
            service, action, code, message, status, times, skip, latency_s, hang, lose, match, region
        )
        self.put(fault)
        return fault

    def put(self, fault: Fault) -> None:
        """Put a fault in force that the caller made: its class may decide otherwise which calls it fits."""
        with self._lock:
            self._faults.append(fault)

    def remove(self, fault: Fault) -> None:
        """End the fault, and let the calls go on that hang because of it."""
        with self._lock:
            self._faults = [each for each in self._faults if each is not fault]
            fault.removed.set()

    def clear(self) -> None:
        """End every fault."""
        with self._lock:
            for fault in (*self._faults, *self._hanging):
                fault.removed.set()
            self._faults.clear()
            self._hanging.clear()

    def active(self) -> list[dict[str, object]]:
        """The faults that still wait for calls, as plain values."""
        with self._lock:
            return [fault.describe() for fault in self._faults]

    def take(self, call: Call) -> Fault | None:
        """The fault that this call meets, counted as a hit. Of several, the one that was added first."""
        with self._lock:
            for fault in self._faults:
                if not fault.fits(call):
                    continue
                if fault.skip > 0:
                    fault.skip -= 1
                    continue
                fault.hits += 1
                if fault.hang and fault not in self._hanging:
                    self._hanging.append(fault)
                if fault.times is not None and fault.hits >= fault.times:
                    self._faults.remove(fault)
                return fault
        return None
