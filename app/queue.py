"""The sending half of the queue. Jobs are enqueued by task name, in the caller's transaction.

The receiving half is in worker/, which the API never imports.
"""

from typing import Any
from uuid import UUID

import procrastinate
import psycopg
from procrastinate.exceptions import AlreadyEnqueued, ConnectorException
from sqlalchemy import (
    ColumnElement,
    Text,
    case,
    cast,
    column,
    func,
    literal,
    literal_column,
    null,
    select,
    table,
)
from sqlalchemy.dialects.postgresql import JSONB, array
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import InstrumentedAttribute, Session
from sqlalchemy.types import UserDefinedType

from app.words import NotificationTarget

# Each queue has its own slots, so that builds that last hours and calls to AWS that hang delay nothing else.
BUILDS = "builds"
MIRROR = "mirror"
JANITOR = "janitor"
RUNS = "runs"
CANCELLATIONS = "cancellations"
NOTIFICATIONS = "notifications"

RUN_BUILD = "run_build"
DRAIN_OUTBOX = "drain_outbox"
CARRY_RUN = "carry_run"
END_CANCELLED = "end_cancelled"
# Each target has a task, so that one that hangs does not delay the others.
SEND_NOTIFICATIONS = {target: f"send_to_{target}" for target in NotificationTarget}

# The queue's library owns its tables. We declare only the columns that we query.
_jobs = table(
    "procrastinate_jobs",
    column("queue_name", Text),
    column("task_name", Text),
    column("status"),
    column("args", JSONB),
)

# Its own connector is never opened, because every job is inserted over the caller's connection.
_sender = procrastinate.App(connector=procrastinate.SyncPsycopgConnector())


def enqueue_build(session: Session, build_id: UUID) -> None:
    """Have a worker work on the build.

    Call it once for each build; `lease.unattended` finds the builds for which it must be called again. The
    job does not use the queue's locks, because a lock that a dead worker holds would keep every other worker
    from the build. The build's lease, which expires by itself, decides which worker works on it.
    """
    _enqueue(session, RUN_BUILD, queue=BUILDS, once=None, build_id=str(build_id))


def enqueue_cancellation(session: Session, build_id: UUID) -> None:
    """Have a worker end the build, even if all of them are busy with builds."""
    _enqueue(session, END_CANCELLED, queue=CANCELLATIONS, once=None, build_id=str(build_id))


def build_job(build_id: ColumnElement[UUID]) -> ColumnElement[Any]:
    """An SQL expression that enqueues a build's job, as `enqueue_build` does.

    It lets one statement store a build and its job. It enqueues a job each time it is evaluated.
    """
    return _defer([_job(BUILDS, RUN_BUILD, null(), func.jsonb_build_object("build_id", build_id))])


def _job(
    queue: str, task: str, lock: ColumnElement[Any], arguments: ColumnElement[Any]
) -> ColumnElement[Any]:
    return func.row(queue, task, 0, lock, null(), arguments, null())


def _defer(jobs: list[ColumnElement[Any]]) -> ColumnElement[Any]:
    return func.procrastinate_defer_jobs_v1(cast(array(jobs), _JobsToDefer()))


class _JobsToDefer(UserDefinedType[Any]):
    """The type of the argument of the queue's function that enqueues jobs."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        return "procrastinate_job_to_defer_v1[]"


def has_job(build_id: ColumnElement[UUID] | InstrumentedAttribute[UUID]) -> ColumnElement[bool]:
    """An SQL condition that is true if the build has a waiting or running job."""
    return _has_job(RUN_BUILD, "build_id", build_id)


def enqueue_run(session: Session, run_id: UUID) -> None:
    """Have a worker carry the run. As with builds, the run's own lease decides which worker carries it."""
    _enqueue(session, CARRY_RUN, queue=RUNS, once=None, run_id=str(run_id))


def has_run_job(run_id: ColumnElement[UUID] | InstrumentedAttribute[UUID]) -> ColumnElement[bool]:
    """An SQL condition that is true if the run has a waiting or running job."""
    return _has_job(CARRY_RUN, "run_id", run_id)


def _has_job(
    task: str, argument: str, value: ColumnElement[UUID] | InstrumentedAttribute[UUID]
) -> ColumnElement[bool]:
    return (
        select(1)
        .select_from(_jobs)
        .where(
            _jobs.c.task_name == task,
            _jobs.c.status.in_([literal_column("'todo'"), literal_column("'doing'")]),
            _jobs.c.args[argument].astext == cast(value, Text),
        )
        .exists()
    )


def enqueue_outbox(session: Session) -> None:
    """Have a worker look at the keys in the outbox. Repeating it while the job waits changes nothing."""
    _enqueue(session, DRAIN_OUTBOX, queue=MIRROR, once=DRAIN_OUTBOX)


def enqueue_notifications(session: Session) -> None:
    """Have a worker send the notifications that are due, unless jobs for that wait already.

    In contrast to `enqueue_outbox`, it waits for no other transaction, so it may come before other locks. If
    the job that waits starts before this transaction commits, the schedule finds the notifications.
    """
    session.execute(select(*(_unless_waiting(task) for task in SEND_NOTIFICATIONS.values())))


def _unless_waiting(task: str) -> ColumnElement[Any]:
    """Enqueues a job of the task, of which one at a time runs, unless one waits already."""
    waits = (
        select(1)
        .select_from(_jobs)
        .where(
            # Constants, so that Postgres can tell that its index on the queue's name serves.
            _jobs.c.queue_name == literal_column(f"'{NOTIFICATIONS}'"),
            _jobs.c.status == literal_column("'todo'"),
            _jobs.c.task_name == task,
        )
        .exists()
    )
    job = _job(NOTIFICATIONS, task, literal(task), func.jsonb_build_object())
    return case((~waits, _defer([job])))


def _enqueue(session: Session, task: str, *, queue: str, once: str | None, **arguments: str) -> None:
    try:
        # The savepoint keeps a refused duplicate from aborting the caller's transaction. The session sets it
        # when the connection is requested.
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
