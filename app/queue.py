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

# Each queue has its own slots: builds that last hours and calls to AWS that hang keep nothing else waiting.
BUILDS = "builds"
MIRROR = "mirror"
JANITOR = "janitor"

RUN_BUILD = "run_build"
DRAIN_OUTBOX = "drain_outbox"

# The queue's library owns its tables; this is as much of them as we ask.
_jobs = table("procrastinate_jobs", column("task_name", Text), column("status"), column("args", JSONB))

# Its own connector is never opened: every job goes in over the caller's connection.
_sender = procrastinate.App(connector=procrastinate.SyncPsycopgConnector())


def enqueue_build(session: Session, build_id: UUID) -> None:
    """Have a worker carry the build.

    To be called once for each build; `lease.unattended` says when to do it again. The job has no lock of the
    queue: a lock that a dead worker holds would keep every other worker from the build. The build's
    own lease, which ends by itself, decides who carries it.
    """
    _enqueue(session, RUN_BUILD, queue=BUILDS, once=None, build_id=str(build_id))


def has_job(build_id: ColumnElement[UUID] | InstrumentedAttribute[UUID]) -> ColumnElement[bool]:
    """SQL: whether a job waits for the build, or carries it."""
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
        # The same trouble of the same connection must look the same to callers, whoever ran the statement.
        if isinstance(exc.__cause__, psycopg.OperationalError):
            raise OperationalError(f"enqueue {task}", None, exc.__cause__) from exc
        raise
