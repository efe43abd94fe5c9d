"""Keeps a build's lease while its worker carries it."""

import logging
import threading
import time
from datetime import timedelta

from app.db.session import Database
from app.registry.builds.lease import Lease, LeaseLost, renew
from worker.process.logs import in_one_line

_log = logging.getLogger(__name__)


class Heartbeat:
    """Keeps a build's lease while its worker carries it."""

    def __init__(self, database: Database, lease: Lease, duration: timedelta) -> None:
        self._database = database
        self._lease = lease
        self._duration = duration
        self._ended = threading.Event()
        self._held_until = time.monotonic() + duration.total_seconds()
        self._lost = False
        self._thread = threading.Thread(target=self._beat, name=f"lease-{lease.build_id}", daemon=True)

    def __enter__(self) -> "Heartbeat":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    @property
    def lost(self) -> bool:
        # If the database could not be reached for longer than the lease lasts, another worker may hold it.
        return self._lost or time.monotonic() > self._held_until

    def _beat(self) -> None:
        period_s = self._duration.total_seconds() / 4
        while not self._ended.wait(period_s):
            asked = time.monotonic()
            try:
                with self._database.transaction() as session:
                    renew(session, self._lease, self._duration)
            except LeaseLost:
                self._lost = True
                return
            except Exception as exc:
                _log.warning("build_id=%s lease not renewed: %s", self._lease.build_id, in_one_line(exc))
            else:
                self._held_until = asked + self._duration.total_seconds()
