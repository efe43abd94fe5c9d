"""The tools of a step: AWS clients, the connection to the instance, log, progress, and when to stop."""

import logging
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from sqlalchemy.orm import Session

from app.db.session import Database
from app.failures import FailureCode
from app.registry.builds import log, steps
from app.registry.builds.lease import Lease, LeaseLost
from app.settings import Settings
from app.words import StepName
from worker.clouds import Clouds
from worker.errors import HandOver, StepFailed
from worker.heartbeat import Heartbeat
from worker.machine.remote import Remote
from worker.process import scratch
from worker.process.logs import entry

_log = logging.getLogger(__name__)


class Workbench:
    """One worker's tools for one build."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        clouds: Clouds,
        lease: Lease,
        heartbeat: Heartbeat,
        stopping: threading.Event,
    ) -> None:
        self.settings = settings
        self.clouds = clouds
        self.lease = lease
        self.database = database
        self._heartbeat = heartbeat
        self._stopping = stopping
        self._step: StepName | None = None
        self._ends: float | None = None
        self._remote: Remote | None = None
        self._scratch = tempfile.TemporaryDirectory(prefix=f"build-{lease.build_id}-", dir=scratch.folder())
        self.scratch = Path(self._scratch.name)

    def transaction(self) -> AbstractContextManager[Session]:
        return self.database.transaction()

    # When to stop

    def begin(self, step: StepName, remaining: timedelta | None) -> None:
        """Start work on this step, which must end within the remaining time."""
        self._step = step
        self._ends = None if remaining is None else time.monotonic() + remaining.total_seconds()

    def check(self) -> None:
        """Long work must call this regularly. Raises LeaseLost, HandOver, and StepFailed at the deadline."""
        if self._heartbeat.lost:
            message = f"the lease on build {self.lease.build_id} ran out"
            raise LeaseLost(message)
        if self._stopping.is_set():
            raise HandOver
        if self._ends is not None and time.monotonic() > self._ends:
            message = f"{self._step} did not end in time. The build's log shows how far it got."
            raise StepFailed(FailureCode.DEADLINE_EXCEEDED, message)

    def sleep(self, seconds: float) -> None:
        """Wait as long as this worker may keep the build. Raises what `check` raises."""
        self.check()
        self._stopping.wait(seconds)
        self.check()

    # The instance

    def remote(self, connect: Callable[[], Remote]) -> Remote:
        """The connection to the build's instance, made when it is first asked for."""
        if self._remote is None:
            self._remote = connect()
        return self._remote

    def drop_remote(self) -> None:
        """Close a broken connection. The next step or try makes a new one."""
        if self._remote is not None:
            self._remote.close()
            self._remote = None

    # What the API shows

    def note(self, message: str) -> None:
        """Record what the step waits for."""
        if self._step is not None:
            self.log(message)
            with self.transaction() as session:
                steps.note(session, self.lease, self._step, message)

    def progress(self, progress: dict[str, Any]) -> None:
        with self.transaction() as session:
            steps.set_progress(session, self.lease, progress)

    def log(self, line: str) -> None:
        """Add a line of the worker itself to the build's log."""
        line = entry(line)
        _log.info("build_id=%s step=%s %s", self.lease.build_id, self._step, line)
        stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        with self.transaction() as session:
            log.append(session, self.lease, f"{stamp} [{self._step or 'build'}] {line}\n")

    def append_log(self, text: str, checkpoint: BaseModel) -> None:
        """Add text of the running job to the log, and store how far the job's log has been read."""
        if self._step is None:
            return
        with self.transaction() as session:
            log.append(session, self.lease, text)
            steps.checkpoint(session, self.lease, self._step, checkpoint.model_dump(mode="json"))

    def close(self) -> None:
        self.drop_remote()
        self._scratch.cleanup()
