"""Machine images: which there are, which version each has, and which of them models still need."""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from semver import Version
from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app.db.tables import ACTIVE_BUILD, Build, BuildInput, ImageListing, MachineImage, Model
from app.registry.pages import Cursor, Page, paginate
from app.words import InputKind, ModelState

# What a pattern of names ends in before its `*`: the part of the version that it fixes.
_BEGUN = re.compile(r"(.*?)((?<![0-9A-Za-z.])(?:\d+\.){1,2}|)", re.DOTALL)


def version_in(name: str, pattern: str) -> Version | None:
    """The semantic version in the name of an image that matches the pattern. None if there is none.

    It is 0.0.0 for every name where the pattern does not end in `*`. In `Name 1.*` the version begins before
    the `*`. As in EC2, `*` and `?` are wildcards, and nothing else is.
    """
    if not pattern.endswith("*"):
        return Version(0)
    before, begun = _BEGUN.fullmatch(pattern[:-1]).groups()  # type: ignore[union-attr]
    wildcards = "".join({"*": ".*", "?": "."}.get(one, re.escape(one)) for one in before)
    found = re.fullmatch(f"{wildcards}({re.escape(begun)}.*)", name, re.DOTALL)
    return Version.parse(found[1]) if found is not None and Version.is_valid(found[1]) else None


def origin_of(region: str, image_id: str) -> str:
    """By what the inputs of builds name an image."""
    return f"aws:{region}:{image_id}"


@dataclass(frozen=True)
class ListedImage:
    """An image as AWS lists it."""

    image_id: str
    name: str
    version: str | None
    state: str
    architecture: str
    created_at: datetime
    snapshots: tuple[str, ...]
    tags: Mapping[str, str]


def record(session: Session, region: str, listed: Iterable[ListedImage]) -> None:
    """Record that these, and no others, are the images of the region."""
    rows = [
        {
            "region": region,
            "image_id": image.image_id,
            "name": image.name,
            "version": image.version,
            "state": image.state,
            "architecture": image.architecture,
            "created_at": image.created_at,
            "snapshots": list(image.snapshots),
            "tags": dict(image.tags),
        }
        for image in listed
    ]
    there = [row["image_id"] for row in rows]
    session.execute(
        delete(MachineImage).where(MachineImage.region == region, MachineImage.image_id.not_in(there))
    )
    if rows:
        new = insert(MachineImage).values(rows)
        changing = ("name", "version", "state", "architecture", "created_at", "snapshots", "tags")
        session.execute(
            new.on_conflict_do_update(
                index_elements=["region", "image_id"],
                set_={name: new.excluded[name] for name in changing},
            )
        )
    _listing(session, region, listed_at=func.clock_timestamp(), problem=None)


def note_problem(session: Session, region: str, problem: str) -> None:
    """Record that the images of the region could not be listed. Those that are known stay."""
    _listing(session, region, problem=problem)


def _listing(session: Session, region: str, **values: object) -> None:
    statement = insert(ImageListing).values(region=region, **values)
    session.execute(statement.on_conflict_do_update(index_elements=["region"], set_=values))


@dataclass(frozen=True)
class Found:
    """An image, how many models that have not been collected were made on it, and whether a build uses it."""

    image: MachineImage
    models: int
    in_use: bool


def find(
    session: Session, *, limit: int, cursor: Cursor | None = None, region: str | None = None
) -> Page[Found]:
    """The images, newest first."""
    query = select(MachineImage)
    if region is not None:
        query = query.where(MachineImage.region == region)
    page = paginate(session, query, MachineImage.created_at, MachineImage.id, limit=limit, cursor=cursor)
    origins = [origin_of(image.region, image.image_id) for image in page.items]
    models, active = _models(session, origins), _active(session, origins)
    return Page(
        [
            Found(image, models.get(origin, 0), origin in active)
            for image, origin in zip(page.items, origins, strict=True)
        ],
        page.next,
    )


def listings(session: Session) -> list[ImageListing]:
    return list(session.scalars(select(ImageListing).order_by(ImageListing.region)))


def needed(session: Session, origins: Collection[str]) -> set[str]:
    """Those of the images that a model that is not collected, or a build that is not over, was made on."""
    return {*_models(session, origins), *_active(session, origins)}


def _models(session: Session, origins: Collection[str]) -> dict[str, int]:
    """How many models that are not collected name each image. A model that is marked can be restored."""
    query = (
        select(BuildInput.origin, func.count())
        .join(Model, Model.build_id == BuildInput.build_id)
        .where(
            BuildInput.kind == InputKind.MACHINE_IMAGE,
            BuildInput.origin.in_(origins),
            Model.state.in_([ModelState.KEPT, ModelState.MARKED]),
        )
        .group_by(BuildInput.origin)
    )
    return {origin: count for origin, count in session.execute(query) if origin is not None}


def _active(session: Session, origins: Collection[str]) -> set[str]:
    query = (
        select(BuildInput.origin)
        .join(Build, Build.id == BuildInput.build_id)
        .where(BuildInput.kind == InputKind.MACHINE_IMAGE, BuildInput.origin.in_(origins), ACTIVE_BUILD)
    )
    return {origin for origin in session.scalars(query) if origin is not None}
