"""What a worker writes while it carries a build: lease, steps, progress, log, inputs, the end.

Every write checks the lease's epoch under a row lock: a worker that was paused, and whose build another
has taken over, changes nothing any more.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import func, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app.db.tables import Artifact, Build, BuildInput, BuildLogChunk, BuildStep, Model, Outbox
from app.queue import enqueue_outbox, has_job
from app.registry.builds import log_size
from app.registry.models import ArtifactRef
from app.registry.stages import PromotionRequest, promote
from app.storage.keys import CONTENT_TYPES, verdict_key
from app.words import BuildState, Stage, StepName, StepState, Verdict

ACTIVE = (BuildState.QUEUED, BuildState.RUNNING)

_UNATTENDED_LOCK = 0x7A52


class LeaseLost(Exception):
    """Another worker has the build, or it has ended: apply nothing."""


@dataclass(frozen=True)
class Failure:
    """Why a build fails: the step, a stable code, and what is wrong and what to do."""

    step: StepName
    code: str
    message: str


@dataclass(frozen=True)
class Lease:
    """A worker's hold on a build."""

    build_id: UUID
    epoch: int


@dataclass(frozen=True)
class RunView:
    """A build as the worker that holds it sees it."""

    lease: Lease
    prefix: str
    version: str
    sha: str
    branch: str
    search_config: str
    promote_to: Stage | None
    created_at: datetime
    failure: Failure | None
    done: frozenset[StepName]
    outputs: dict[StepName, dict[str, Any]] = field(repr=False)

    @property
    def id(self) -> UUID:
        return self.lease.build_id


@dataclass(frozen=True)
class InputRecord:
    """An input of a build; see the table's check for the kinds."""

    kind: str
    name: str
    sha256: str | None = None
    size_bytes: int | None = None
    origin: str | None = None


@dataclass(frozen=True)
class Publication:
    """What a build publishes."""

    artifacts: tuple[ArtifactRef, ...]
    metrics: dict[str, Any]
    verdict: Verdict
    verdict_reason: str


def take(session: Session, build_id: UUID, owner: str, lease: timedelta) -> Lease | None:
    """Take an active build whose lease is free or has run out; None when there is nothing to take.

    The database's clock decides.
    """
    epoch = session.scalar(
        update(Build)
        .where(
            Build.id == build_id,
            Build.state.in_(ACTIVE),
            or_(Build.lease_expires_at.is_(None), Build.lease_expires_at < func.clock_timestamp()),
        )
        .values(
            lease_epoch=Build.lease_epoch + 1,
            lease_owner=owner,
            lease_expires_at=func.clock_timestamp() + lease,
            state=BuildState.RUNNING,
            started_at=func.coalesce(Build.started_at, func.clock_timestamp()),
        )
        .returning(Build.lease_epoch)
    )
    return None if epoch is None else Lease(build_id, epoch)


def renew(session: Session, lease: Lease, duration: timedelta) -> None:
    """Raises LeaseLost."""
    _fence(session, lease).lease_expires_at = _clock(session) + duration


def release(session: Session, lease: Lease) -> None:
    """Let another worker take the build at once. Raises LeaseLost."""
    build = _fence(session, lease)
    build.lease_owner = None
    build.lease_expires_at = None


def view(session: Session, lease: Lease) -> RunView:
    """Raises LeaseLost."""
    build = _fence(session, lease)
    steps = session.scalars(select(BuildStep).where(BuildStep.build_id == build.id)).all()
    failure = None
    if build.failure_code is not None:
        failure = Failure(StepName(build.failure_step or ""), build.failure_code, build.failure_message or "")
    return RunView(
        lease=lease,
        prefix=build.prefix,
        version=build.version,
        sha=build.sha,
        branch=build.branch,
        search_config=build.search_config,
        promote_to=Stage(build.promote_to) if build.promote_to else None,
        created_at=build.created_at,
        failure=failure,
        done=frozenset(StepName(step.name) for step in steps if step.state == StepState.SUCCEEDED),
        outputs={StepName(step.name): step.output for step in steps if step.output is not None},
    )


def start_step(session: Session, lease: Lease, name: StepName) -> timedelta:
    """Returns how long ago the step was first started, by whichever worker. Raises LeaseLost."""
    _fence(session, lease)
    step = _step(session, lease, name)
    now = _clock(session)
    step.state = StepState.RUNNING
    step.attempts += 1
    step.started_at = step.started_at or now
    step.finished_at = None
    step.message = None
    return now - step.started_at


def finish_step(session: Session, lease: Lease, name: StepName, output: dict[str, Any]) -> None:
    """Raises LeaseLost."""
    build = _fence(session, lease)
    step = _step(session, lease, name)
    step.state = StepState.SUCCEEDED
    step.output = output
    step.message = None
    step.finished_at = _clock(session)
    build.progress = None


def note_step(session: Session, lease: Lease, name: StepName, message: str) -> None:
    """What a step that is still being tried is waiting for. Raises LeaseLost."""
    _fence(session, lease)
    _step(session, lease, name).message = message


def fail_step(session: Session, lease: Lease, failure: Failure) -> None:
    """Record the failure; the build ends only after its instance is gone. Raises LeaseLost."""
    build = _fence(session, lease)
    step = _step(session, lease, failure.step)
    step.state = StepState.FAILED
    step.message = failure.message
    step.finished_at = _clock(session)
    build.failure_step = failure.step
    build.failure_code = failure.code
    build.failure_message = failure.message
    build.progress = None


def set_progress(session: Session, lease: Lease, progress: dict[str, Any]) -> None:
    """Raises LeaseLost."""
    _fence(session, lease).progress = progress


def checkpoint_step(session: Session, lease: Lease, name: StepName, output: dict[str, Any]) -> None:
    """What a step that is under way has done so far. Raises LeaseLost."""
    _fence(session, lease)
    _step(session, lease, name).output = output


def append_log(session: Session, lease: Lease, content: str) -> None:
    """Raises LeaseLost."""
    if not content:
        return
    _fence(session, lease)
    # Postgres text holds every character but this one.
    content = content.replace("\x00", "\N{REPLACEMENT CHARACTER}")
    start = log_size(session, lease.build_id)
    size = len(content.encode())
    session.add(BuildLogChunk(build_id=lease.build_id, start=start, size_bytes=size, content=content))


def record_inputs(session: Session, lease: Lease, inputs: Iterable[InputRecord]) -> None:
    """Record what shapes the model; recording the same again changes nothing. Raises LeaseLost."""
    _fence(session, lease)
    for item in inputs:
        values = {
            "sha256": item.sha256,
            "size_bytes": item.size_bytes,
            "origin": item.origin,
        }
        session.execute(
            insert(BuildInput)
            .values(build_id=lease.build_id, kind=item.kind, name=item.name, **values)
            .on_conflict_do_update(index_elements=["build_id", "kind", "name"], set_=values)
        )


def inputs_of(session: Session, build_id: UUID) -> list[InputRecord]:
    rows = session.scalars(
        select(BuildInput).where(BuildInput.build_id == build_id).order_by(BuildInput.kind, BuildInput.name)
    )
    return [InputRecord(row.kind, row.name, row.sha256, row.size_bytes, row.origin) for row in rows]


def publish(session: Session, lease: Lease, publication: Publication, output: dict[str, Any]) -> None:
    """The model comes to exist, and its build succeeds, in one transaction. Raises LeaseLost.

    Its artifacts must be in place by now.
    """
    finish_step(session, lease, StepName.PUBLISH, output)
    build = _fence(session, lease)
    model = Model(
        prefix=build.prefix,
        version=build.version,
        sha=build.sha,
        branch=build.branch,
        build_id=build.id,
        metrics=publication.metrics,
        verdict=publication.verdict,
        verdict_reason=publication.verdict_reason,
    )
    session.add(model)
    session.flush()
    session.add_all(
        Artifact(
            model_id=model.id,
            name=artifact.name,
            key=artifact.key,
            sha256=artifact.sha256,
            size_bytes=artifact.size_bytes,
            content_type=CONTENT_TYPES[artifact.name],
        )
        for artifact in publication.artifacts
    )
    session.add(Outbox(key=verdict_key(build.prefix, publication.verdict)))
    session.flush()
    if build.promote_to is not None:
        promote(
            session,
            build.requested_by,
            build.prefix,
            PromotionRequest(Stage(build.promote_to), "with its build"),
        )
    # After the promotion's lock on its stage, as every promotion does: the other way round they deadlock.
    enqueue_outbox(session)
    _end(session, build, BuildState.SUCCEEDED)


def fail(session: Session, lease: Lease) -> None:
    """End the build as failed, its pending steps as skipped. Raises LeaseLost."""
    build = _fence(session, lease)
    session.execute(
        update(BuildStep)
        .where(BuildStep.build_id == build.id, BuildStep.state.in_((StepState.PENDING, StepState.RUNNING)))
        .values(state=StepState.SKIPPED)
    )
    _end(session, build, BuildState.FAILED)


def unattended(session: Session) -> list[UUID]:
    """Active builds that no worker holds and no job will bring to one, oldest first.

    Whoever asks at the same time waits until this transaction ends, so that none enqueues the same twice.
    """
    session.execute(select(func.pg_advisory_xact_lock(_UNATTENDED_LOCK)))
    return list(
        session.scalars(
            select(Build.id)
            .where(
                Build.state.in_(ACTIVE),
                or_(Build.lease_expires_at.is_(None), Build.lease_expires_at < func.clock_timestamp()),
                ~has_job(Build.id),
            )
            .order_by(Build.created_at)
        )
    )


def state_of(session: Session, build_id: UUID) -> BuildState | None:
    """None for a build that this registry does not know."""
    state = session.scalar(select(Build.state).where(Build.id == build_id))
    return None if state is None else BuildState(state)


def _end(session: Session, build: Build, state: BuildState) -> None:
    # Read first: asking the database flushes, and half of the change breaks its constraints.
    now = _clock(session)
    build.state = state
    build.finished_at = now
    build.progress = None
    build.lease_owner = None
    build.lease_expires_at = None


def _fence(session: Session, lease: Lease) -> Build:
    build = session.scalar(
        select(Build)
        .where(Build.id == lease.build_id, Build.lease_epoch == lease.epoch, Build.state.in_(ACTIVE))
        .with_for_update()
        # The row as it is under the lock, not as this session may have read it before.
        .execution_options(populate_existing=True)
    )
    if build is None:
        msg = f"build {lease.build_id} is no longer held with epoch {lease.epoch}"
        raise LeaseLost(msg)
    return build


def _step(session: Session, lease: Lease, name: StepName) -> BuildStep:
    return session.get_one(BuildStep, (lease.build_id, name))


def _clock(session: Session) -> datetime:
    now: datetime = session.execute(select(func.clock_timestamp())).scalar_one()
    return now
