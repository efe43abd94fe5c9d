"""The queue's sending half: jobs are enqueued by task name, in the caller's transaction.

The worker holds the receiving half; the API never imports it.
"""

from uuid import UUID

import procrastinate
import psycopg
from procrastinate.exceptions import AlreadyEnqueued, ConnectorException
from sqlalchemy import ColumnElement, Text, cast, column, literal_column, select, table
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import InstrumentedAttribute, Session

# Each queue has its own slots, so that builds that last hours and calls to AWS that hang delay nothing else.
BUILDS = "builds"
MIRROR = "mirror"
JANITOR = "janitor"

RUN_BUILD = "run_build"
DRAIN_OUTBOX = "drain_outbox"

# The queue's library owns its tables. We declare only the columns that we query.
_jobs = table("procrastinate_jobs", column("task_name", Text), column("status"), column("args", JSONB))

# Its own connector is never opened, because every job is inserted over the caller's connection.
_sender = procrastinate.App(connector=procrastinate.SyncPsycopgConnector())


def enqueue_build(session: Session, build_id: UUID) -> None:
    """Have a worker carry the build.

    Call it once for each build; `lease.unattended` finds the builds for which it must be called again. The
    job has no lock of the queue, because a lock that a dead worker holds would keep every other worker from
    the build. The build's own lease, which ends by itself, decides which worker carries it.
    """
    _enqueue(session, RUN_BUILD, queue=BUILDS, once=None, build_id=str(build_id))


def has_job(build_id: ColumnElement[UUID] | InstrumentedAttribute[UUID]) -> ColumnElement[bool]:
    """An SQL condition: whether the build has a job that is waiting or running."""
    return (
        select(1)
        .select_from(_jobs)
        .where(
            _jobs.c.task_name == RUN_BUILD,
            _jobs.c.status.in_([literal_column("'todo'"), literal_column("'doing'")]),
            _jobs.c.args["build_id"].astext == cast(build_id, Text),
        )
        .exists()
    )


def enqueue_outbox(session: Session) -> None:
    """Have a worker look at the keys in the outbox. Repeating it while the job waits changes nothing."""
    _enqueue(session, DRAIN_OUTBOX, queue=MIRROR, once=DRAIN_OUTBOX)


def _enqueue(session: Session, task: str, *, queue: str, once: str | None, **arguments: str) -> None:
    try:
        # A savepoint: a refused duplicate must not abort the caller's transaction. The session makes it
        # when it is asked for the connection.
        with session.begin_nested():
            connection = session.connection().connection.driver_connection
            _sender.configure_task(
                task, allow_unknown=True, queue=queue, queueing_lock=once, connection=connection
            ).defer(**arguments)
    except AlreadyEnqueued:
        return
    except ConnectorException as exc:
        # Callers must see the same error for a broken connection, whether the session or the queue used it.
        if isinstance(exc.__cause__, psycopg.OperationalError):
            raise OperationalError(f"enqueue {task}", None, exc.__cause__) from exc
        raise
