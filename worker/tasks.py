"""The queue's receiving half: what a job's name stands for."""

import logging
import time
from uuid import UUID

import procrastinate
from procrastinate.exceptions import ConnectorException
from procrastinate.jobs import Job, Status
from procrastinate.retry import BaseRetryStrategy, RetryDecision

from app.queue import BUILDS, DRAIN_OUTBOX, RUN_BUILD, UPKEEP
from worker import janitor, mirror
from worker.errors import Busy, HandOver
from worker.runner import Runner

_log = logging.getLogger(__name__)


class UntilDone(BaseRetryStrategy):
    """A build's job ends with its build: whatever else happens to it, it is tried again."""

    def __init__(self, busy_wait_s: float) -> None:
        self._busy_wait_s = busy_wait_s

    def get_retry_decision(self, *, exception: BaseException, job: Job) -> RetryDecision:
        if isinstance(exception, HandOver):
            return RetryDecision(retry_in={"seconds": 0})
        if isinstance(exception, Busy):
            return RetryDecision(retry_in={"milliseconds": int(1000 * self._busy_wait_s)})
        return RetryDecision(retry_in={"seconds": min(60, 2 ** min(job.attempts, 6))})


def make_queue(runner: Runner, *, stalled_after_s: float, upkeep_cron: str) -> procrastinate.App:
    """The queue over the runner's database, with every task registered.

    `stalled_after_s` is how long a worker process may be silent until its jobs are given to others;
    `upkeep_cron` (six fields, the last are seconds) is how often the periodic tasks run.
    """
    database, clouds, settings = runner.database, runner.clouds, runner.settings
    app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=database.conninfo))
    lease_s = settings.lease.total_seconds()

    @app.task(name=RUN_BUILD, queue=BUILDS, retry=UntilDone(busy_wait_s=lease_s / 3))
    def run_build(build_id: str) -> None:
        runner.carry(UUID(build_id))

    @app.task(name=DRAIN_OUTBOX, queue=UPKEEP)
    def drain_outbox() -> None:
        mirror.drain(database, clouds.bucket)

    @app.periodic(cron=upkeep_cron)
    @app.task(name="retry_stalled", queue=UPKEEP, queueing_lock="retry_stalled")
    async def retry_stalled(timestamp: int) -> None:
        """Give the jobs of dead workers to living ones."""
        del timestamp
        for job in await app.job_manager.get_stalled_jobs(seconds_since_heartbeat=stalled_after_s):
            _log.warning("job=%s stalled: its worker is silent; retried", job.id)
            try:
                await app.job_manager.retry_job(job)
            except ConnectorException:
                # Another one of its kind waits already and will do the same.
                await app.job_manager.finish_job(job, Status.FAILED, delete_job=True)

    @app.periodic(cron=upkeep_cron)
    @app.task(name="upkeep", queue=UPKEEP, queueing_lock="upkeep")
    def upkeep(timestamp: int) -> None:
        """One failing part must not keep the others from their turn."""
        del timestamp
        began = time.monotonic()
        for part in (
            lambda: janitor.requeue_unattended(database),
            lambda: mirror.drain(database, clouds.bucket),
            lambda: janitor.terminate_orphans(database, clouds, settings.orphan_grace),
            lambda: janitor.sweep_staging(database, clouds),
        ):
            try:
                part()
            except Exception:
                _log.exception("upkeep failed in part")
        _log.debug("upkeep took %.1f s", time.monotonic() - began)

    return app
