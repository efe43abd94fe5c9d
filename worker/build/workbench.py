"""What a step works with: clients, the instance's connection, log and progress, and when to stop."""

import logging
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy.orm import Session

from app.aws import ec2_client, secrets_client
from app.db.session import Database
from app.registry import runs
from app.registry.runs import Lease, LeaseLost
from app.settings import Settings
from app.storage.bucket import Bucket
from app.words import StepName
from worker.build.remote import Remote
from worker.build.step import HandOver, Output, StepFailed

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_secretsmanager import SecretsManagerClient

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cloud:
    """AWS clients of one region, shared by all of a worker's builds (boto3's clients are thread-safe)."""

    ec2: "EC2Client"
    # One try a call: a capacity error must reach us at once.
    ec2_launch: "EC2Client"
    secrets: "SecretsManagerClient"
    bucket: Bucket
    region: str

    @classmethod
    def of(cls, settings: Settings) -> "Cloud":
        return cls(
            ec2=ec2_client(settings),
            ec2_launch=ec2_client(settings, attempts=1),
            secrets=secrets_client(settings),
            bucket=Bucket.of(settings),
            region=settings.region,
        )


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
        # A database that cannot be asked for longer than the lease lasts: another worker may hold it by now.
        return self._lost or time.monotonic() > self._held_until

    def _beat(self) -> None:
        period_s = self._duration.total_seconds() / 4
        while not self._ended.wait(period_s):
            asked = time.monotonic()
            try:
                with self._database.transaction() as session:
                    runs.renew(session, self._lease, self._duration)
            except LeaseLost:
                self._lost = True
                return
            except Exception:
                _log.warning("lease not renewed build_id=%s", self._lease.build_id, exc_info=True)
            else:
                self._held_until = asked + self._duration.total_seconds()


class Workbench:
    """One worker's tools for one build."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        cloud: Cloud,
        lease: Lease,
        heartbeat: Heartbeat,
        stopping: threading.Event,
    ) -> None:
        self.settings = settings
        self.cloud = cloud
        self.lease = lease
        self._database = database
        self._heartbeat = heartbeat
        self._stopping = stopping
        self._step: StepName | None = None
        self._ends: float | None = None
        self._remote: Remote | None = None
        self._scratch = tempfile.TemporaryDirectory(prefix=f"build-{lease.build_id}-")
        self.scratch = Path(self._scratch.name)

    def transaction(self) -> AbstractContextManager[Session]:
        return self._database.transaction()

    # When to stop

    def begin(self, step: StepName, remaining: timedelta | None) -> None:
        """What follows is done for this step, and must end in time."""
        self._step = step
        self._ends = None if remaining is None else time.monotonic() + remaining.total_seconds()

    def check(self) -> None:
        """Whatever lasts calls this again and again. Raises LeaseLost, HandOver, StepFailed (deadline)."""
        if self._heartbeat.lost:
            message = f"the lease on build {self.lease.build_id} ran out"
            raise LeaseLost(message)
        if self._stopping.is_set():
            raise HandOver
        if self._ends is not None and time.monotonic() > self._ends:
            message = f"{self._step} did not end in time. The build's log shows how far it got."
            raise StepFailed("deadline_exceeded", message)

    def sleep(self, seconds: float) -> None:
        """Wait, but no longer than the build is ours. Raises what `check` raises."""
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
        """Forget a broken connection: the next step, or try, makes a new one."""
        if self._remote is not None:
            self._remote.close()
            self._remote = None

    # What the API shows

    def note(self, message: str) -> None:
        """What the step waits for."""
        if self._step is not None:
            self.log(message)
            with self.transaction() as session:
                runs.note_step(session, self.lease, self._step, message)

    def progress(self, progress: dict[str, Any]) -> None:
        with self.transaction() as session:
            runs.set_progress(session, self.lease, progress)

    def log(self, line: str) -> None:
        """A line of the worker's own into the build's log."""
        _log.info("build_id=%s step=%s %s", self.lease.build_id, self._step, line)
        stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        with self.transaction() as session:
            runs.append_log(session, self.lease, f"{stamp} [{self._step}] {line}\n")

    def append_log(self, text: str, checkpoint: Output) -> None:
        """Text of the running job, together with how far it has been read."""
        if self._step is None:
            return
        with self.transaction() as session:
            runs.append_log(session, self.lease, text)
            runs.checkpoint_step(session, self.lease, self._step, checkpoint.model_dump(mode="json"))

    def close(self) -> None:
        self.drop_remote()
        self._scratch.cleanup()
