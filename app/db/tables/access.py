"""Who may call, and what was done by whom."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Identity,
    Index,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from app.db.storable import StorableText
from app.db.tables.base import Base, one_of
from app.words import (
    Actor,
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
        CheckConstraint(one_of("kind", Actor), name="kind"),
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
        CheckConstraint(one_of("kind", Actor), name="kind"),
        CheckConstraint(one_of("created_by_kind", Actor), name="created_by_kind"),
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


class TrustedPublisher(Base):
    """A CI workflow that may sign in with its identity, and what it may do then."""

    __tablename__ = "trusted_publishers"

    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=func.gen_random_uuid())
    name: Mapped[str]
    repository_id: Mapped[int] = mapped_column(BigInteger)
    repository_owner_id: Mapped[int] = mapped_column(BigInteger)
    # The name of its file in .github/workflows.
    workflow: Mapped[str]
    # A pattern in which `*` stands for anything.
    ref: Mapped[str | None]
    environment: Mapped[str | None]
    # Without a constraint, so that a newer release can add scopes while an older one runs beside it.
    scopes: Mapped[list[str]] = mapped_column(ARRAY(StorableText()))
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    created_by: Mapped[str]
    created_by_kind: Mapped[str]

    __table_args__ = (
        CheckConstraint("ref IS NOT NULL OR environment IS NOT NULL", name="limited"),
        CheckConstraint("cardinality(scopes) > 0 AND NOT 'admin' = ANY (scopes)", name="scopes"),
        CheckConstraint(one_of("created_by_kind", Actor), name="created_by_kind"),
        Index("ix_trusted_publishers_repository", "repository_id", "repository_owner_id"),
        Index("ix_trusted_publishers_created", text("created_at DESC"), text("id DESC")),
    )


class UsedIdentityToken(Base):
    """The id of an identity token that somebody has signed in with. No token is accepted twice."""

    __tablename__ = "used_identity_tokens"

    id: Mapped[str] = mapped_column(primary_key=True)
    expires_at: Mapped[datetime]

    __table_args__ = (Index("ix_used_identity_tokens_expires", "expires_at"),)
