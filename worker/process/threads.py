"""Runs blocking work in threads outside the event loop.

The threads are daemons: a call to AWS, to an instance or to Postgres that hangs does not keep the process
from ending. Each has only one piece of work, so work that hangs does not delay other work.
"""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

Result = TypeVar("Result")


def start(name: str, work: Callable[[], Result]) -> Future[Result]:
    """Do the work in a thread of its own."""
    future: Future[Result] = Future()
    # From here on it cannot be cancelled. A caller that stops waiting does not stop the work.
    future.set_running_or_notify_cancel()

    def run() -> None:
        try:
            result = work()
        except BaseException as exc:
            future.set_exception(exc)
        else:
            future.set_result(result)

    threading.Thread(target=run, name=name, daemon=True).start()
    return future


async def finished(work: Future[Result]) -> Result:
    """The work's result. A caller that is cancelled stops waiting, and the work goes on."""
    return await asyncio.wrap_future(work)
