"""Carries a build through its flow: takes it, walks the steps that are not done, ends it."""

import logging
import threading
import traceback
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from app.aws import CloudAuthError, CloudError, CloudUnavailable, NoCapacity, QuotaExceeded
from app.db.session import Database
from app.registry import runs
from app.registry.runs import Failure, LeaseLost, RunView
from app.settings import Settings
from worker.clouds import Cloud
from worker.errors import HandOver, StepFailed
from worker.flows import FLOW
from worker.heartbeat import Heartbeat
from worker.remote import CommandFailed, RemoteLost, RemoteRefused
from worker.steps.instance import TerminateInstance
from worker.steps.step import Output, Step
from worker.workbench import Workbench

_log = logging.getLogger(__name__)

_RETRY_S = (1, 2, 5, 10, 20, 30)


class Busy(Exception):
    """Another worker holds the build: look again when its lease may have run out."""


@dataclass(frozen=True)
class Runner:
    """One worker's way to carry builds; safe to use from several threads."""

    settings: Settings
    database: Database
    cloud: Cloud
    owner: str
    stopping: threading.Event

    def carry(self, build_id: UUID) -> None:
        """Take the build and go on with it until it ends.

        Raises Busy while another worker holds it, and HandOver when this worker is being stopped: both mean
        that the job is to be tried again. A lost lease ends it silently: another worker is at it.
        """
        with self.database.transaction() as session:
            lease = runs.take(session, build_id, self.owner, self.settings.lease)
            state = runs.state_of(session, build_id)
        if lease is None:
            if state is not None and state.active:
                raise Busy
            return
        with Heartbeat(self.database, lease, self.settings.lease) as heartbeat:
            work = Workbench(self.settings, self.database, self.cloud, lease, heartbeat, self.stopping)
            try:
                self._walk(work)
            except LeaseLost as exc:
                _log.warning("build_id=%s given up: %s", build_id, exc)
            except HandOver:
                with self.database.transaction() as session:
                    runs.release(session, lease)
                raise
            finally:
                work.close()

    def _walk(self, work: Workbench) -> None:
        run = self._view(work)
        for step in FLOW:
            if run.failure is not None:
                break
            if step.name in run.done:
                continue
            ended = self._do(step, run, work) and step is FLOW[-1]
            if ended:
                return
            run = self._view(work)
        if run.failure is not None:
            self._end_failed(run, run.failure, work)

    def _view(self, work: Workbench) -> RunView:
        with self.database.transaction() as session:
            return runs.view(session, work.lease)

    def _do(self, step: Step[Output], run: RunView, work: Workbench) -> bool:
        """Do the step and store its output, or store why it failed; returns whether it succeeded."""
        try:
            output = self._try(step, run, work)
            work.log("done")
            with self.database.transaction() as session:
                step.apply(session, work.lease, output)
        except StepFailed as exc:
            failure = Failure(step.name, exc.code, exc.message)
        except (LeaseLost, HandOver, OperationalError, PoolTimeout):
            # Ours no longer, or nothing can be recorded now: the build goes on when its job is tried again.
            raise
        except Exception as exc:
            # A defect of ours must end the build, and its instance, like any other failure does.
            _log.exception("build_id=%s step=%s", work.lease.build_id, step.name)
            work.log(traceback.format_exc())
            failure = Failure(
                step.name, "internal_error", f"{type(exc).__name__}: {exc}. The build's log has more."
            )
        else:
            self._tidy(step, run, work)
            return True
        work.log(f"failed: {failure.code}: {failure.message}")
        with self.database.transaction() as session:
            runs.fail_step(session, work.lease, failure)
        return False

    def _tidy(self, step: Step[Output], run: RunView, work: Workbench) -> None:
        try:
            step.tidy(run, work)
        except CloudError as exc:
            # The janitor comes by later.
            _log.warning("build_id=%s step=%s not tidied: %s", run.id, step.name, exc)

    def _try(self, step: Step[Output], run: RunView, work: Workbench) -> Output:
        """Act until it works; what may pass is waited out until the deadline."""
        with self.database.transaction() as session:
            elapsed = runs.start_step(session, work.lease, step.name)
        work.begin(step.name, None if step.deadline is None else step.deadline - elapsed)
        work.log("started")
        tries = 0
        while True:
            work.check()
            try:
                return step.act(run, work)
            except (CloudUnavailable, RemoteLost) as exc:
                work.drop_remote()
                reason = f"{type(exc).__name__}: {exc}"
            except CloudError as exc:
                if step.deadline is not None:
                    raise _failure_of(exc) from exc
                # Without a deadline, nothing that AWS says is an answer but success.
                reason = str(exc)
            except RemoteRefused as exc:
                message = f"The instance refused us ({exc}). Compare REGISTRY_KEY_NAME with the secret's key."
                raise StepFailed("connection_refused", message) from exc
            except CommandFailed as exc:
                raise StepFailed("command_failed", f"On the instance, {exc}") from exc
            wait_s = _RETRY_S[min(tries, len(_RETRY_S) - 1)]
            tries += 1
            work.note(f"{reason}; trying again in {wait_s} s")
            work.sleep(wait_s)

    def _end_failed(self, run: RunView, failure: Failure, work: Workbench) -> None:
        """The instance first: a build that has ended no longer protects or explains one."""
        terminate: Step[Any] = TerminateInstance()
        if terminate.name not in run.done:
            output = self._try(terminate, run, work)
            with self.database.transaction() as session:
                terminate.apply(session, work.lease, output)
        work.begin(failure.step, None)
        work.log(f"build failed: {failure.code}: {failure.message}")
        with self.database.transaction() as session:
            runs.fail(session, work.lease)


def _failure_of(exc: CloudError) -> StepFailed:
    if isinstance(exc, NoCapacity):
        return StepFailed("no_capacity", f"AWS has no such machine now ({exc}). Post the build again later.")
    if isinstance(exc, QuotaExceeded):
        return StepFailed(
            "quota_exceeded", f"The account's limit is reached ({exc}). Raise it, then post again."
        )
    if isinstance(exc, CloudAuthError):
        return StepFailed("cloud_auth", f"AWS refused the worker's credentials ({exc}). Check its IAM role.")
    return StepFailed("cloud_error", f"AWS answered {exc}")
