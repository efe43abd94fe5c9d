"""The worker process: carries builds, mirrors the outbox, looks after what nobody owns.

Run as many as you like against one Postgres; each build is carried by one of them at a time.
"""

import asyncio
import logging
import os
import signal
import socket
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

import procrastinate
from psycopg import OperationalError

from app.db.session import Database
from app.queue import BUILDS, UPKEEP
from app.settings import Settings
from worker.clouds import Clouds
from worker.runner import Runner
from worker.tasks import make_queue

_log = logging.getLogger(__name__)

_UPKEEP_CONCURRENCY = 4


def main(settings: Settings) -> None:
    """Work until SIGTERM or SIGINT: then builds are handed over, not finished."""
    asyncio.run(_serve(settings, threading.Event()))


def open_database(settings: Settings) -> Database:
    """The worker's database, whose waits end before a lease does.

    A worker that is paused in a transaction lets go of the build's row before its lease has run out, and no
    thread waits longer than that for a lock.
    """
    return Database(
        settings.database_url.get_secret_value(),
        # A build uses a connection for moments only, and so does its heartbeat.
        pool_size=max(5, settings.worker_concurrency // 2),
        idle_limit=settings.lease / 2,
        lock_limit=settings.lease / 2,
    )


async def _serve(settings: Settings, stopping: threading.Event) -> None:
    loop = asyncio.get_running_loop()
    threads = settings.worker_concurrency + _UPKEEP_CONCURRENCY
    # Blocking tasks run in the loop's default threads: as many as there can be jobs, or some would wait.
    loop.set_default_executor(ThreadPoolExecutor(threads, thread_name_prefix="job"))
    database = open_database(settings)
    owner = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
    runner = Runner(settings, database, Clouds(settings), owner, stopping)
    stop = asyncio.Event()

    def on_signal() -> None:
        _log.info("stopping: builds are handed over")
        stopping.set()
        stop.set()

    for signal_ in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signal_, on_signal)
    _log.info("worker %s started, concurrency %d", owner, settings.worker_concurrency)
    try:
        while not stop.is_set():
            try:
                await _work(runner, stop)
            except (OperationalError, procrastinate.exceptions.ConnectorException) as exc:
                _log.error("database lost: %s", exc)
            if not stop.is_set():
                # The queue's worker returns, without an error, when Postgres restarts: begin again.
                await asyncio.sleep(2)
    finally:
        database.close()
    _log.info("worker %s stopped", owner)


async def _work(runner: Runner, stop: asyncio.Event) -> None:
    """Both queues, until told to stop or until either ends."""
    settings = runner.settings
    queue = make_queue(
        runner,
        stalled_after_s=settings.stalled_after.total_seconds(),
        upkeep_cron=f"* * * * * */{settings.upkeep_every_s}",
    )
    async with queue.open_async():
        working = [
            asyncio.create_task(
                queue.run_worker_async(
                    queues=[name],
                    name=f"{name}@{runner.owner}",
                    concurrency=concurrency,
                    install_signal_handlers=False,
                    delete_jobs="successful",
                    update_heartbeat_interval=settings.heartbeat.total_seconds(),
                    stalled_worker_timeout=settings.stalled_after.total_seconds(),
                )
            )
            for name, concurrency in (
                (BUILDS, settings.worker_concurrency),
                (UPKEEP, _UPKEEP_CONCURRENCY),
            )
        ]
        told = asyncio.create_task(stop.wait())
        await asyncio.wait([*working, told], return_when=asyncio.FIRST_COMPLETED)
        told.cancel()
        # Cancelling a worker lets its jobs end first; ours see `stopping` and hand over.
        for task in working:
            task.cancel()
        for outcome in await asyncio.gather(*working, return_exceptions=True):
            if isinstance(outcome, Exception):
                raise outcome
