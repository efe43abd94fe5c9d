"""Faults that a test or a person asks for: refused calls, slow ones, answers that get lost."""

import threading
import time
from dataclasses import asdict, dataclass, field
from typing import Literal

Loss = Literal["request", "answer"]


@dataclass(frozen=True)
class Call:
    """One call of the simulated AWS."""

    service: str
    """`ec2`, `s3`, `secretsmanager`, `sts`, or `instance` for what happens inside one."""
    action: str
    """As AWS names it: `RunInstances`, `PutObject`; `Boot` of an instance."""
    region: str = ""
    request: str = ""
    """The request as text (path, query, the start of its body), for `Fault.match`."""


@dataclass(eq=False)
class Fault:
    """What happens to the calls that it fits."""

    service: str
    action: str = "*"
    code: str | None = None
    """The AWS error code to answer with; None: the call goes on."""
    message: str = ""
    status: int = 400
    """The HTTP status of the error."""
    times: int | None = 1
    """How many calls it hits; None: every one until it is removed."""
    skip: int = 0
    """How many calls it lets pass first."""
    latency_s: float = 0.0
    lose: Loss | None = None
    """`request`: the connection ends and nothing is done. `answer`: it is done, then the connection ends."""
    match: str = ""
    """Text that the request must hold: an instance type, a subnet, a key."""
    region: str = ""
    hits: int = field(default=0, init=False)

    def fits(self, call: Call) -> bool:
        return (
            self.service == call.service
            and self.action in ("*", call.action)
            and self.region in ("", call.region)
            and self.match in call.request
        )


class Faults:
    """The faults in force. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: list[Fault] = []

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
        lose: Loss | None = None,
        match: str = "",
        region: str = "",
    ) -> Fault:
        """Put a fault in force. Its `hits` counts the calls it has met."""
        if code is None and lose is None and not latency_s:
            raise ValueError("A fault needs a code, a latency_s or something to lose.")
        if lose not in (None, "request", "answer"):
            raise ValueError(f"lose is {lose!r}; it can be 'request' or 'answer'.")
        if code is not None and lose is not None:
            raise ValueError("A fault answers with a code or loses something, not both.")
        fault = Fault(service, action, code, message, status, times, skip, latency_s, lose, match, region)
        with self._lock:
            self._faults.append(fault)
        return fault

    def remove(self, fault: Fault) -> None:
        with self._lock:
            self._faults = [each for each in self._faults if each is not fault]

    def clear(self) -> None:
        with self._lock:
            self._faults.clear()

    def active(self) -> list[dict[str, object]]:
        """The faults that still wait for calls, as plain values."""
        with self._lock:
            return [asdict(fault) for fault in self._faults]

    def take(self, call: Call) -> Fault | None:
        """The fault that this call meets, counted as a hit. The one that was added first goes first."""
        with self._lock:
            for fault in self._faults:
                if not fault.fits(call):
                    continue
                if fault.skip > 0:
                    fault.skip -= 1
                    continue
                fault.hits += 1
                if fault.times is not None and fault.hits >= fault.times:
                    self._faults.remove(fault)
                return fault
        return None


def wait(fault: Fault) -> None:
    """Spend the fault's latency."""
    if fault.latency_s:
        time.sleep(fault.latency_s)
