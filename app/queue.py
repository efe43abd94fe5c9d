"""The queue's sending half: jobs are enqueued by task name, in the caller's transaction.

The worker holds the receiving half; the API never imports it.
"""

from uuid import UUID

import procrastinate
import psycopg
from procrastinate.exceptions import AlreadyEnqueued, ConnectorException
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

# Two queues: builds that last hours must not keep the upkeep from running.
BUILDS = "builds"
UPKEEP = "upkeep"

RUN_BUILD = "run_build"
DRAIN_OUTBOX = "drain_outbox"

# Its own connector is never opened: every job goes in over the caller's connection.
_sender = procrastinate.App(connector=procrastinate.SyncPsycopgConnector())


def enqueue_build(session: Session, build_id: UUID) -> None:
    """Have a worker carry the build. Repeating it while the job waits changes nothing."""
    # One job at a time carries a build; a second one would only wait for the first one's lease.
    _enqueue(session, RUN_BUILD, queue=BUILDS, lock=f"build:{build_id}", build_id=str(build_id))


def enqueue_outbox(session: Session) -> None:
    """Have a worker carry out what the outbox holds."""
    _enqueue(session, DRAIN_OUTBOX, queue=UPKEEP, lock="outbox")


def _enqueue(session: Session, task: str, *, queue: str, lock: str, **arguments: str) -> None:
    try:
        # A savepoint: a refused duplicate must not abort the caller's transaction. The session makes it
        # when it is asked for the connection.
        with session.begin_nested():
            connection = session.connection().connection.driver_connection
            _sender.configure_task(
                task, allow_unknown=True, queue=queue, lock=lock, queueing_lock=lock, connection=connection
            ).defer(**arguments)
    except AlreadyEnqueued:
        return
    except ConnectorException as exc:
        # The same trouble of the same connection must look the same to callers, whoever ran the statement.
        if isinstance(exc.__cause__, psycopg.OperationalError):
            raise OperationalError(f"enqueue {task}", None, exc.__cause__) from exc
        raise
