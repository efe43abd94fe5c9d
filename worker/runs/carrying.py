"""Carries one run from where it is to its end."""

import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from uuid import UUID

from sqlalchemy.exc import SQLAlchemyError

from app.aws import CloudUnavailable
from app.db.session import is_temporary
from app.registry.builds.lease import LeaseLost
from app.registry.runs import lifecycle
from app.registry.runs.lifecycle import RunLease
from app.words import RunKind
from worker.errors import Busy, HandOver, RunFailed
from worker.heartbeat import LeaseKeeper
from worker.process.logs import in_one_line
from worker.runner import Runner
from worker.runs.collection.run import collect
from worker.runs.images import clean_images
from worker.runs.imports import import_models
from worker.runs.reconciliation import reconcile
from worker.runs.signing import sign_model
from worker.runs.work import RunWork

_log = logging.getLogger(__name__)

KINDS: dict[RunKind, Callable[[RunWork], None]] = {
    RunKind.IMPORT: import_models,
    RunKind.RECONCILIATION: reconcile,
    RunKind.COLLECTION: collect,
    RunKind.SIGNING: sign_model,
    RunKind.IMAGE_CLEANING: clean_images,
}


@dataclass(frozen=True)
class RunCarrier:
    """Carries runs for one worker. It is safe to use from several threads."""

    runner: Runner

    def carry(self, run_id: UUID) -> None:
        """Take the run and go on with it until it ends.

        Raises Busy while another worker holds it, HandOver when this worker is being stopped, and whatever
        kept the run from getting any further. In all cases the job must be tried again. If the lease is lost,
        it returns, because the run was stopped, or another worker has it.
        """
        runner = self.runner
        duration = runner.settings.lease
        with runner.database.transaction() as session:
            lease = lifecycle.take(session, run_id, duration, KINDS.keys())
            active = lifecycle.is_active(session, run_id)
        if lease is None:
            if active:
                raise Busy
            return
        keep = partial(lifecycle.renew, lease=lease, duration=duration)
        with LeaseKeeper(runner.database, f"run_id={run_id}", keep, duration) as heartbeat:
            try:
                self._work(lease, heartbeat)
            except LeaseLost as exc:
                _log.info("run_id=%s given up: %s", run_id, exc)
            except RunFailed as exc:
                _log.warning("run_id=%s failed: %s", run_id, in_one_line(exc))
                with runner.database.transaction() as session:
                    lifecycle.fail(session, lease, str(exc))
            except HandOver:
                self._put_off(lease, None, counts=False)
                raise
            except Exception as exc:
                passes = isinstance(exc, CloudUnavailable) or is_temporary(exc)
                log = _log.warning if passes else _log.exception
                log("run_id=%s put off: %s", run_id, in_one_line(exc))
                self._put_off(lease, f"{type(exc).__name__}: {exc}", counts=not passes)
                raise

    def _work(self, lease: RunLease, heartbeat: LeaseKeeper) -> None:
        runner = self.runner
        with runner.database.transaction() as session:
            run = lifecycle.fence(session, lease)
        work = RunWork(
            runner.settings,
            runner.database,
            runner.clouds,
            lease,
            run.options,
            run.checkpoint,
            run.result or {},
            heartbeat,
            runner.stopping,
        )
        KINDS[RunKind(run.kind)](work)
        with runner.database.transaction() as session:
            lifecycle.succeed(session, lease)
        _log.info("run_id=%s the %s succeeded", lease.run_id, run.kind)

    def _put_off(self, lease: RunLease, error: str | None, *, counts: bool) -> None:
        # If it cannot be recorded, the lease ends by itself.
        with contextlib.suppress(LeaseLost, SQLAlchemyError), self.runner.database.transaction() as session:
            lifecycle.put_off(session, lease, error, counts=counts)
