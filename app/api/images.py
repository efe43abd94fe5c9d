"""Machine images: which there are, and deleting those that nothing needs."""

from datetime import datetime
from typing import Annotated, Self

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field, StrictBool

from app.api.common import examples
from app.api.common.deps import CanCollect, Db, Limit, NextCursor, PageCursor
from app.api.common.errors import problems
from app.api.common.shown import ShownMessage
from app.api.common.strict import StrictRoute
from app.api.common.text import Line
from app.api.runs import RunOut
from app.db.tables import ImageListing
from app.registry import images
from app.registry.errors import RunActive
from app.registry.images import Found
from app.registry.runs import lifecycle
from app.words import RunKind

router = APIRouter(tags=["images"], route_class=StrictRoute)


class ImageOut(BaseModel):
    """A machine image that builds can be trained on."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.IMAGE]})

    region: str
    image_id: str
    name: str
    version: str | None = Field(
        description="The version at the end of its name. Null if the name does not end in one, so that no "
        "build uses the image."
    )
    state: str = Field(description="As AWS calls it. Builds use images that are `available`.")
    architecture: str
    created_at: datetime
    base_image: str | None = Field(description="What it was made from. Null if its tags do not say so.")
    models: int = Field(description="How many models that are not collected were made on it.")
    in_use: bool = Field(description="Whether a build that is not over uses it.")

    @classmethod
    def of(cls, found: Found) -> Self:
        image = found.image
        return cls(
            region=image.region,
            image_id=image.image_id,
            name=image.name,
            version=image.version,
            state=image.state,
            architecture=image.architecture,
            created_at=image.created_at,
            base_image=image.tags.get("source-image-name"),
            models=found.models,
            in_use=found.in_use,
        )


class ListingOut(BaseModel):
    """When a worker has listed the images of a region."""

    region: str
    listed_at: datetime | None = Field(description="Null if it never succeeded.")
    problem: ShownMessage | None = Field(description="Why it has not succeeded since. Null if it has.")

    @classmethod
    def of(cls, listing: ImageListing) -> Self:
        return cls(region=listing.region, listed_at=listing.listed_at, problem=listing.problem)


class ImagePage(BaseModel):
    """Images, newest first, and how old the list is."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.IMAGES]})

    items: list[ImageOut]
    regions: list[ListingOut]
    next: NextCursor


class CleaningCreate(BaseModel):
    """Which images stay, and whether the others are deleted or only named."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"dry_run": True, "keep_newest": 3}]}
    )

    dry_run: StrictBool = Field(default=True, description="Only report what would be deleted.")
    keep_newest: int = Field(
        default=3,
        ge=1,
        le=1000,
        strict=True,
        description="So many of the highest versions stay in each region.",
    )


@router.get(
    "/images",
    operation_id="images:list",
    summary="The machine images",
    response_description="A page of images",
    responses=problems(),
)
def list_images(
    db: Db,
    cursor: PageCursor,
    limit: Limit = 50,
    region: Annotated[Line | None, Query(description="Only images of this AWS region.")] = None,
) -> ImagePage:
    """The images that a worker found in AWS within the last minute or so, newest first."""
    page = images.find(db, limit=limit, cursor=cursor, region=region)
    return ImagePage(
        items=[ImageOut.of(found) for found in page.items],
        regions=[ListingOut.of(listing) for listing in images.listings(db)],
        next=page.next_cursor,
    )


@router.post(
    "/images/clean",
    operation_id="images:clean",
    summary="Delete machine images that nothing needs",
    status_code=202,
    response_description="The run",
    responses=problems(RunActive),
)
def clean(body: CleaningCreate, who: CanCollect, db: Db) -> RunOut:
    """Delete images and their snapshots, except those that models or the newest versions need.

    An image stays as long as a model that is not collected was made on it, because the model could not be
    made again without it. Only images of this account that carry the registry's tag go. Needs the scope
    `collect`.
    """
    options = {"dry_run": body.dry_run, "keep_newest": body.keep_newest}
    return RunOut.of(lifecycle.request(db, RunKind.IMAGE_CLEANING, options, who.name, who.kind))
