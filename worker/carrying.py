"""The builds that this process carries, even when the queue's jobs for them have ended."""

import logging
from concurrent.futures import Future
from functools import partial
from uuid import UUID

from app.db.session import is_temporary
from app.registry.builds.lease import release_all_of
from worker.errors import Busy, HandOver
from worker.process import threads
from worker.process.logs import in_one_line
from worker.runner import Runner

_log = logging.getLogger(__name__)


class Carrying:
    """Carries each build in a thread of its own, and counts the threads.

    The queue's worker ends when Postgres restarts, and its jobs end with it. The threads go on, and their
    leases are renewed once Postgres is back. The next job for such a build waits for its existing thread.
    """

    def __init__(self, runner: Runner, limit: int) -> None:
        self._runner = runner
        self._limit = limit
        self._running: dict[UUID, Future[None]] = {}

    @property
    def count(self) -> int:
        return len(self._running)

    async def carry(self, build_id: UUID) -> None:
        """Wait until the build has been carried by this process. Raises what Runner.carry raises.

        Raises Busy also when the process carries as many builds as it may.
        """
        running = self._running.get(build_id)
        if running is None:
            if self.count >= self._limit:
                raise Busy
            running = threads.start(f"build-{build_id}", partial(self._carry, build_id))
            self._running[build_id] = running
            running.add_done_callback(lambda _: self._running.pop(build_id, None))
        await threads.finished(running)

    def _carry(self, build_id: UUID) -> None:
        try:
            self._runner.carry(build_id)
        except Busy:
            raise
        except HandOver:
            _log.info("build_id=%s handed over", build_id)
            raise
        except Exception as exc:
            if is_temporary(exc):
                _log.warning(
                    "build_id=%s put off: the database does not answer: %s", build_id, in_one_line(exc)
                )
            else:
                _log.exception("build_id=%s put off by an error", build_id)
            raise

    def give_back(self) -> None:
        """Let other workers take the builds that are still carried: this process ends at once.

        Only for a process that ends: its threads would renew the leases.
        """
        with self._runner.database.transaction() as session:
            release_all_of(session, self._runner.owner)
