"""Checks in the background whether the bucket answers, one check at a time, and remembers the result."""

import threading
import time
from collections.abc import Callable

from app.aws import CloudError


class BucketProbe:
    """What S3 answered when it was last asked. `status` never waits for S3."""

    def __init__(self, check: Callable[[], None], *, good_for_s: float = 15.0) -> None:
        """`check` raises CloudError, or returns when the bucket answers."""
        self._check = check
        self._good_for_s = good_for_s
        self._lock = threading.Lock()
        self._asking = False
        self._status = "not asked yet"
        self._asked_at = float("-inf")

    def status(self) -> str:
        """`ok`, or what is wrong. If the result is older than `good_for_s`, a new check begins."""
        with self._lock:
            if not self._asking and time.monotonic() - self._asked_at > self._good_for_s:
                self._asking = True
                threading.Thread(target=self._ask, name="bucket-probe", daemon=True).start()
            return self._status

    def _ask(self) -> None:
        status = "unknown: the check itself failed"
        try:
            self._check()
            status = "ok"
        except CloudError as exc:
            status = str(exc)
        finally:
            with self._lock:
                self._status, self._asked_at, self._asking = status, time.monotonic(), False
