"""The tools of a run: bucket, database, when to stop, and how far it has got."""

import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy.orm import Session

from app.db.session import Database
from app.registry.builds.lease import LeaseLost
from app.registry.runs import lifecycle
from app.registry.runs.lifecycle import RunLease
from app.settings import Settings
from app.storage.bucket import Bucket
from worker.clouds import Clouds
from worker.errors import HandOver
from worker.heartbeat import LeaseKeeper

# How many calls to S3 a run makes at the same time.
_CALLS = 16

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class RunWork:
    """One worker's tools for one run. `checkpoint` and `result` are what the worker before has stored."""

    settings: Settings
    database: Database
    clouds: Clouds
    lease: RunLease
    options: Mapping[str, Any]
    checkpoint: Mapping[str, Any]
    result: Mapping[str, Any]
    heartbeat: LeaseKeeper
    stopping: threading.Event

    @property
    def bucket(self) -> Bucket:
        return self.clouds.bucket

    def transaction(self) -> AbstractContextManager[Session]:
        return self.database.transaction()

    def check(self) -> None:
        """Long work must call this regularly. Raises HandOver, and LeaseLost, also for a stopped run."""
        if self.heartbeat.lost:
            message = f"run {self.lease.run_id} was stopped, or its lease ran out"
            raise LeaseLost(message)
        if self.stopping.is_set():
            raise HandOver

    def check_now(self) -> None:
        """As `check`, and asks the database, so that a run does nothing from the moment of its stop on."""
        self.check()
        with self.transaction() as session:
            lifecycle.confirm(session, self.lease)

    def each(self, do: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
        """What `do` returns for each item, in their order. Several calls to S3 are made at the same time."""

        def checked(item: Item) -> Result:
            self.check()
            return do(item)

        with ThreadPoolExecutor(_CALLS, thread_name_prefix=f"run-{self.lease.run_id}") as threads:
            return list(threads.map(checked, items))
