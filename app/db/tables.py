"""The tables. Rules that must always hold are constraints here and not only checks in the code."""

from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    DateTime,
    FetchedValue,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    MetaData,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from app.db.storable import MESSAGE_LIMIT, StorableJson, StorableText
from app.words import (
    Actor,
    BuildKind,
    BuildState,
    EventType,
    InputKind,
    LaunchState,
    Market,
    Origin,
    RunKind,
    RunState,
    Stage,
    StepState,
    Verdict,
)


def _one_of(column: str, words: Iterable[StrEnum]) -> str:
    return f"{column} IN ({', '.join(repr(word.value) for word in words)})"


# The conditions of partial indexes. They are constants of the SQL and not parameters: once Postgres plans a
# prepared statement for all parameters, it cannot tell that a condition with parameters is that of an index.
# A query would read the whole table then, and an upsert would fail.
HOLDS_PREFIX = text("builds.kind = 'train' AND builds.state IN ('queued', 'running', 'succeeded')")
ACTIVE_BUILD = text(_one_of("builds.state", (state for state in BuildState if state.active)))
ACTIVE_RUN = text(_one_of("runs.state", (state for state in RunState if state.active)))


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy's own protocol
        datetime: DateTime(timezone=True),
        dict[str, Any]: StorableJson,
        str: StorableText,
    }


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

    steps: Mapped[list["BuildStep"]] = relationship(
        lazy="raise", order_by="BuildStep.started_at", foreign_keys="BuildStep.build_id"
    )
    launches: Mapped[list["Launch"]] = relationship(lazy="raise", order_by="Launch.attempt")

    __table_args__ = (
        CheckConstraint(_one_of("kind", BuildKind), name="kind"),
        CheckConstraint(_one_of("requested_by_kind", Actor), name="requested_by_kind"),
        CheckConstraint(_one_of("state", BuildState), name="state"),
        CheckConstraint(f"promote_to IS NULL OR {_one_of('promote_to', Stage)}", name="promote_to"),
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
        # Collision protection: a prefix has at most one build that is active or has succeeded.
        Index(
            "uq_builds_prefix_live",
            "prefix",
            unique=True,
            postgresql_where=text("kind = 'train' AND state IN ('queued', 'running', 'succeeded')"),
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
        Index("ix_builds_active", "created_at", postgresql_where=text("state IN ('queued', 'running')")),
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

    __table_args__ = (CheckConstraint(_one_of("state", StepState.stored()), name="state"),)


class BuildEvent(Base):
    """Something that happened to a build. The ids of a build's events are in the order of their commits."""

    __tablename__ = "build_events"

    build_id: Mapped[UUID] = mapped_column(ForeignKey("builds.id", ondelete="CASCADE"), primary_key=True)
    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    type: Mapped[str]
    data: Mapped[dict[str, Any]]

    __table_args__ = (CheckConstraint(_one_of("type", EventType), name="type"),)


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
        CheckConstraint(_one_of("market", Market), name="market"),
        CheckConstraint(_one_of("state", LaunchState), name="state"),
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


class Input(Base):
    """A piece of content that models were made from. If the bucket keeps it, it is under inputs/sha256/."""

    __tablename__ = "inputs"

    sha256: Mapped[str] = mapped_column(primary_key=True)
    size_bytes: Mapped[int | None] = mapped_column(BigInteger)
    recorded_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    # When the content was first seen in the bucket. Null for inputs of which only the digest is known.
    stored_at: Mapped[datetime | None]
    # Of an archive: when the files in it were looked at, and why they could not be recorded, if so.
    parts_recorded_at: Mapped[datetime | None]
    parts_problem: Mapped[str | None]

    __table_args__ = (
        CheckConstraint("sha256 ~ '^[0-9a-f]{64}$'", name="sha256"),
        CheckConstraint("size_bytes >= 0", name="size_bytes"),
    )


class InputPart(Base):
    """One file inside an input that is an archive, which is its container."""

    __tablename__ = "input_parts"

    container: Mapped[str] = mapped_column(ForeignKey("inputs.sha256", ondelete="RESTRICT"), primary_key=True)
    path: Mapped[str] = mapped_column(primary_key=True)
    sha256: Mapped[str]
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    # How many lines a table has as text, with its header. Null for other files.
    lines: Mapped[int | None] = mapped_column(BigInteger)

    __table_args__ = (
        CheckConstraint("sha256 ~ '^[0-9a-f]{64}$'", name="sha256"),
        CheckConstraint("size_bytes >= 0", name="size_bytes"),
        Index("ix_input_parts_sha256", "sha256"),
        Index("ix_input_parts_path", "path"),
    )


class BuildInput(Base):
    """The use of an input by a build, with the role that the input had."""

    __tablename__ = "build_inputs"

    build_id: Mapped[UUID] = mapped_column(ForeignKey("builds.id", ondelete="CASCADE"), primary_key=True)
    kind: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    # A machine image and a git commit have no sha256. Their origin identifies them permanently.
    sha256: Mapped[str | None] = mapped_column(ForeignKey("inputs.sha256", ondelete="RESTRICT"))
    origin: Mapped[str | None]
    # What else is known of this use. Null where a release that did not ask has recorded it.
    details: Mapped[dict[str, Any] | None]
    # A copy of the build's `created_at`, which a trigger sets. It lets an index serve the query for the
    # newest builds that used an input.
    build_created_at: Mapped[datetime] = mapped_column(server_default=FetchedValue())

    __table_args__ = (
        CheckConstraint(_one_of("kind", InputKind), name="kind"),
        CheckConstraint("sha256 IS NOT NULL OR origin IS NOT NULL", name="identified"),
        Index(
            "ix_build_inputs_sha256_newest", "sha256", text("build_created_at DESC"), text("build_id DESC")
        ),
        Index("ix_build_inputs_name_newest", "name", text("build_created_at DESC"), text("build_id DESC")),
    )


class Model(Base):
    """The model of a prefix: a succeeded build published it, or an import found it in the bucket.

    Of an imported model, the build and the branch are not known, and the sha may have only 7 digits.
    """

    __tablename__ = "models"

    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=func.gen_random_uuid())
    prefix: Mapped[str] = mapped_column(unique=True)
    version: Mapped[str]
    sha: Mapped[str]
    branch: Mapped[str | None]
    origin: Mapped[str] = mapped_column(server_default=Origin.BUILT.value)
    build_id: Mapped[UUID | None] = mapped_column(ForeignKey("builds.id", ondelete="RESTRICT"), unique=True)
    # The configuration of an imported model, as the bucket holds it. That of a built one is with its build.
    search_config: Mapped[str | None] = mapped_column(deferred=True, deferred_raiseload=True)
    metrics: Mapped[dict[str, Any]]
    verdict: Mapped[str]
    verdict_reason: Mapped[str]
    # Set when a person has changed the verdict: by whom, and when last.
    verdict_changed_at: Mapped[datetime | None]
    verdict_changed_by: Mapped[str | None]
    verdict_changed_by_kind: Mapped[str | None]
    published_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    # The key of the signature that is among the artifacts, and when it was made. Null for an unsigned model.
    signed_with: Mapped[str | None] = mapped_column(
        ForeignKey("signing_keys.fingerprint", ondelete="RESTRICT")
    )
    signed_at: Mapped[datetime | None]

    artifacts: Mapped[list["Artifact"]] = relationship(lazy="raise", order_by="Artifact.name")
    promotions: Mapped[list["Promotion"]] = relationship(
        lazy="raise", order_by="Promotion.promoted_at, Promotion.id", viewonly=True
    )

    __table_args__ = (
        CheckConstraint(_one_of("verdict", Verdict), name="verdict"),
        CheckConstraint(_one_of("origin", Origin), name="origin"),
        CheckConstraint("origin = 'imported' OR (build_id IS NOT NULL AND branch IS NOT NULL)", name="made"),
        CheckConstraint(
            "num_nonnulls(verdict_changed_at, verdict_changed_by, verdict_changed_by_kind) IN (0, 3)",
            name="verdict_change_whole",
        ),
        CheckConstraint("num_nonnulls(signed_with, signed_at) IN (0, 2)", name="signed_whole"),
        UniqueConstraint("id", "version"),
        # Beside the order of the list, what a search for a text looks at.
        Index(
            "ix_models_listed",
            text("published_at DESC"),
            text("id DESC"),
            postgresql_include=["prefix", "branch", "verdict"],
        ),
        Index("ix_models_verdict_published", "verdict", text("published_at DESC"), text("id DESC")),
        Index("ix_models_origin_published", "origin", text("published_at DESC"), text("id DESC")),
        Index("ix_models_version_published", "version", text("published_at DESC"), text("id DESC")),
        Index("ix_models_branch_published", "branch", text("published_at DESC"), text("id DESC")),
    )


class SigningKey(Base):
    """The public half of a key that models were signed with. The private half is never stored."""

    __tablename__ = "signing_keys"

    # The sha256 of the public key, by which a signature names its key.
    fingerprint: Mapped[str] = mapped_column(primary_key=True)
    # In PEM.
    public_key: Mapped[str]
    first_used_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())

    __table_args__ = (CheckConstraint("fingerprint ~ '^[0-9a-f]{64}$'", name="fingerprint"),)


class Artifact(Base):
    """One file of a model."""

    __tablename__ = "artifacts"

    model_id: Mapped[UUID] = mapped_column(ForeignKey("models.id", ondelete="RESTRICT"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(unique=True)
    # Null for an imported file until its digest has been computed.
    sha256: Mapped[str | None]
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    content_type: Mapped[str]
    # The ETag of the object when its content was last compared with the digest: as long as it has not
    # changed, the object need not be looked at again.
    verified_etag: Mapped[str | None]
    # Since when the bucket is known not to hold this file: it is gone, or has other content. Nobody can
    # download the model as it was recorded then, so it is not handed out and not promoted.
    missing_since: Mapped[datetime | None]

    __table_args__ = (
        CheckConstraint("sha256 ~ '^[0-9a-f]{64}$'", name="sha256"),
        CheckConstraint("size_bytes >= 0", name="size_bytes"),
        Index("ix_artifacts_missing", "model_id", postgresql_where=text("missing_since IS NOT NULL")),
    )


class Promotion(Base):
    """The record that a model was deployed to a stage. It is append-only: a trigger refuses other changes."""

    __tablename__ = "promotions"

    stage: Mapped[str] = mapped_column(primary_key=True)
    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    model_id: Mapped[UUID]
    # A copy of the model's version, which the foreign key keeps equal. It lets one index serve the query for
    # the latest model of a version.
    version: Mapped[str]
    promoted_by: Mapped[str]
    promoted_by_kind: Mapped[str] = mapped_column(server_default=Actor.TOKEN.value)
    note: Mapped[str | None]
    override: Mapped[bool] = mapped_column(server_default=text("false"))
    rollback: Mapped[bool] = mapped_column(server_default=text("false"))
    promoted_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())

    model: Mapped[Model] = relationship(lazy="raise", viewonly=True)

    __table_args__ = (
        CheckConstraint(_one_of("stage", Stage), name="stage"),
        CheckConstraint(_one_of("promoted_by_kind", Actor), name="promoted_by_kind"),
        ForeignKeyConstraint(["model_id", "version"], ["models.id", "models.version"], ondelete="RESTRICT"),
        # The newest promotion to a stage, or of a version to it, is the first row of its part of an index.
        Index("ix_promotions_stage_newest", "stage", text("promoted_at DESC"), text("id DESC")),
        Index(
            "ix_promotions_stage_version_newest",
            "stage",
            "version",
            text("promoted_at DESC"),
            text("id DESC"),
        ),
        # Only the release before this one reads it, while both run side by side.
        Index("ix_promotions_stage_version_latest", "stage", "version", text("id DESC")),
        Index("ix_promotions_model", "model_id", "stage"),
    )


class Outbox(Base):
    """A key of the bucket that a worker must check. The row is deleted once the bucket is right."""

    __tablename__ = "outbox"

    key: Mapped[str] = mapped_column(primary_key=True)
    # Increases each time the key is asked for again, even if its row was deleted in the meantime.
    generation: Mapped[int] = mapped_column(BigInteger, Identity(always=True))
    asked_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    attempts: Mapped[int] = mapped_column(server_default=text("0"))
    next_attempt_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    last_error: Mapped[str | None]

    __table_args__ = (
        Index("ix_outbox_due", "next_attempt_at", "generation"),
        Index("ix_outbox_prefix", text("split_part(key, '/', 1)")),
    )


class AuditEntry(Base):
    """A change that somebody asked for. The table is append-only: a trigger refuses other changes."""

    __tablename__ = "audit"

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    who: Mapped[str]
    kind: Mapped[str]
    # Without a constraint, so that a newer release can add actions while an older one runs beside it.
    action: Mapped[str]
    subject: Mapped[str]
    request_id: Mapped[str | None]
    before: Mapped[dict[str, Any] | None]
    after: Mapped[dict[str, Any] | None]

    __table_args__ = (
        CheckConstraint(_one_of("kind", Actor), name="kind"),
        Index("ix_audit_newest", text("at DESC"), text("id DESC")),
        Index("ix_audit_subject", "subject", text("at DESC"), text("id DESC")),
        Index("ix_audit_who", "who", text("at DESC"), text("id DESC")),
        Index("ix_audit_action", "action", text("at DESC"), text("id DESC")),
    )


class Token(Base):
    """A token that an administrator has created. Its secret is not stored, only the secret's sha256."""

    __tablename__ = "tokens"

    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=func.gen_random_uuid())
    name: Mapped[str]
    # What kind of actor calls with it.
    kind: Mapped[str] = mapped_column(server_default=Actor.TOKEN.value)
    digest: Mapped[str] = mapped_column(unique=True)
    # The first characters of the secret, by which somebody who finds a token knows which one it is.
    starts_with: Mapped[str]
    # Without a constraint, so that a newer release can add scopes while an older one runs beside it.
    scopes: Mapped[list[str]] = mapped_column(ARRAY(StorableText()))
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    created_by: Mapped[str]
    created_by_kind: Mapped[str]
    expires_at: Mapped[datetime]
    # Written at most every few minutes.
    last_used_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    revoked_by: Mapped[str | None]
    revoked_by_kind: Mapped[str | None]
    # Whether another token may not have the name. An expired token gives its name up when the next one is
    # created, because no index can depend on the time.
    holds_name: Mapped[bool] = mapped_column(server_default=text("true"))

    __table_args__ = (
        CheckConstraint(_one_of("kind", Actor), name="kind"),
        CheckConstraint(_one_of("created_by_kind", Actor), name="created_by_kind"),
        CheckConstraint("digest ~ '^[0-9a-f]{64}$'", name="digest"),
        CheckConstraint("cardinality(scopes) > 0", name="scopes"),
        CheckConstraint("expires_at > created_at", name="expires"),
        CheckConstraint(
            "num_nonnulls(revoked_at, revoked_by, revoked_by_kind) IN (0, 3)", name="revoked_whole"
        ),
        CheckConstraint("revoked_at IS NULL OR NOT holds_name", name="revoked_name"),
        Index("uq_tokens_name_held", "name", unique=True, postgresql_where=text("holds_name")),
        Index("ix_tokens_created", text("created_at DESC"), text("id DESC")),
        Index("ix_tokens_name_created", "name", text("created_at DESC"), text("id DESC")),
    )


class Run(Base):
    """A long piece of work that a person or the schedule asked for. At most one of each kind is active."""

    __tablename__ = "runs"

    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=func.gen_random_uuid())
    kind: Mapped[str]
    state: Mapped[str] = mapped_column(server_default=RunState.QUEUED.value)
    # What was asked for: the fields of the request.
    options: Mapped[dict[str, Any]]
    requested_by: Mapped[str]
    requested_by_kind: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    stopped_by: Mapped[str | None]

    # `checkpoint` is where the next worker goes on; `progress` and `result` are for readers.
    checkpoint: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))
    progress: Mapped[dict[str, Any] | None]
    result: Mapped[dict[str, Any] | None]
    failure: Mapped[str | None] = mapped_column(StorableText(MESSAGE_LIMIT))

    # The same fence as a build's: every write of a worker checks the epoch that it took the run with.
    lease_epoch: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    lease_expires_at: Mapped[datetime | None]
    takings: Mapped[int] = mapped_column(server_default=text("0"))
    last_error: Mapped[str | None] = mapped_column(StorableText(MESSAGE_LIMIT))

    __table_args__ = (
        CheckConstraint(_one_of("kind", RunKind), name="kind"),
        CheckConstraint(_one_of("state", RunState), name="state"),
        CheckConstraint(_one_of("requested_by_kind", Actor), name="requested_by_kind"),
        CheckConstraint("(state IN ('queued', 'running')) = (finished_at IS NULL)", name="finished"),
        CheckConstraint("(state = 'failed') = (failure IS NOT NULL)", name="failure"),
        Index(
            "uq_runs_kind_active",
            "kind",
            unique=True,
            postgresql_where=text("state IN ('queued', 'running')"),
        ),
        Index("ix_runs_created", text("created_at DESC"), text("id DESC")),
    )
