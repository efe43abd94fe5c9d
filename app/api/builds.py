"""The builds, as everybody follows them."""

from datetime import datetime
from typing import Annotated, Any, Self
from uuid import UUID

from fastapi import APIRouter, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.api import examples
from app.api.deps import CanBuild, Db, Limit, PageCursor, SearchDep
from app.api.errors import problems
from app.api.shown import (
    ShownActor,
    ShownBuildState,
    ShownKind,
    ShownLaunchState,
    ShownMarket,
    ShownMessage,
    ShownStage,
    ShownStep,
    ShownStepState,
    step_output,
)
from app.api.strict import StrictRoute
from app.api.text import Line
from app.db.tables import Build, Launch
from app.registry.builds import cancellation, listing
from app.registry.builds import log as build_log
from app.registry.builds import steps as build_steps
from app.registry.builds.steps import StepView
from app.registry.errors import (
    BuildEnded,
    Forbidden,
    NotFound,
    Unauthorized,
)
from app.words import BuildState, FailureCode, StepName, known

router = APIRouter(tags=["builds"], route_class=StrictRoute)

_LOG_BYTES = 4 << 20
_MAX_OFFSET = 1 << 53


class StepOut(BaseModel):
    """One step of a build's flow."""

    name: ShownStep
    state: ShownStepState
    attempts: int
    started_at: datetime | None
    finished_at: datetime | None
    output: dict[str, Any] | None = Field(
        description="What the step found or made, as far as anybody may see it. Each step has its own fields."
    )
    message: ShownMessage | None = Field(description="What the step waits for, or why it failed.")

    @classmethod
    def of(cls, step: StepView) -> Self:
        return cls(
            name=step.name,
            state=step.state,
            attempts=step.attempts,
            started_at=step.started_at,
            finished_at=step.finished_at,
            output=None if step.output is None else step_output(step.name, step.output),
            message=step.message,
        )


class ProgressOut(BaseModel):
    """How far the running job has got."""

    phase: str = Field(max_length=200, examples=["embed"])
    percent: float = Field(
        ge=0, le=100, description="How much of the phase is done, in percent.", examples=[37.5]
    )
    eta_seconds: float | None = Field(
        default=None, ge=0, description="Estimated seconds until the phase ends."
    )

    @classmethod
    def of(cls, stored: dict[str, Any] | None) -> Self | None:
        """None for progress that makes no sense, because progress is only for display and the job goes on."""
        try:
            return None if stored is None else cls.model_validate(stored)
        except ValidationError:
            return None


class InstanceOut(BaseModel):
    """The EC2 instance of a build."""

    id: str = Field(examples=["i-0123456789abcdef0"])
    type: str = Field(examples=["g5.xlarge"])
    image: str | None = Field(examples=["FPO Training 1.1.0"])
    region: str = Field(examples=["eu-west-2"])
    terminated: bool = Field(description="Whether EC2 has confirmed the termination.")

    @classmethod
    def of(cls, outputs: dict[str, dict[str, Any]]) -> Self | None:
        """The instance as the steps' outputs describe it. None if it is not launched or cannot be read."""
        launched = outputs.get(StepName.LAUNCH_INSTANCE, {})
        found = {
            "id": launched.get("instance_id"),
            "type": launched.get("instance_type"),
            "image": outputs.get(StepName.FIND_IMAGE, {}).get("name"),
            "region": launched.get("region"),
            "terminated": bool(outputs.get(StepName.TERMINATE_INSTANCE)),
        }
        try:
            return cls.model_validate(found)
        except ValidationError:
            return None


class LaunchOut(BaseModel):
    """One request for an instance, and its outcome."""

    attempt: int
    region: str = Field(examples=["eu-west-2"])
    zone: str = Field(examples=["eu-west-2a"])
    instance_type: str = Field(examples=["g5.xlarge"])
    market: ShownMarket
    state: ShownLaunchState
    instance_id: str | None = Field(examples=["i-0123456789abcdef0"])
    refusal: ShownMessage | None = Field(description="What AWS answered, when it refused the request.")
    requested_at: datetime
    launched_at: datetime | None
    ended_at: datetime | None

    @classmethod
    def of(cls, launch: Launch) -> Self:
        refusal = launch.refusal_code and f"{launch.refusal_code}: {launch.refusal_message}"
        return cls(
            attempt=launch.attempt,
            region=launch.region,
            zone=launch.zone,
            instance_type=launch.instance_type,
            market=launch.market,
            state=launch.state,
            instance_id=launch.instance_id,
            refusal=refusal,
            requested_at=launch.requested_at,
            launched_at=launch.launched_at,
            ended_at=launch.ended_at,
        )


class FailureOut(BaseModel):
    """Why a build failed."""

    step: ShownStep
    code: str = Field(
        description="Stable: branch on it. docs/failure-codes.md lists the codes that the registry knows; "
        "a training at another commit may report one that is not there.",
        examples=["missing_input"],
    )
    message: ShownMessage = Field(description="What is wrong and what to do.")
    retry_helps: bool | None = Field(
        description="Whether the same build may succeed when it is posted again. Null for an unknown code."
    )

    @classmethod
    def of(cls, step: str, code: str, message: str) -> Self:
        documented = known(FailureCode, code)
        return cls(
            step=step,
            code=code,
            message=message,
            retry_helps=None if documented is None else documented.retry_helps,
        )


class BuildOut(BaseModel):
    """One attempt to produce the model of a prefix."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.BUILD]})

    id: UUID
    prefix: str = Field(examples=["0.0.2-aff1242"])
    version: str = Field(examples=["0.0.2"])
    sha: str = Field(examples=[examples.SHA])
    branch: str
    kind: ShownKind
    state: ShownBuildState
    promote_to: ShownStage | None
    requested_by: str
    requested_by_kind: ShownActor
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    steps: list[StepOut]
    progress: ProgressOut | None
    launches: list[LaunchOut]
    instance: InstanceOut | None
    failure: FailureOut | None
    cancel_requested_at: datetime | None = Field(
        description="When its cancellation was requested. It is `cancelled` once its instance is gone."
    )
    cancel_requested_by: str | None

    @classmethod
    def of(cls, build: Build) -> Self:
        outputs = {step.name: step.output or {} for step in build.steps}
        failure = None
        if build.failure_code is not None:
            failure = FailureOut.of(build.failure_step or "", build.failure_code, build.failure_message or "")
        return cls(
            id=build.id,
            prefix=build.prefix,
            version=build.version,
            sha=build.sha,
            branch=build.branch,
            kind=build.kind,
            state=build.state,
            promote_to=build.promote_to,
            requested_by=build.requested_by,
            requested_by_kind=build.requested_by_kind,
            created_at=build.created_at,
            started_at=build.started_at,
            finished_at=build.finished_at,
            steps=[StepOut.of(step) for step in build_steps.shown(build)],
            progress=ProgressOut.of(build.progress),
            launches=[LaunchOut.of(launch) for launch in build.launches],
            instance=InstanceOut.of(outputs),
            failure=failure,
            cancel_requested_at=build.cancel_requested_at,
            cancel_requested_by=build.cancel_requested_by,
        )


class BuildPage(BaseModel):
    """Builds, newest first."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"items": [examples.BUILD], "next": None}]})

    items: list[BuildOut]
    next: str | None = Field(description="The `cursor` of the next page. Null on the last page.")


@router.get(
    "/builds",
    operation_id="builds:list",
    summary="Builds, newest first",
    response_description="A page of builds",
    responses=problems(),
)
def list_builds(
    db: Db,
    cursor: PageCursor,
    search: SearchDep,
    limit: Limit = 50,
    state: Annotated[BuildState | None, Query(description="Only builds in this state.")] = None,
    prefix: Annotated[Line | None, Query(description="Only builds of this prefix.")] = None,
    branch: Annotated[Line | None, Query(description="Only builds of this branch.")] = None,
    version: Annotated[Line | None, Query(description="Only builds of this version.")] = None,
) -> BuildPage:
    """The builds with their steps. If there are several filters, a build must match all of them."""
    page = listing.find(
        db,
        limit=limit,
        cursor=cursor,
        state=state,
        prefix=prefix,
        branch=branch,
        version=version,
        search=search,
    )
    return BuildPage(
        items=[BuildOut.of(build) for build in page.items], next=str(page.next) if page.next else None
    )


BuildId = Annotated[UUID, Path(description="The build's id.")]


@router.get(
    "/builds/{id}",
    operation_id="builds:get",
    summary="One build",
    response_description="The build",
    responses=problems(NotFound),
)
def get(id: BuildId, db: Db) -> BuildOut:  # noqa: A002 - the contract's name
    """The build with its steps, progress and instance, and the reason if it failed."""
    return BuildOut.of(listing.get(db, id))


@router.post(
    "/builds/{id}/cancel",
    operation_id="builds:cancel",
    summary="Cancel a build",
    status_code=202,
    response_description="The build is being cancelled, or was cancelled before",
    responses=problems(NotFound, BuildEnded, Unauthorized, Forbidden),
)
def cancel(id: BuildId, who: CanBuild, db: Db) -> BuildOut:  # noqa: A002 - the contract's name
    """The answer comes at once. A queued build is `cancelled` in it already.

    A running build stays `running` until its instance is terminated, which takes a few seconds, and is
    `cancelled` then. Its log is kept, and its prefix is free for another build. Repeating the request changes
    nothing.
    """
    return BuildOut.of(cancellation.cancel(db, id, who.name, who.kind))


@router.get(
    "/builds/{id}/log",
    operation_id="builds:log",
    summary="A build's log, as text",
    response_class=Response,
    responses={
        200: {
            "description": "A piece of the log",
            "content": {"text/plain": {"schema": {"type": "string"}, "example": examples.LOG}},
            "headers": {
                "X-Log-Next-Offset": {
                    "description": "the `offset` to ask for next",
                    "schema": {"type": "integer", "example": 86},
                },
                "X-Log-Size": {
                    "description": "the log's size so far, in bytes",
                    "schema": {"type": "integer", "example": 86},
                },
            },
        },
        **problems(NotFound),
    },
)
def log(
    id: BuildId,  # noqa: A002 - the contract's name
    db: Db,
    offset: Annotated[int, Query(ge=0, le=_MAX_OFFSET, description="The byte to start at.")] = 0,
) -> Response:
    """Up to 4 MiB of UTF-8 from `offset` on. It never ends in the middle of a character.

    `X-Log-Next-Offset` is the offset to ask for next. `X-Log-Size` is the log's size so far, in bytes.
    """
    listing.require(db, id)
    text, size = build_log.read(db, id, offset, _LOG_BYTES)
    headers = {"X-Log-Next-Offset": str(offset + len(text)), "X-Log-Size": str(size)}
    return Response(text, media_type="text/plain; charset=utf-8", headers=headers)
