"""Keeps the lease of a build, or of a run, while its worker carries it."""

import logging
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Self

from sqlalchemy.orm import Session

from app.db.session import Database
from app.registry.builds.lease import Lease, LeaseLost, renew
from worker.process.logs import in_one_line

_log = logging.getLogger(__name__)


class LeaseKeeper:
    """Renews a lease regularly in a thread, and knows when it is lost."""

    def __init__(
        self, database: Database, what: str, renew: Callable[[Session], None], duration: timedelta
    ) -> None:
        """`what` names what is leased in the log. `renew` raises LeaseLost."""
        self._database = database
        self._what = what
        self._renew = renew
        self._duration = duration
        self._ended = threading.Event()
        self._held_until = time.monotonic() + duration.total_seconds()
        self._lost = False
        self._thread = threading.Thread(target=self._beat, name=f"lease-{what}", daemon=True)

    def __enter__(self) -> Self:
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
                    self._renew(session)
            except LeaseLost:
                self._lost = True
                return
            except Exception as exc:
                _log.warning("%s lease not renewed: %s", self._what, in_one_line(exc))
            else:
                self._held_until = asked + self._duration.total_seconds()


class Heartbeat(LeaseKeeper):
    """Keeps a build's lease while its worker carries it."""

    def __init__(self, database: Database, lease: Lease, duration: timedelta) -> None:
        keep = partial(renew, lease=lease, duration=duration)
        super().__init__(database, f"build_id={lease.build_id}", keep, duration)
