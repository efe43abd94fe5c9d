"""Which models an input went into, and which stages run them now."""

from datetime import datetime
from typing import Annotated, Self

from fastapi import APIRouter, Path, Query
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from app.api.common import bounded, examples
from app.api.common.deps import Db, Limit, NextCursor, PageCursor
from app.api.common.errors import problems
from app.api.common.shown import ShownInputKind, ShownStage, ShownVerdict
from app.api.common.strict import StrictRoute
from app.api.common.text import Line
from app.registry.errors import NotFound
from app.registry.lineage import uses
from app.registry.lineage.uses import NotKnown, Running, Use, User, Users, Wanted
from app.words import NotTraced

router = APIRouter(tags=["inputs"], route_class=StrictRoute)

# Names come from machines and archives, which may hold anything.
Shown = Annotated[str, AfterValidator(bounded.text)]


class UseOut(BaseModel):
    """How an input went into a model."""

    kind: ShownInputKind
    name: Shown = Field(description="The name of the input, such as that of the archive.")
    sha256: str | None = Field(description="The digest: of the file, if `path` names one, or of the input.")
    path: Shown | None = Field(description="The path of a file inside the archive. Null for a whole input.")
    lines: int | None = Field(
        description="How many lines the file has, with its header. Null if it is not a table of text."
    )

    @classmethod
    def of(cls, one: Use) -> Self:
        return cls(kind=one.kind, name=one.name, sha256=one.sha256, path=one.path, lines=one.lines)


class UserOut(BaseModel):
    """A model that the input went into."""

    prefix: str = Field(examples=["0.0.2-aff1242"])
    version: str
    sha: str
    branch: str | None
    verdict: ShownVerdict
    published_at: datetime
    runs_in: list[ShownStage] = Field(description="The stages in which the model runs now.")
    uses: list[UseOut]

    @classmethod
    def of(cls, one: User) -> Self:
        return cls(
            prefix=one.model.prefix,
            version=one.model.version,
            sha=one.model.sha,
            branch=one.model.branch,
            verdict=one.model.verdict,
            published_at=one.model.published_at,
            runs_in=list(one.runs_in),
            uses=[UseOut.of(use) for use in one.uses],
        )


class RunningOut(BaseModel):
    """A model that runs in a stage now."""

    stage: ShownStage
    prefix: str = Field(examples=["0.0.2-aff1242"])
    since: datetime

    @classmethod
    def of(cls, one: Running) -> Self:
        return cls(stage=one.stage, prefix=one.prefix, since=one.since)


class NotKnownOut(RunningOut):
    """A model that runs in a stage now, and may have been made from the input."""

    why: NotTraced

    @classmethod
    def of_not_known(cls, one: NotKnown) -> Self:
        return cls(stage=one.running.stage, prefix=one.running.prefix, since=one.running.since, why=one.why)


class UsersOut(BaseModel):
    """The models that an input went into, those of the newest builds first."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.INPUT_USERS]})

    collected_at: datetime | None = Field(
        description="When garbage collection had deleted the input with this sha256 from the bucket. Null if "
        "the bucket keeps it, or never did, and where a name was asked for."
    )
    running: list[RunningOut] = Field(
        description="Every stage that now runs a model which the input went into, whatever the page."
    )
    not_known: list[NotKnownOut] = Field(
        description="Every stage whose model may have been made from the input, because nobody recorded it."
    )
    items: list[UserOut]
    next: NextCursor

    @classmethod
    def of(cls, found: Users) -> Self:
        return cls(
            collected_at=found.collected_at,
            running=[RunningOut.of(one) for one in found.running],
            not_known=[NotKnownOut.of_not_known(one) for one in found.not_known],
            items=[UserOut.of(one) for one in found.page.items],
            next=found.page.next_cursor,
        )


@router.get(
    "/inputs/{sha256}",
    operation_id="inputs:get",
    summary="The models that a content went into",
    response_description="A page of models, and the stages in which they run",
    responses=problems(NotFound),
)
def models_of_content(
    sha256: Annotated[
        str,
        Path(
            description="The sha256 of an input, or of one file inside an archive.",
            pattern="^[0-9a-f]{64}$",
            examples=[examples.DIGEST],
        ),
    ],
    db: Db,
    cursor: PageCursor,
    limit: Limit = 50,
) -> UsersOut:
    """Every model that was made from this content, and the stages that run one of them now."""
    return UsersOut.of(uses.find(db, Wanted(sha256=sha256), limit=limit, cursor=cursor))


@router.get(
    "/inputs",
    operation_id="inputs:list",
    summary="The models that an input of this name went into",
    response_description="A page of models, and the stages in which they run",
    responses=problems(NotFound),
)
def models_of_name(
    name: Annotated[
        Line,
        Query(
            min_length=1,
            max_length=1000,
            description="The name of an input, or the path of a file inside an archive.",
            examples=["raw_source_data.zip"],
        ),
    ],
    db: Db,
    cursor: PageCursor,
    limit: Limit = 50,
) -> UsersOut:
    """Every model with an input of this name, whatever its content, and the stages that run one now."""
    return UsersOut.of(uses.find(db, Wanted(name=name), limit=limit, cursor=cursor))
