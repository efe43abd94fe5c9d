"""The worker process. It carries builds, mirrors the outbox to the bucket, and runs the janitor.

Any number of workers can run against one Postgres. At any time, at most one of them carries a build.
"""

import asyncio
import logging
import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import Callable
from functools import partial

import procrastinate
from procrastinate.worker import Worker

from app.db.session import Database
from app.queue import BUILDS, CANCELLATIONS, JANITOR, MIRROR, NOTIFICATIONS, RUNS
from app.settings import Settings
from worker import tasks
from worker.carrying import Carrying
from worker.clouds import Clouds
from worker.process import logs, scratch
from worker.runner import Runner

_log = logging.getLogger(__name__)

_MIRROR_CONCURRENCY = 4

# After SIGTERM: how long jobs may take to stop, and when the process ends even if something still hangs.
# Containers are commonly killed 10 s after they were told to stop.
_LET_GO_S = 3.0
_STOPPED_AFTER_S = 8.0

# How long to wait before a worker of the queue that has ended is replaced. It ends when Postgres restarts.
_RESTART_S = 1.0


def main(settings: Settings) -> None:
    """Work until SIGTERM or SIGINT. Running builds are then handed over to other workers."""
    database = open_database(settings)
    owner = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
    runner = Runner(settings, database, Clouds(settings), owner, threading.Event())
    _log.info("worker %s started, concurrency %d", owner, settings.worker_concurrency)
    if abandoned := scratch.remove_abandoned():
        _log.info("removed %d scratch folders of workers that are gone", abandoned)
    carrying = Carrying(runner, settings.worker_concurrency)
    asyncio.run(_serve(runner, carrying))
    if carrying.count:
        _give_back(carrying)
    database.close()
    _log.info("worker %s stopped", owner)


def open_database(settings: Settings) -> Database:
    """The worker's database. Its time limits are shorter than a lease.

    A worker that is paused in a transaction loses its lock on the build's row before its lease ends, and no
    thread waits longer than that for a lock.
    """
    return Database(
        settings.database_url.get_secret_value(),
        # A build and its heartbeat use a connection only for moments.
        pool_size=max(5, settings.worker_concurrency // 2),
        idle_limit=settings.lease / 2,
        lock_limit=settings.lease / 2,
    )


async def _serve(runner: Runner, carrying: Carrying) -> None:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(logs.on_loop_error)
    stop = asyncio.Event()

    def on_signal() -> None:
        if stop.is_set():
            return
        _log.info("stopping: builds are handed over")
        threading.Thread(target=_end_in_time, name="end in time", daemon=True).start()
        runner.stopping.set()
        stop.set()

    for signal_ in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signal_, on_signal)
    settings = runner.settings
    async with asyncio.TaskGroup() as group:
        for name, concurrency, register in (
            (
                BUILDS,
                settings.worker_concurrency,
                partial(tasks.register_builds, settings=settings, carrying=carrying),
            ),
            (
                CANCELLATIONS,
                tasks.CANCELLATIONS_CONCURRENCY,
                partial(tasks.register_cancellations, runner=runner),
            ),
            (MIRROR, _MIRROR_CONCURRENCY, partial(tasks.register_mirror, runner=runner)),
            (JANITOR, tasks.JANITOR_CONCURRENCY, partial(tasks.register_janitor, runner=runner)),
            (RUNS, tasks.RUNS_CONCURRENCY, partial(tasks.register_runs, runner=runner)),
            (
                NOTIFICATIONS,
                tasks.NOTIFICATIONS_CONCURRENCY,
                partial(tasks.register_notifications, runner=runner),
            ),
        ):
            group.create_task(_keep_working(runner, stop, name, concurrency, register))
        group.create_task(_keep_rescuing(runner, stop))
    # Threads that outlived their jobs need a moment to stop, too.
    ends = loop.time() + 1
    while carrying.count and loop.time() < ends:
        await asyncio.sleep(0.05)


def _end_in_time() -> None:
    """End the process if it does not end by itself, for example because a call to Postgres hangs."""
    time.sleep(_STOPPED_AFTER_S)
    _log.warning(
        "stopped while some work was still running. The leases of the remaining builds end by themselves."
    )
    _exit()


def _give_back(carrying: Carrying) -> None:
    """Free the builds whose threads hang in a call, and end before these threads renew their leases."""
    _log.warning("%d builds hang in a call and are given back", carrying.count)
    try:
        carrying.give_back()
    except Exception as exc:
        _log.warning("builds not given back: %s", logs.in_one_line(exc))
    _exit()


def _exit() -> None:
    logging.shutdown()
    os._exit(0)


async def _keep_working(
    runner: Runner,
    stop: asyncio.Event,
    name: str,
    concurrency: int,
    register: Callable[[procrastinate.App], None],
) -> None:
    """Run a worker of one queue until told to stop. A worker that ends by itself is replaced."""
    while not stop.is_set():
        reason = "its loop returned"
        try:
            await _work(runner, stop, name, concurrency, register)
        except Exception as exc:
            reason = logs.in_one_line(exc)
            if not logs.is_expected(exc):
                _log.exception("queue=%s the worker of the queue failed", name)
        if not stop.is_set():
            _log.warning("queue=%s the worker of the queue ended and is started again: %s", name, reason)
        await _wait(stop, _RESTART_S)


async def _work(
    runner: Runner,
    stop: asyncio.Event,
    name: str,
    concurrency: int,
    register: Callable[[procrastinate.App], None],
) -> None:
    """Run one worker of one queue, until it ends or is told to stop."""
    settings = runner.settings
    queue = procrastinate.App(connector=procrastinate.PsycopgConnector())
    register(queue)
    async with tasks.connections(settings, runner.database.conninfo) as pool, queue.open_async(pool):
        worker = Worker(
            queue,
            queues=[name],
            name=f"{name}@{runner.owner}",
            concurrency=concurrency,
            # Postgres does not announce a job that becomes due for a retry, so the worker must poll.
            fetch_job_polling_interval=1.0,
            install_signal_handlers=False,
            delete_jobs="always",
            update_heartbeat_interval=settings.heartbeat.total_seconds(),
            stalled_worker_timeout=settings.stalled_after.total_seconds(),
            # If the loop ends by itself, it must not wait for its jobs, because their threads go on.
            shutdown_graceful_timeout=0,
        )
        working = asyncio.create_task(worker.run())  # type: ignore[no-untyped-call]
        told = asyncio.create_task(stop.wait())
        await asyncio.wait([working, told], return_when=asyncio.FIRST_COMPLETED)
        told.cancel()
        if stop.is_set():
            worker.shutdown_graceful_timeout = _LET_GO_S
            worker.stop()  # type: ignore[no-untyped-call]
        await working


async def _keep_rescuing(runner: Runner, stop: asyncio.Event) -> None:
    """Rescue the jobs of silent workers. This does not run as a job, so that no other job can delay it."""
    stalled_after = runner.settings.stalled_after
    queue = procrastinate.App(connector=procrastinate.PsycopgConnector())
    async with tasks.connections(runner.settings, runner.database.conninfo) as pool, queue.open_async(pool):
        while not stop.is_set():
            try:
                await tasks.rescue_stalled(queue, pool, stalled_after)
            except Exception as exc:
                if logs.is_expected(exc):
                    _log.warning("stalled jobs not looked for: %s", logs.in_one_line(exc))
                else:
                    _log.exception("stalled jobs not looked for")
            await _wait(stop, stalled_after.total_seconds() / 2)


async def _wait(stop: asyncio.Event, seconds: float) -> None:
    """Wait until the time is over or the process is told to stop."""
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return
