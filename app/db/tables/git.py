"""What the worker has last read of the git repository: its branches, and where the models' commits are.

All of it is replaced in one transaction, so that it describes one moment.
"""

from datetime import datetime
from uuid import UUID

from sqlalchemy import ARRAY, CheckConstraint, ForeignKey, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from app.db.storable import MESSAGE_LIMIT, StorableText
from app.db.tables.base import Base


class GitRepository(Base):
    """The git repository that was read: one row."""

    __tablename__ = "git_repository"

    id: Mapped[int] = mapped_column(primary_key=True, server_default=text("1"), autoincrement=False)
    # The address without anything secret.
    remote: Mapped[str | None]
    main_branch: Mapped[str | None]
    # Every name that the main branch ever had.
    main_names: Mapped[list[str]] = mapped_column(ARRAY(Text), server_default=text("'{}'"))
    # When it was last read whole. Null until then.
    fetched_at: Mapped[datetime | None]
    # A digest of the branches and settings that the rows of model_commits follow from.
    fingerprint: Mapped[str | None]
    attempted_at: Mapped[datetime]
    # Why the last attempt did not succeed. Null if it did.
    problem: Mapped[str | None] = mapped_column(StorableText(MESSAGE_LIMIT))

    __table_args__ = (
        CheckConstraint("id = 1", name="one_row"),
        CheckConstraint("num_nonnulls(fetched_at, remote, main_branch, fingerprint) IN (0, 4)", name="whole"),
    )


class GitBranch(Base):
    """A branch of the git repository. One that does not count, such as a bot's, keeps no model."""

    __tablename__ = "git_branches"

    name: Mapped[str] = mapped_column(primary_key=True)
    sha: Mapped[str]
    counts: Mapped[bool]


class ModelCommit(Base):
    """Where the commit of a model is in the git repository."""

    __tablename__ = "model_commits"

    model_id: Mapped[UUID] = mapped_column(ForeignKey("models.id", ondelete="RESTRICT"), primary_key=True)
    # All 40 digits. Null while the commit has never been seen in the repository, or several commits fit.
    sha: Mapped[str | None]
    # Some of the branches that have the commit and do not have it from the main branch. Null if none has.
    holders: Mapped[list[str] | None] = mapped_column(ARRAY(Text))
