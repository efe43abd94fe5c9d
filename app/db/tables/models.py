"""Models, their files and signatures, their promotions to stages, and the rules that release them."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    LargeBinary,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.db.storable import StorableJson
from app.db.tables.base import Base, one_of
from app.words import (
    Actor,
    ModelState,
    Origin,
    Stage,
    Verdict,
)


class Model(Base):
    """The model of a prefix: a succeeded build published it, or an import found it in the bucket.

    Of an imported model, the build and the branch are not known, and the sha may have only 7 digits.
    A row is never deleted, and its prefix never changes. That of a collected model is a tombstone.
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
    # How many artifacts it has, and their size together. A trigger keeps them: see migration 0033.
    file_count: Mapped[int] = mapped_column(server_default=text("0"))
    file_bytes: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    # What garbage collection has done with the model. Only app/registry/keeping/marks.py assigns it, and a
    # trigger refuses what must not happen: see migration 0026.
    state: Mapped[str] = mapped_column(server_default=ModelState.KEPT.value)
    marked_at: Mapped[datetime | None]
    # A code and a text: why the model may go.
    mark_reason: Mapped[dict[str, Any] | None] = mapped_column(StorableJson(none_as_null=True))
    marked_by_run: Mapped[UUID | None] = mapped_column(ForeignKey("runs.id", ondelete="RESTRICT"))
    # When its mark was last taken back: it is not marked again before the minimum age has passed once more.
    restored_at: Mapped[datetime | None]
    collected_at: Mapped[datetime | None]
    # A person's decision that the model must be kept.
    pinned_at: Mapped[datetime | None]
    pinned_by: Mapped[str | None]
    pinned_by_kind: Mapped[str | None]
    pin_note: Mapped[str | None]
    # The word of a person with `admin` that the model may be collected although it was in staging or
    # production. It covers only promotions that are older than it.
    released_at: Mapped[datetime | None]
    released_by: Mapped[str | None]
    released_by_kind: Mapped[str | None]
    release_note: Mapped[str | None]
    # The rule that gave this release. It holds as long as the rule does.
    released_by_rule: Mapped[UUID | None] = mapped_column(ForeignKey("release_rules.id", ondelete="RESTRICT"))

    artifacts: Mapped[list["Artifact"]] = relationship(lazy="raise", order_by="Artifact.name")
    promotions: Mapped[list["Promotion"]] = relationship(
        lazy="raise", order_by="Promotion.promoted_at, Promotion.id", viewonly=True
    )

    __table_args__ = (
        CheckConstraint(one_of("verdict", Verdict), name="verdict"),
        CheckConstraint(one_of("origin", Origin), name="origin"),
        CheckConstraint("origin = 'imported' OR (build_id IS NOT NULL AND branch IS NOT NULL)", name="made"),
        CheckConstraint(
            "num_nonnulls(verdict_changed_at, verdict_changed_by, verdict_changed_by_kind) IN (0, 3)",
            name="verdict_change_whole",
        ),
        CheckConstraint("num_nonnulls(signed_with, signed_at) IN (0, 2)", name="signed_whole"),
        CheckConstraint(one_of("state", ModelState), name="state"),
        CheckConstraint(
            "num_nonnulls(marked_at, mark_reason) = CASE WHEN state = 'kept' THEN 0 ELSE 2 END",
            name="marked_whole",
        ),
        CheckConstraint("marked_by_run IS NULL OR marked_at IS NOT NULL", name="marked_by_run"),
        CheckConstraint("(state = 'collected') = (collected_at IS NOT NULL)", name="collected"),
        CheckConstraint(
            "num_nonnulls(pinned_at, pinned_by, pinned_by_kind, pin_note) IN (0, 4)", name="pinned_whole"
        ),
        CheckConstraint("state = 'kept' OR pinned_at IS NULL", name="pinned_kept"),
        CheckConstraint(
            "num_nonnulls(released_at, released_by, released_by_kind, release_note) IN (0, 4)",
            name="released_whole",
        ),
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
        Index("ix_models_state_published", "state", text("published_at DESC"), text("id DESC")),
        Index(
            "ix_models_being_collected",
            "marked_at",
            "id",
            postgresql_where=text("state IN ('marked', 'sweeping')"),
        ),
    )


class ReleaseRule(Base):
    """A rule by which a person with `admin` releases models that were in staging or production.

    `versions` and `branches` are patterns. Rules are revoked, and never deleted.
    """

    __tablename__ = "release_rules"

    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=func.gen_random_uuid())
    versions: Mapped[str | None]
    branches: Mapped[str | None]
    reason: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    created_by: Mapped[str]
    created_by_kind: Mapped[str]
    revoked_at: Mapped[datetime | None]
    revoked_by: Mapped[str | None]
    revoked_by_kind: Mapped[str | None]

    __table_args__ = (
        CheckConstraint("num_nonnulls(versions, branches) > 0", name="limited"),
        CheckConstraint(one_of("created_by_kind", Actor), name="created_by_kind"),
        CheckConstraint(
            "num_nonnulls(revoked_at, revoked_by, revoked_by_kind) IN (0, 3)", name="revoked_whole"
        ),
        # The same rule is set once. Of two requests at the same moment, one finds the other's.
        Index(
            "uq_release_rules_active",
            "versions",
            "branches",
            unique=True,
            postgresql_where=text("revoked_at IS NULL"),
            postgresql_nulls_not_distinct=True,
        ),
        Index("ix_release_rules_created", text("created_at DESC"), text("id DESC")),
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


class SavedDocument(Base):
    """A document of a model, as it was published. It stays when the model's objects are deleted."""

    __tablename__ = "saved_documents"

    model_id: Mapped[UUID] = mapped_column(ForeignKey("models.id", ondelete="RESTRICT"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    content: Mapped[bytes] = mapped_column(LargeBinary)


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
        CheckConstraint(one_of("stage", Stage), name="stage"),
        CheckConstraint(one_of("promoted_by_kind", Actor), name="promoted_by_kind"),
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
