"""What models are made from: the contents, and each use of one by a build."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    FetchedValue,
    ForeignKey,
    Index,
    func,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from app.db.tables.base import Base, one_of
from app.words import (
    InputKind,
)


class Input(Base):
    """A piece of content that models were made from. If the bucket keeps it, it is under inputs/sha256/."""

    __tablename__ = "inputs"

    sha256: Mapped[str] = mapped_column(primary_key=True)
    size_bytes: Mapped[int | None] = mapped_column(BigInteger)
    recorded_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    # When the content was first seen in the bucket. Null for inputs of which only the digest is known.
    stored_at: Mapped[datetime | None]
    # The ETag of the object when its content was last compared with the digest, and since when the bucket is
    # known not to hold this content.
    verified_etag: Mapped[str | None]
    missing_since: Mapped[datetime | None]
    # When a build last began to put the content into the bucket.
    upload_begun_at: Mapped[datetime | None]
    # When garbage collection began to delete the content, and when it was gone. A build that puts it there
    # again makes both null.
    sweeping_at: Mapped[datetime | None]
    collected_at: Mapped[datetime | None]
    # Of an archive: when the files in it were looked at, and why they could not be recorded, if so.
    parts_recorded_at: Mapped[datetime | None]
    parts_problem: Mapped[str | None]
    # What a Python environment consists of. It is long, so it is loaded only where somebody asks for it.
    content: Mapped[dict[str, Any] | None] = mapped_column(deferred=True)

    __table_args__ = (
        CheckConstraint("sha256 ~ '^[0-9a-f]{64}$'", name="sha256"),
        CheckConstraint("size_bytes >= 0", name="size_bytes"),
        CheckConstraint("collected_at IS NULL OR sweeping_at IS NOT NULL", name="collected"),
        Index(
            "ix_inputs_sweeping",
            "sha256",
            postgresql_where=text("sweeping_at IS NOT NULL AND collected_at IS NULL"),
        ),
    )


class InputPart(Base):
    """One file of an input that consists of several: of an archive, or of a transformer."""

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
        CheckConstraint(one_of("kind", InputKind), name="kind"),
        CheckConstraint("sha256 IS NOT NULL OR origin IS NOT NULL", name="identified"),
        Index(
            "ix_build_inputs_sha256_newest", "sha256", text("build_created_at DESC"), text("build_id DESC")
        ),
        Index("ix_build_inputs_name_newest", "name", text("build_created_at DESC"), text("build_id DESC")),
    )
