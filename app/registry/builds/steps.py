"""The steps of a build: how a worker records them, and how they are shown."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from app.db.tables import Build, BuildStep
from app.registry.builds import events
from app.registry.builds.clock import now
from app.registry.builds.lease import Lease, fence
from app.registry.public import public_text
from app.words import BuildKind, EventType, Stage, StepName, StepState, known


@dataclass(frozen=True)
class Failure:
    """Why a build fails: the step, a stable code, and a message that says what is wrong and what to do."""

    step: str
    code: str
    message: str


@dataclass(frozen=True)
class BuildView:
    """A build as the worker that holds it sees it.

    Step names are text: a newer worker may have done steps that this one does not know.
    """

    lease: Lease
    kind: BuildKind
    prefix: str
    version: str
    sha: str
    branch: str
    search_config: str
    thresholds: str | None
    promote_to: Stage | None
    forced: bool
    failure: Failure | None
    cancelled_by: str | None
    retry_of: UUID | None
    reproduces: UUID | None
    reproduction_wanted: dict[str, Any] | None
    takings: int
    last_error: str | None
    started: frozenset[str]
    done: frozenset[str]
    outputs: dict[str, dict[str, Any]] = field(repr=False)
    checkpoints: dict[str, dict[str, Any]] = field(repr=False)

    @property
    def id(self) -> UUID:
        return self.lease.build_id


@dataclass(frozen=True)
class StepView:
    """A step as readers see it, whether it has started or not."""

    name: str
    state: str
    attempts: int = 0
    started_at: datetime | None = None
    finished_at: datetime | None = None
    output: dict[str, Any] | None = None
    message: str | None = None
    taken_over_from: UUID | None = None


def view(session: Session, lease: Lease) -> BuildView:
    """Raises LeaseLost."""
    build = fence(session, lease)
    session.refresh(build, ["search_config", "thresholds"])
    rows = session.scalars(select(BuildStep).where(BuildStep.build_id == build.id)).all()
    failure = None
    if build.failure_code is not None:
        failure = Failure(build.failure_step or "", build.failure_code, build.failure_message or "")
    return BuildView(
        lease=lease,
        kind=BuildKind(build.kind),
        prefix=build.prefix,
        version=build.version,
        sha=build.sha,
        branch=build.branch,
        search_config=build.search_config,
        thresholds=build.thresholds,
        promote_to=Stage(build.promote_to) if build.promote_to else None,
        forced=build.forced,
        failure=failure,
        cancelled_by=build.cancel_requested_by,
        retry_of=build.retry_of,
        reproduces=build.reproduces,
        reproduction_wanted=build.reproduction_wanted,
        takings=build.takings,
        last_error=build.last_error,
        started=frozenset(row.name for row in rows),
        done=frozenset(row.name for row in rows if row.state == StepState.SUCCEEDED),
        outputs={row.name: row.output for row in rows if row.output is not None},
        checkpoints={row.name: row.checkpoint for row in rows if row.checkpoint is not None},
    )


def start(session: Session, lease: Lease, name: StepName) -> timedelta:
    """Record that work on the step begins. Returns how long workers have already worked on it.

    Raises LeaseLost.
    """
    fence(session, lease)
    at = now(session)
    step = session.get(BuildStep, (lease.build_id, name))
    if step is None:
        step = BuildStep(build_id=lease.build_id, name=name, attempts=0, started_at=at, worked_s=0.0)
        session.add(step)
    step.state = StepState.RUNNING
    step.attempts += 1
    step.resumed_at = at
    step.finished_at = None
    step.message = None
    session.flush()
    events.add(session, lease.build_id, EventType.STEP_STARTED, {"step": name, "attempt": step.attempts})
    return timedelta(seconds=step.worked_s)


def finish(session: Session, lease: Lease, name: StepName, output: dict[str, Any]) -> None:
    """Raises LeaseLost."""
    build = fence(session, lease)
    build.takings = 0
    step = session.get_one(BuildStep, (lease.build_id, name))
    step.state = StepState.SUCCEEDED
    step.output = output
    step.message = None
    step.finished_at = now(session)
    build.progress = None
    session.flush()
    events.add(session, build.id, EventType.STEP_SUCCEEDED, {"step": name})


def note(session: Session, lease: Lease, name: StepName, message: str) -> None:
    """Record what a running step is waiting for. Raises LeaseLost."""
    # A worker that can say what it is waiting for is working.
    fence(session, lease).takings = 0
    message = public_text(message)
    session.get_one(BuildStep, (lease.build_id, name)).message = message
    session.flush()
    events.add(session, lease.build_id, EventType.NOTE, {"step": name, "message": message})


def fail(session: Session, lease: Lease, failure: Failure) -> None:
    """Record the failure. The build ends only after its instance is terminated. Raises LeaseLost."""
    build = fence(session, lease)
    # The message may quote a URL with a password or a signature.
    message = public_text(failure.message)
    step = session.get(BuildStep, (lease.build_id, failure.step))
    at = now(session)
    if step is None:
        step = BuildStep(build_id=lease.build_id, name=failure.step, attempts=0, started_at=at, worked_s=0.0)
        session.add(step)
    step.state = StepState.FAILED
    step.message = message
    step.finished_at = at
    build.failure_step = failure.step
    build.failure_code = failure.code
    build.failure_message = message
    build.progress = None
    session.flush()
    events.add(
        session,
        build.id,
        EventType.STEP_FAILED,
        {"step": failure.step, "code": failure.code, "message": message},
    )


def rewind(session: Session, lease: Lease, name: StepName, reason: str) -> None:
    """Make the build start again from the named step. Raises LeaseLost.

    This is for a build that lost its instance. Its earlier events and launches are kept.
    """
    build = fence(session, lease)
    flow = BuildKind(build.kind).steps
    again = flow[flow.index(name) :]
    session.execute(delete(BuildStep).where(BuildStep.build_id == build.id, BuildStep.name.in_(again)))
    build.progress = None
    session.flush()
    events.add(session, build.id, EventType.REWOUND, {"step": name, "reason": reason})


def checkpoint(session: Session, lease: Lease, name: StepName, done: dict[str, Any]) -> None:
    """Store what a running step has done so far. Raises LeaseLost."""
    fence(session, lease).takings = 0
    session.get_one(BuildStep, (lease.build_id, name)).checkpoint = done


def set_report(session: Session, lease: Lease, report: dict[str, Any]) -> None:
    """Store what the validation found. Raises LeaseLost."""
    fence(session, lease).validation_report = report


def set_progress(session: Session, lease: Lease, progress: dict[str, Any]) -> None:
    """Raises LeaseLost."""
    build = fence(session, lease)
    build.progress = progress
    build.takings = 0
    session.flush()
    events.notify(session, lease.build_id)


def shown(build: Build) -> list[StepView]:
    """All steps of the build in the order of its flow, including those that have not started.

    Steps that this version does not know come last, as the database has them.
    """
    rows = {row.name: row for row in build.steps}
    kind = known(BuildKind, build.kind)
    names: tuple[str, ...] = () if kind is None else kind.steps
    ended = build.finished_at is not None
    not_started = StepState.SKIPPED if ended else StepState.PENDING
    views = [
        _shown(rows[name], ended=ended) if name in rows else StepView(name, not_started) for name in names
    ]
    return views + [_shown(row, ended=ended) for row in build.steps if row.name not in names]


def _shown(row: BuildStep, *, ended: bool) -> StepView:
    # A step that was running when its build ended for another reason will not go on.
    state = StepState.SKIPPED if ended and row.state == StepState.RUNNING else row.state
    return StepView(
        row.name,
        state,
        row.attempts,
        row.started_at,
        row.finished_at,
        row.output,
        row.message,
        row.taken_over_from,
    )
