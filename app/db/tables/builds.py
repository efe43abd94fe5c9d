"""Builds, their steps, events, launches and logs."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Identity,
    Index,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.db.storable import MESSAGE_LIMIT, StorableText
from app.db.tables.base import Base, one_of
from app.words import (
    Actor,
    BuildKind,
    BuildState,
    EventType,
    LaunchState,
    Market,
    Stage,
    StepState,
)


class Build(Base):
    """One attempt to produce the model of a prefix."""

    __tablename__ = "builds"

    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=func.gen_random_uuid())
    kind: Mapped[str] = mapped_column(server_default=BuildKind.TRAIN.value)
    prefix: Mapped[str]
    version: Mapped[str]
    sha: Mapped[str]
    branch: Mapped[str]
    # Each may have up to 1 MiB, so they are loaded only where they are needed.
    search_config: Mapped[str] = mapped_column(deferred=True, deferred_raiseload=True)
    base_search_config: Mapped[str | None] = mapped_column(deferred=True, deferred_raiseload=True)
    # The file of thresholds that decides about the model. Null where the registry's own rules do.
    thresholds: Mapped[str | None] = mapped_column(deferred=True, deferred_raiseload=True)
    # What the validation of the model found, as check_result.json has it.
    validation_report: Mapped[dict[str, Any] | None] = mapped_column(deferred=True, deferred_raiseload=True)
    promote_to: Mapped[str | None]
    forced: Mapped[bool] = mapped_column(server_default=text("false"))
    requested_by: Mapped[str]
    requested_by_kind: Mapped[str] = mapped_column(server_default=Actor.TOKEN.value)
    state: Mapped[str] = mapped_column(server_default=BuildState.QUEUED.value)
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]

    progress: Mapped[dict[str, Any] | None]
    # Set as soon as a step has failed. The build ends later, when its instance is terminated.
    failure_step: Mapped[str | None]
    failure_code: Mapped[str | None]
    failure_message: Mapped[str | None] = mapped_column(StorableText(MESSAGE_LIMIT))

    # Fencing: every write of a worker checks the epoch that it took the build with.
    lease_epoch: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    lease_owner: Mapped[str | None]
    lease_expires_at: Mapped[datetime | None]
    # How often workers have taken the build since it last made progress, and what stopped the last of them.
    takings: Mapped[int] = mapped_column(server_default=text("0"))
    last_error: Mapped[str | None] = mapped_column(StorableText(MESSAGE_LIMIT))

    # The build goes on being active until its instance is terminated.
    cancel_requested_at: Mapped[datetime | None]
    cancel_requested_by: Mapped[str | None]
    cancel_requested_by_kind: Mapped[str | None]

    # The failed or cancelled build that this one repeats. What still holds of it is taken over.
    retry_of: Mapped[UUID | None] = mapped_column(ForeignKey("builds.id", ondelete="RESTRICT"))

    # Of a build of the kind `reproduce`: the model that it makes again, and what was asked for. The output of
    # its step `compare` says what came of it.
    reproduces: Mapped[UUID | None] = mapped_column(
        ForeignKey("models.id", ondelete="RESTRICT", use_alter=True)
    )
    reproduction_wanted: Mapped[dict[str, Any] | None]

    steps: Mapped[list["BuildStep"]] = relationship(
        lazy="raise", order_by="BuildStep.started_at", foreign_keys="BuildStep.build_id"
    )
    launches: Mapped[list["Launch"]] = relationship(lazy="raise", order_by="Launch.attempt")

    __table_args__ = (
        CheckConstraint(one_of("kind", BuildKind), name="kind"),
        CheckConstraint(one_of("requested_by_kind", Actor), name="requested_by_kind"),
        CheckConstraint(one_of("state", BuildState), name="state"),
        CheckConstraint(f"promote_to IS NULL OR {one_of('promote_to', Stage)}", name="promote_to"),
        CheckConstraint("(state IN ('queued', 'running')) = (finished_at IS NULL)", name="finished"),
        CheckConstraint("state <> 'failed' OR failure_code IS NOT NULL", name="failure"),
        CheckConstraint(
            "num_nonnulls(failure_step, failure_code, failure_message) IN (0, 3)", name="failure_whole"
        ),
        CheckConstraint(
            "num_nonnulls(cancel_requested_at, cancel_requested_by, cancel_requested_by_kind) IN (0, 3)",
            name="cancel_whole",
        ),
        CheckConstraint("sha ~ '^[0-9a-f]{7,40}$'", name="sha"),
        CheckConstraint("prefix = version || '-' || left(sha, 7)", name="prefix"),
        CheckConstraint("(kind = 'reproduce') = (reproduces IS NOT NULL)", name="reproduces"),
        # Collision protection: a prefix has at most one build that is active or has succeeded.
        Index(
            "uq_builds_prefix_live",
            "prefix",
            unique=True,
            postgresql_where=text("kind = 'train' AND state IN ('queued', 'running', 'succeeded')"),
        ),
        # A model is reproduced by one build at a time.
        Index(
            "uq_builds_reproduces_active",
            "reproduces",
            unique=True,
            postgresql_where=text("kind = 'reproduce' AND state IN ('queued', 'running')"),
        ),
        # Beside the order of the list, what a search for a text looks at.
        Index(
            "ix_builds_listed",
            text("created_at DESC"),
            text("id DESC"),
            postgresql_include=["prefix", "branch", "state"],
        ),
        Index("ix_builds_version_created", "version", text("created_at DESC"), text("id DESC")),
        Index("ix_builds_prefix_created", "prefix", text("created_at DESC"), text("id DESC")),
        Index("ix_builds_branch_created", "branch", text("created_at DESC"), text("id DESC")),
        Index("ix_builds_state_created", "state", text("created_at DESC"), text("id DESC")),
        Index("ix_builds_kind_created", "kind", text("created_at DESC"), text("id DESC")),
        Index(
            "ix_builds_reproduces",
            "reproduces",
            text("created_at DESC"),
            text("id DESC"),
            postgresql_where=text("reproduces IS NOT NULL"),
        ),
        Index("ix_builds_active", "created_at", postgresql_where=text("state IN ('queued', 'running')")),
        Index(
            "ix_builds_unsuccessful",
            "finished_at",
            postgresql_where=text("state IN ('failed', 'cancelled')"),
        ),
        Index("ix_builds_retry_of", "retry_of", postgresql_where=text("retry_of IS NOT NULL")),
    )


class BuildStep(Base):
    """One step of a build. The row is made when the step starts; the build's kind says which steps follow."""

    __tablename__ = "build_steps"

    build_id: Mapped[UUID] = mapped_column(ForeignKey("builds.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    state: Mapped[str]
    attempts: Mapped[int]
    started_at: Mapped[datetime]
    # For the deadline: how many seconds workers have spent on the step, and when the current worker began.
    worked_s: Mapped[float] = mapped_column(server_default=text("0"))
    resumed_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    # `checkpoint` is how far a running step has got; `output` is what a finished step found or made.
    checkpoint: Mapped[dict[str, Any] | None]
    output: Mapped[dict[str, Any] | None]
    message: Mapped[str | None] = mapped_column(StorableText(MESSAGE_LIMIT))
    # The build that did this step, where another build, which was retried, had done it already.
    taken_over_from: Mapped[UUID | None] = mapped_column(ForeignKey("builds.id", ondelete="RESTRICT"))

    __table_args__ = (CheckConstraint(one_of("state", StepState.stored()), name="state"),)


class BuildEvent(Base):
    """Something that happened to a build. The ids of a build's events are in the order of their commits."""

    __tablename__ = "build_events"

    build_id: Mapped[UUID] = mapped_column(ForeignKey("builds.id", ondelete="CASCADE"), primary_key=True)
    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    type: Mapped[str]
    data: Mapped[dict[str, Any]]

    __table_args__ = (CheckConstraint(one_of("type", EventType), name="type"),)


class Launch(Base):
    """One request for an instance, recorded before EC2 is asked."""

    __tablename__ = "launches"

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    build_id: Mapped[UUID] = mapped_column(ForeignKey("builds.id", ondelete="CASCADE"))
    attempt: Mapped[int]
    region: Mapped[str]
    zone: Mapped[str]
    subnet_id: Mapped[str]
    instance_type: Mapped[str]
    market: Mapped[str]
    client_token: Mapped[str] = mapped_column(unique=True)
    state: Mapped[str]
    instance_id: Mapped[str | None]
    refusal_code: Mapped[str | None]
    refusal_message: Mapped[str | None] = mapped_column(StorableText(MESSAGE_LIMIT))
    requested_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    launched_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]

    __table_args__ = (
        CheckConstraint(one_of("market", Market), name="market"),
        CheckConstraint(one_of("state", LaunchState), name="state"),
        CheckConstraint("(state IN ('refused', 'terminated')) = (ended_at IS NOT NULL)", name="ended"),
        CheckConstraint("(state = 'refused') = (refusal_code IS NOT NULL)", name="refusal"),
        CheckConstraint("state <> 'launched' OR instance_id IS NOT NULL", name="launched"),
        UniqueConstraint("build_id", "attempt"),
        Index("ix_launches_alive", "region", postgresql_where=text("ended_at IS NULL")),
    )


class BuildLogChunk(Base):
    """A piece of a build's log. `start` is the offset of its first byte in the whole log."""

    __tablename__ = "build_log_chunks"

    build_id: Mapped[UUID] = mapped_column(ForeignKey("builds.id", ondelete="CASCADE"), primary_key=True)
    start: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    written_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    size_bytes: Mapped[int]
    content: Mapped[str]
