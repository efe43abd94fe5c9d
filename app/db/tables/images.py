"""The machine images that AWS has, as the worker last listed them."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Index, UniqueConstraint, func, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from app.db.storable import MESSAGE_LIMIT, StorableText
from app.db.tables.base import Base


class ImageListing(Base):
    """When the images of a region were listed, and what went wrong since then."""

    __tablename__ = "image_listings"

    region: Mapped[str] = mapped_column(primary_key=True)
    listed_at: Mapped[datetime | None]
    problem: Mapped[str | None] = mapped_column(StorableText(MESSAGE_LIMIT))


class MachineImage(Base):
    """A machine image that builds may use. The row goes when AWS does not list the image any more."""

    __tablename__ = "machine_images"

    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=func.gen_random_uuid())
    region: Mapped[str]
    image_id: Mapped[str]
    name: Mapped[str]
    # The version in its name. Null where the name does not end in one.
    version: Mapped[str | None]
    state: Mapped[str]
    architecture: Mapped[str]
    created_at: Mapped[datetime]
    snapshots: Mapped[list[str]] = mapped_column(ARRAY(StorableText()))
    tags: Mapped[dict[str, Any]]

    __table_args__ = (
        UniqueConstraint("region", "image_id"),
        Index("ix_machine_images_newest", text("created_at DESC"), text("id DESC")),
    )
