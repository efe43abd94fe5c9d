"""The receiving half of the queue: the function behind each task name."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from datetime import time, timedelta
from functools import partial
from uuid import UUID

import procrastinate
from procrastinate.exceptions import ConnectorException
from procrastinate.jobs import Job, Status
from procrastinate.retry import BaseRetryStrategy, RetryDecision
from psycopg_pool import AsyncConnectionPool

from app.aws import CloudError
from app.db.session import CONNECTION, Database, is_temporary
from app.queue import (
    BUILDS,
    CANCELLATIONS,
    CARRY_RUN,
    DRAIN_OUTBOX,
    END_CANCELLED,
    JANITOR,
    MIRROR,
    NOTIFICATIONS,
    RUN_BUILD,
    RUNS,
    SEND_NOTIFICATIONS,
)
from app.registry.collection.requests import CollectionRequest
from app.registry.errors import RunActive
from app.registry.runs import lifecycle
from app.settings import Settings
from app.words import Actor, CollectionMode, NotificationTarget, RunKind
from worker import images, janitor, leftovers, mirror, unpublished
from worker.branches.look import look
from worker.carrying import Carrying
from worker.errors import Busy, HandOver
from worker.notifications import turns
from worker.notifications.targets import targets_of
from worker.process import threads
from worker.process.logs import in_one_line
from worker.runner import Runner
from worker.runs.carrying import RunCarrier

_log = logging.getLogger(__name__)

# How long the queue waits for a connection to Postgres before its worker ends and a new one begins.
_PATIENCE_S = 5.0

_RESCUE_LOCK = 0x7A53

Queue = procrastinate.App


class UntilDone(BaseRetryStrategy):
    """A build's job ends with its build. Whatever else happens to the job, it is tried again."""

    def __init__(self, busy_wait: timedelta) -> None:
        self._busy_wait = busy_wait

    def get_retry_decision(self, *, exception: BaseException, job: Job) -> RetryDecision:
        # CancelledError means that the queue's worker ends. The build may still be carried by its thread.
        if isinstance(exception, (HandOver, asyncio.CancelledError)):
            return RetryDecision(retry_in={"seconds": 0})
        if isinstance(exception, Busy):
            return RetryDecision(retry_in={"milliseconds": self._busy_wait // timedelta(milliseconds=1)})
        if is_temporary(exception):
            return RetryDecision(retry_in={"seconds": 1})
        return RetryDecision(retry_in={"seconds": min(60, 2 ** min(job.attempts, 6))})


def connections(settings: Settings, conninfo: str) -> AsyncConnectionPool:
    """Connections to Postgres for one worker of the queue. Not open yet."""
    lease_ms = settings.lease // timedelta(milliseconds=1)
    return AsyncConnectionPool(
        conninfo,
        kwargs={
            **CONNECTION,
            "application_name": "tariff-model-registry queue",
            # A worker that is paused in the middle of a transaction must not keep others from the queue.
            "options": f"-c idle_in_transaction_session_timeout={lease_ms} -c lock_timeout={lease_ms}",
        },
        min_size=1,
        max_size=5,
        timeout=_PATIENCE_S,
        # The longest wait between tries to connect: the queue is back soon after Postgres.
        reconnect_timeout=_PATIENCE_S,
        check=AsyncConnectionPool.check_connection,
        open=False,
    )


def register_builds(queue: Queue, settings: Settings, carrying: Carrying) -> None:
    @queue.task(name=RUN_BUILD, queue=BUILDS, retry=UntilDone(busy_wait=settings.lease / 6))
    async def run_build(build_id: str) -> None:
        await carrying.carry(UUID(build_id))


# How many builds can be cancelled at the same time.
CANCELLATIONS_CONCURRENCY = 5


def register_cancellations(queue: Queue, runner: Runner) -> None:
    @queue.task(name=END_CANCELLED, queue=CANCELLATIONS, retry=UntilDone(busy_wait=runner.settings.lease / 6))
    async def end_cancelled(build_id: str) -> None:
        # Not in the thread that may carry the build here already: that one can hang in a call for long.
        await threads.finished(threads.start(f"cancel-{build_id}", lambda: runner.carry(UUID(build_id))))


def register_mirror(queue: Queue, runner: Runner) -> None:
    @queue.periodic(cron=_every(runner.settings))
    @queue.task(name=DRAIN_OUTBOX, queue=MIRROR, queueing_lock=DRAIN_OUTBOX)
    async def drain_outbox(timestamp: int = 0) -> None:
        del timestamp
        await _take_turn(DRAIN_OUTBOX, lambda: mirror.drain(runner.database, runner.clouds.bucket))


def register_janitor(queue: Queue, runner: Runner) -> None:
    """Each part is a task with its own lock, so a part that hangs does not delay the others."""
    database, clouds, grace = runner.database, runner.clouds, runner.settings.orphan_grace
    parts: dict[str, Callable[[], object]] = {
        "requeue_unattended": lambda: janitor.requeue_unattended(database),
        "terminate_orphans": lambda: janitor.terminate_orphans(database, clouds, grace),
        "sweep_unpublished": lambda: unpublished.sweep(
            database, clouds.bucket, runner.settings.retry_window, lambda: None
        ),
    }
    for name, part in parts.items():
        _register_part(queue, JANITOR, name, part, _every(runner.settings))
    # Each look lists a few prefixes, and there is hardly ever anything to find.
    _register_part(
        queue,
        JANITOR,
        "sweep_leftovers",
        lambda: leftovers.sweep(database, clouds.bucket, runner.settings.retry_window, lambda _session: None),
        _EVERY_HOUR,
    )
    every = f"*/{runner.settings.gc_branches_every_min} * * * *"
    _register_part(queue, JANITOR, "look_at_branches", lambda: look(database, runner.settings), every)
    _register_part(
        queue, JANITOR, "watch_stages", lambda: janitor.watch_stages(database, clouds), _EVERY_MINUTE
    )
    _register_part(
        queue,
        JANITOR,
        "list_images",
        lambda: images.list_images(database, clouds, runner.settings),
        _EVERY_MINUTE,
    )


# As many jobs as the janitor has parts.
JANITOR_CONCURRENCY = 7

_EVERY_MINUTE = "* * * * *"
_EVERY_HOUR = "17 * * * *"


def _register_part(queue: Queue, queue_name: str, name: str, part: Callable[[], object], cron: str) -> None:
    @queue.periodic(cron=cron)
    @queue.task(name=name, queue=queue_name, lock=name, queueing_lock=name)
    async def turn(timestamp: int = 0) -> None:
        del timestamp
        await _take_turn(name, part)


# One job at a time for each target.
NOTIFICATIONS_CONCURRENCY = len(NotificationTarget)


def register_notifications(queue: Queue, runner: Runner) -> None:
    """Each target is a task with its own lock, so one that hangs does not delay the others."""
    targets = targets_of(runner.settings)
    for target, name in SEND_NOTIFICATIONS.items():
        part = partial(turns.send_due, runner.database, target, targets)
        _register_part(queue, NOTIFICATIONS, name, part, _every(runner.settings))


# As many runs as there are kinds: of each kind, one is active at a time. And the schedule.
RUNS_CONCURRENCY = len(RunKind) + 1


def register_runs(queue: Queue, runner: Runner) -> None:
    carrier = RunCarrier(runner)

    @queue.task(name=CARRY_RUN, queue=RUNS, retry=UntilDone(busy_wait=runner.settings.lease / 6))
    async def carry_run(run_id: str) -> None:
        await threads.finished(threads.start(f"run-{run_id}", lambda: carrier.carry(UUID(run_id))))

    database, settings = runner.database, runner.settings
    _register_nightly(
        queue, "reconcile_nightly", settings.reconcile_at, lambda: ask_for_reconciliation(database)
    )
    _register_nightly(
        queue, "collect_nightly", settings.gc_at, lambda: ask_for_collection(database, settings)
    )


def _register_nightly(queue: Queue, name: str, at: time, part: Callable[[], object]) -> None:
    @queue.periodic(cron=f"{at.minute} {at.hour} * * *")
    @queue.task(name=name, queue=RUNS, queueing_lock=name)
    async def nightly(timestamp: int) -> None:
        del timestamp
        await _take_turn(name, part)


def ask_for_reconciliation(database: Database) -> None:
    """Ask for the reconciliation of every night. It only reports, and it changes nothing in the bucket."""
    _ask_for(database, RunKind.RECONCILIATION, {})


def ask_for_collection(database: Database, settings: Settings) -> None:
    """Ask for the collection of every night, as far as the settings allow it.

    Its worker decides whether it is too large, so that its run shows that it was refused.
    """
    if settings.gc is not CollectionMode.OFF:
        wanted = CollectionRequest(dry_run=settings.gc is not CollectionMode.ON)
        _ask_for(database, RunKind.COLLECTION, wanted.as_options())


def _ask_for(database: Database, kind: RunKind, options: Mapping[str, object]) -> None:
    try:
        with database.transaction() as session:
            lifecycle.request(session, kind, options, "schedule", Actor.SYSTEM)
    except RunActive as exc:
        _log.info("no nightly %s: %s", kind, exc)


def _every(settings: Settings) -> str:
    """A cron expression with six fields, of which the last is seconds."""
    return f"* * * * * */{settings.upkeep_every_s}"


async def _take_turn(name: str, part: Callable[[], object]) -> None:
    """Do one part of the upkeep. Errors are only logged, because the part is scheduled again anyway."""
    try:
        await threads.finished(threads.start(name, part))
    except Exception as exc:
        if isinstance(exc, CloudError) or is_temporary(exc):
            _log.warning("%s did not succeed and will be tried again: %s", name, in_one_line(exc))
        else:
            _log.exception("%s failed and will be tried again", name)


async def rescue_stalled(queue: Queue, pool: AsyncConnectionPool, stalled_after: timedelta) -> None:
    """Give the jobs of silent workers to others. Only one process does this at a time.

    Otherwise a process could take a job that another process has just rescued away from its new worker.
    """
    async with pool.connection() as connection:
        row = await (
            await connection.execute("SELECT pg_try_advisory_xact_lock(%s)", (_RESCUE_LOCK,))
        ).fetchone()
        if row is None or not row[0]:
            return
        jobs = queue.job_manager
        for job in await jobs.get_stalled_jobs(seconds_since_heartbeat=stalled_after.total_seconds()):
            _log.warning("job=%s goes to another worker: the one that had it is silent", job.id)
            try:
                await jobs.retry_job(job)
            except ConnectorException as exc:
                if is_temporary(exc):
                    raise
                # Another job of the same kind is already waiting and will do the same work.
                await jobs.finish_job(job, Status.FAILED, delete_job=True)
