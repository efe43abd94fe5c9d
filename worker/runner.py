"""Carries a build through its flow: takes its lease, does the steps that are not done, and ends it."""

import contextlib
import logging
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy.exc import SQLAlchemyError

from app.aws import CloudError
from app.db.session import Database, is_temporary
from app.failures import FailureCode
from app.registry.builds import ending, steps
from app.registry.builds.lease import Lease, LeaseLost, note_error, release, state_of, take
from app.registry.builds.steps import BuildView, Failure
from app.settings import Settings
from app.words import BuildState, StepName
from worker.clouds import Clouds
from worker.errors import Busy, HandOver, StepFailed
from worker.flows import FLOWS
from worker.heartbeat import Heartbeat
from worker.retry import AT_LEAST, ON_ANOTHER_INSTANCE, RETRIED, WAITS_S, reason_to_wait
from worker.steps.step import Output, Step
from worker.workbench import Workbench

_log = logging.getLogger(__name__)

# How many workers in a row may take a build without getting it any further.
MAX_TAKINGS = 10

# How long to wait, while the database is out of order, before it is tried again.
_OUTAGE_WAIT_S = 1.0


@dataclass(frozen=True)
class Runner:
    """Carries builds for one worker. It is safe to use from several threads."""

    settings: Settings
    database: Database
    clouds: Clouds
    owner: str
    stopping: threading.Event

    def carry(self, build_id: UUID) -> None:
        """Take the build and go on with it until it ends.

        Raises Busy while another worker holds it, and HandOver when this worker is being stopped. In both
        cases the job must be tried again. If the lease is lost, it returns, because another worker has the
        build.
        """
        with self.database.transaction() as session:
            lease = take(session, build_id, self.owner, self.settings.lease, FLOWS.keys())
            state = state_of(session, build_id)
        if lease is None:
            if state is not None and state.active:
                raise Busy
            return
        with Heartbeat(self.database, lease, self.settings.lease) as heartbeat:
            work = Workbench(self.settings, self.database, self.clouds, lease, heartbeat, self.stopping)
            try:
                self._walk(work)
            except LeaseLost as exc:
                _log.warning("build_id=%s given up: %s", build_id, exc)
            except HandOver:
                with self.database.transaction() as session:
                    release(session, lease)
                raise
            except Exception as exc:
                if is_temporary(exc):
                    self._put_off(lease)
                else:
                    self._note_error(lease, exc)
                raise
            finally:
                work.close()

    def _put_off(self, lease: Lease) -> None:
        """Give the build back as soon as the database can record it, so that no outage counts as a try."""
        while True:
            try:
                with self.database.transaction() as session:
                    release(session, lease)
            except LeaseLost:
                return
            except Exception as exc:
                if not is_temporary(exc):
                    raise
            else:
                return
            if self.stopping.wait(_OUTAGE_WAIT_S):
                return

    def _note_error(self, lease: Lease, error: Exception) -> None:
        """For whoever ends the build, should it stop every worker that takes it."""
        with contextlib.suppress(LeaseLost, SQLAlchemyError), self.database.transaction() as session:
            note_error(session, lease, f"{type(error).__name__}: {error}")

    def _walk(self, work: Workbench) -> None:
        while True:
            build = self._view(work)
            if build.failure is not None:
                self._end_failed(build, build.failure, work)
                return
            if build.cancelled_by is not None:
                self._end_cancelled(build, build.cancelled_by, work)
                return
            if build.takings > MAX_TAKINGS:
                self._give_up(build, work)
                continue
            step, *later = (step for step in FLOWS[build.kind] if step.name not in build.done)
            # The last step's output and the build's end are one change, so readers see both or neither.
            if self._do(step, build, work, ends_build=not later) and not later:
                return

    def _give_up(self, build: BuildView, work: Workbench) -> None:
        """Record that no worker gets any further with the build. It ends like any other that fails."""
        step = next(step for step in FLOWS[build.kind] if step.name not in build.done)
        code = FailureCode.INTERNAL_ERROR
        reason = build.last_error or "each of them died without a word"
        message = f"{MAX_TAKINGS} workers in a row got no further with {step.name}: {reason}. {code.advice}"
        with self.database.transaction() as session:
            steps.fail(session, work.lease, Failure(step.name, code, message))

    def _view(self, work: Workbench) -> BuildView:
        with self.database.transaction() as session:
            return steps.view(session, work.lease)

    def _do(self, step: Step[Output], build: BuildView, work: Workbench, *, ends_build: bool) -> bool:
        """Do the step and store its output, or store why it failed. Returns whether it succeeded."""
        try:
            output = self._try(step, build, work)
            work.log("done")
            with self.database.transaction() as session:
                step.apply(session, work.lease, output)
                if ends_build:
                    ending.end(session, work.lease, BuildState.SUCCEEDED)
        except StepFailed as exc:
            failure = Failure(step.name, exc.code, exc.message)
        except (LeaseLost, HandOver):
            raise
        except Exception as exc:
            if is_temporary(exc):
                # Nothing can be recorded now. The build goes on when its job is tried again.
                raise
            # A defect of ours must end the build, and its instance, like any other failure does.
            _log.exception("build_id=%s step=%s", work.lease.build_id, step.name)
            work.log(traceback.format_exc())
            message = f"{type(exc).__name__}: {exc}. The build's log has more."
            failure = Failure(step.name, FailureCode.INTERNAL_ERROR, message)
        else:
            self._clean_up(step.tidy, build, work)
            return True
        work.log(f"failed: {failure.code}: {failure.message}")
        if failure.code in ON_ANOTHER_INSTANCE:
            self._start_over(build, failure, work)
            return False
        with self.database.transaction() as session:
            steps.fail(session, work.lease, failure)
        return False

    def _start_over(self, build: BuildView, failure: Failure, work: Workbench) -> None:
        """Give the build another instance. `launch_instance` decides whether it may still have one.

        If this worker dies before all of it is stored, the next one meets the same failure again.
        """
        terminate = _terminate_step(build)
        output = self._try(terminate, build, work)
        with self.database.transaction() as session:
            terminate.apply(session, work.lease, output)
            reason = f"{failure.step}: {failure.code}: {failure.message}"
            steps.rewind(session, work.lease, StepName.LAUNCH_INSTANCE, reason)
        work.log(f"starts again from {StepName.LAUNCH_INSTANCE}, on another instance")

    def _clean_up(
        self, part: Callable[[BuildView, Workbench], None], build: BuildView, work: Workbench
    ) -> None:
        try:
            part(build, work)
        except CloudError as exc:
            # The janitor, or the next build of the prefix, comes by later.
            _log.warning("build_id=%s not cleaned up: %s", build.id, exc)

    def _try(self, step: Step[Output], build: BuildView, work: Workbench) -> Output:
        """Act until it works. What the step has the patience for is waited out until the deadline."""
        with self.database.transaction() as session:
            worked = steps.start(session, work.lease, step.name)
        # A worker that takes the build tries at least once before anything that was paid for is lost.
        remaining = None if step.deadline is None else max(step.deadline - worked, AT_LEAST)
        work.begin(step.name, remaining)
        work.log("started")
        tries = 0
        while True:
            work.check()
            try:
                return step.act(build, work)
            except RETRIED as exc:
                reason = reason_to_wait(exc, step.patience, tries)
                work.drop_remote()
            wait_s = WAITS_S[min(tries, len(WAITS_S) - 1)]
            tries += 1
            work.note(f"{reason}; trying again in {wait_s} s")
            work.sleep(wait_s)

    def _end_failed(self, build: BuildView, failure: Failure, work: Workbench) -> None:
        self._terminate_and_undo(build, work)
        work.log(f"build failed: {failure.code}: {failure.message}")
        with self.database.transaction() as session:
            ending.end(session, work.lease, BuildState.FAILED)

    def _end_cancelled(self, build: BuildView, who: str, work: Workbench) -> None:
        work.log(f"the build is being cancelled, as {who} asked")
        self._terminate_and_undo(build, work)
        work.log("build cancelled")
        with self.database.transaction() as session:
            ending.end(session, work.lease, BuildState.CANCELLED)

    def _terminate_and_undo(self, build: BuildView, work: Workbench) -> None:
        """Before the build ends, because one that has ended no longer protects or explains an instance."""
        terminate = _terminate_step(build)
        if terminate.name not in build.done:
            output = self._try(terminate, build, work)
            with self.database.transaction() as session:
                terminate.apply(session, work.lease, output)
        for step in FLOWS[build.kind]:
            if step.name in build.started:
                self._clean_up(step.undo, build, work)


def _terminate_step(build: BuildView) -> Step[Any]:
    return next(step for step in FLOWS[build.kind] if step.name is StepName.TERMINATE_INSTANCE)
