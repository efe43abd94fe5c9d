"""What CI posts to ask for the model of a commit, and what it is answered."""

from typing import Annotated, Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field, StrictBool, WithJsonSchema

from app.api.builds.answers import BuildOut
from app.api.common import examples
from app.api.common.deps import CanBuild, Db, DefaultThresholds, SettingsDep
from app.api.common.errors import problems
from app.api.common.strict import StrictRoute
from app.api.common.text import Line, Lines
from app.registry.builds import requests
from app.registry.builds.requests import BuildRequest
from app.registry.errors import (
    ConfigDiffers,
    Conflict,
    InvalidConfig,
    InvalidThresholds,
    PrefixCollected,
    PrefixCollision,
)
from app.registry.models import thresholds
from app.registry.prefixes import NotNeeded
from app.words import Scope, Stage

router = APIRouter(tags=["builds"], route_class=StrictRoute)

# Another stage gets an answer of the registry's own, which says why.
PromoteTo = Annotated[
    Stage,
    WithJsonSchema({"type": "string", "enum": [stage for stage in Stage if stage.before is None]}),
]


class BuildCreate(BaseModel):
    """A commit that may need a model. Configurations and thresholds are TOML text, not paths."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [examples.BUILD_CREATE]})

    sha: Line = Field(
        max_length=100,
        description="All 40 hex digits of the commit.",
        # Only for readers: what does not match gets an answer of the registry's own, which says why.
        json_schema_extra={"pattern": "^[0-9a-f]{40}$"},
    )
    branch: Line = Field(min_length=1, max_length=255, description="The branch that CI runs for.")
    search_config: Lines = Field(max_length=1 << 20, description="The commit's search-config.toml.")
    base_search_config: Lines | None = Field(
        default=None,
        max_length=1 << 20,
        description="The base branch's search-config.toml. Without it, a model is always needed. What is not "
        "a configuration, such as the message of a command that failed, is refused unless `force` is sent.",
    )
    thresholds: Lines | None = Field(
        default=None,
        max_length=thresholds.LONGEST,
        description="The commit's benchmark-thresholds.toml, which decides whether the model passes. Without "
        "it, the registry's own thresholds do.",
    )
    promote_to: PromoteTo | None = Field(
        default=None,
        description="Promote the model to `development` once it is published. A new model was never in the "
        "stage that the others need.",
    )
    force: StrictBool = Field(default=False, description="Build even if the version has not risen.")
    dry_run: StrictBool = Field(default=False, description="Only answer what would happen. Nothing is built.")


class BuildAnswerOut(BaseModel):
    """The answer to a request for a model."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [examples.QUEUED, examples.NOT_NEEDED, examples.NEEDED]}
    )

    outcome: Literal["queued", "exists", "needed", "not_needed"] = Field(
        description="`needed` is the answer of a dry run where a build would be queued."
    )
    prefix: str = Field(examples=["0.0.2-aff1242"])
    build: BuildOut | None = Field(
        description="Null when there is none, also when the model exists and was not built here."
    )
    reason: NotNeeded | None = Field(description="Why no model is needed. Null when one is needed.")
    base_problem: str | None = Field(
        description="Why the base branch's version could not be compared, so that a model counts as needed."
    )
    changed_keys: list[str] = Field(
        description="Keys whose values differ from the base branch's although the version is not higher. "
        f"Somebody may have forgotten to raise it. At most {requests.MOST_NAMED}.",
        examples=[["learning_rate"]],
    )
    other_models_of_this_version: list[str] = Field(
        description="Models of the same version at other commits, newest first. "
        f"At most {requests.MOST_NAMED}.",
        examples=[["0.0.2-0b5e7c1"]],
    )
    warnings: list[str] = Field(
        description="What is valid in `search_config` and will still surprise somebody.",
        examples=[["device is mps, which only macOS has. Builds run on Linux and will fail."]],
    )


@router.post(
    "/builds",
    operation_id="builds:create",
    summary="Ask for the model of a commit",
    status_code=202,
    response_description="A build was created",
    responses={
        200: {
            "model": BuildAnswerOut,
            "description": "The prefix has a model or a build, no model is needed, or it was a dry run",
        },
        **problems(
            PrefixCollision, ConfigDiffers, PrefixCollected, Conflict, InvalidConfig, InvalidThresholds
        ),
    },
)
def create(
    body: BuildCreate,
    who: CanBuild,
    db: Db,
    settings: SettingsDep,
    default_thresholds: DefaultThresholds,
    response: Response,
) -> BuildAnswerOut:
    """Queue the build of the commit's prefix.

    `queued` (202): a build was made. `exists` (200): the prefix has a model, or an active build; send it as
    often as you like. A model that is marked for garbage collection is restored by it. `not_needed` (200):
    the version has not risen above the base branch's. With `dry_run`, nothing is made or restored, and
    `needed` (200) says that a build would be queued.
    """
    if body.promote_to is not None:
        who.need(Scope.promote(body.promote_to))
    answer = requests.request(
        db,
        BuildRequest(
            sha=body.sha,
            branch=body.branch,
            search_config=body.search_config,
            base_search_config=body.base_search_config,
            thresholds=default_thresholds if body.thresholds is None else body.thresholds,
            promote_to=body.promote_to,
            force=body.force,
            dry_run=body.dry_run,
            allow_prereleases=settings.allow_prereleases,
            requested_by=who.name,
            requested_by_kind=who.kind,
        ),
    )
    if answer.outcome != "queued":
        response.status_code = 200
    return BuildAnswerOut(
        outcome=answer.outcome,
        prefix=answer.prefix,
        build=BuildOut.of(answer.build) if answer.build else None,
        reason=answer.reason,
        base_problem=answer.base_problem,
        changed_keys=list(answer.changed_keys),
        other_models_of_this_version=list(answer.other_models),
        warnings=list(answer.warnings),
    )
