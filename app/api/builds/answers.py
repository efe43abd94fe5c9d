"""Builds as answers show them, with everything that can be seen of their steps and launches."""

from datetime import datetime
from typing import Any, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.api.builds.outcomes import OutcomeOut
from app.api.common import examples
from app.api.common.shown import (
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
from app.db.tables import Build, Launch
from app.failures import FailureCode
from app.registry.builds import retries
from app.registry.builds import steps as build_steps
from app.registry.builds.steps import StepView
from app.registry.reproductions.outcomes import Outcome, Wanted
from app.words import StepName, known


class StepOut(BaseModel):
    """One step of a build's flow."""

    name: ShownStep
    state: ShownStepState
    attempts: int
    started_at: datetime | None
    finished_at: datetime | None
    output: dict[str, Any] | None = Field(
        description="What the step found or made, as far as anybody may see it. Each step has its own "
        "fields. A list of builds leaves out what can be long: `epochs`, `phases`, `data`, `warnings`, "
        "`model_files`."
    )
    message: ShownMessage | None = Field(description="What the step waits for, or why it failed.")
    taken_over_from: UUID | None = Field(
        description="The build that did this step, when this build is a retry and need not do it again."
    )

    @classmethod
    def of(cls, step: StepView, *, whole: bool) -> Self:
        return cls(
            name=step.name,
            state=step.state,
            attempts=step.attempts,
            started_at=step.started_at,
            finished_at=step.finished_at,
            output=None if step.output is None else step_output(step.name, step.output, whole=whole),
            message=step.message,
            taken_over_from=step.taken_over_from,
        )


class ProgressOut(BaseModel):
    """How far the running job has got."""

    phase: str = Field(max_length=200, examples=["embed"])
    percent: float = Field(
        ge=0, le=100, description="How much of the phase is done, in percent.", examples=[37.5]
    )
    eta_seconds: float | None = Field(
        ge=0, description="Estimated seconds until the phase ends. Null while that cannot be told."
    )

    @classmethod
    def of(cls, stored: dict[str, Any] | None) -> Self | None:
        """None for progress that makes no sense, because progress is only for display and the job goes on."""
        try:
            return None if stored is None else cls.model_validate({"eta_seconds": None, **stored})
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
        description="Whether the same build may succeed when it is retried or posted again. Null for an "
        "unknown code."
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


class ReproductionOut(BaseModel):
    """What a build that makes a model again was asked for, and what came of it."""

    model: str = Field(description="The prefix of the model that is made again.", examples=["0.0.2-aff1242"])
    accept: list[str] = Field(
        description="The inputs for which what is there now may be used, where they cannot be had as they "
        "were recorded any more."
    )
    repair: bool = Field(description="Whether lost files of the model are to be put back.")
    model_zip: bool = Field(description="Whether this may write model.zip, too.")
    outcome: OutcomeOut | None = Field(description="Null until the two models were compared.")

    @classmethod
    def of(cls, build: Build) -> Self | None:
        if build.reproduces is None:
            return None
        wanted = Wanted.of(build.reproduction_wanted)
        compared = next((step.output for step in build.steps if step.name == StepName.COMPARE), None)
        outcome = Outcome.read(compared)
        return cls(
            model=build.prefix,
            accept=list(wanted.accept),
            repair=wanted.repair,
            model_zip=wanted.model_zip,
            outcome=None if outcome is None else OutcomeOut.of(outcome),
        )


class BuildOut(BaseModel):
    """One attempt to produce the model of a prefix, or to make an existing model again."""

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
    reproduction: ReproductionOut | None = Field(description="Null for a build that trains a new model.")
    retry_of: UUID | None = Field(description="The build that this one repeats.")
    retry_with: str | None = Field(
        description="The call that repeats this build and takes over what still holds of it. Null unless the "
        "build has failed or was cancelled.",
        examples=["POST /builds/6f1c2b7e-0d5a-4c39-9a51-3e0c9d1f7b42/retry"],
    )

    @classmethod
    def of(cls, build: Build, *, whole: bool = True) -> Self:
        """`whole` includes what can be long in the outputs of its steps."""
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
            steps=[StepOut.of(step, whole=whole) for step in build_steps.shown(build)],
            progress=ProgressOut.of(build.progress),
            launches=[LaunchOut.of(launch) for launch in build.launches],
            instance=InstanceOut.of(outputs),
            failure=failure,
            cancel_requested_at=build.cancel_requested_at,
            cancel_requested_by=build.cancel_requested_by,
            reproduction=ReproductionOut.of(build),
            retry_of=build.retry_of,
            retry_with=f"POST /builds/{build.id}/retry" if retries.can_be_retried(build) else None,
        )
