"""How answers show what is stored.

An answer can show every value that the database can hold, because one odd value must not make a whole list
unreadable. States and similar words are shown as they are stored, even if only a newer version of the
registry knows them. The OpenAPI document lists the words that this version knows. Long messages are cut. Of a
step's output, only the fields that are listed here are shown, because anybody may read them.
"""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, WithJsonSchema

from app.api.common import bounded
from app.words import (
    Actor,
    AuditAction,
    BuildKind,
    BuildState,
    CollectReason,
    InputKind,
    KeepReason,
    LaunchState,
    Market,
    ModelState,
    NotificationKind,
    NotificationState,
    NotificationTarget,
    Origin,
    Pinned,
    PlanVerdict,
    ReleaseRuleState,
    RunKind,
    RunState,
    Sameness,
    Stage,
    StepName,
    StepState,
    TokenState,
    Verdict,
)

ShownActor = Annotated[str, WithJsonSchema({"type": "string", "enum": list(Actor)})]
ShownAuditAction = Annotated[str, WithJsonSchema({"type": "string", "enum": list(AuditAction)})]
ShownBuildState = Annotated[str, WithJsonSchema({"type": "string", "enum": list(BuildState)})]
ShownCollectionReason = Annotated[
    str, WithJsonSchema({"type": "string", "enum": [*CollectReason, *KeepReason]})
]
ShownInputKind = Annotated[str, WithJsonSchema({"type": "string", "enum": list(InputKind)})]
ShownKind = Annotated[str, WithJsonSchema({"type": "string", "enum": list(BuildKind)})]
ShownLaunchState = Annotated[str, WithJsonSchema({"type": "string", "enum": list(LaunchState)})]
ShownMarket = Annotated[str, WithJsonSchema({"type": "string", "enum": list(Market)})]
ShownModelState = Annotated[str, WithJsonSchema({"type": "string", "enum": list(ModelState)})]
ShownNotificationKind = Annotated[str, WithJsonSchema({"type": "string", "enum": list(NotificationKind)})]
ShownNotificationState = Annotated[str, WithJsonSchema({"type": "string", "enum": list(NotificationState)})]
ShownNotificationTarget = Annotated[str, WithJsonSchema({"type": "string", "enum": list(NotificationTarget)})]
ShownOrigin = Annotated[str, WithJsonSchema({"type": "string", "enum": list(Origin)})]
ShownPlanVerdict = Annotated[str, WithJsonSchema({"type": "string", "enum": list(PlanVerdict)})]
ShownReleaseRuleState = Annotated[str, WithJsonSchema({"type": "string", "enum": list(ReleaseRuleState)})]
ShownPinned = Annotated[str, WithJsonSchema({"type": "string", "enum": list(Pinned)})]
ShownSameness = Annotated[str, WithJsonSchema({"type": "string", "enum": list(Sameness)})]
ShownRunKind = Annotated[str, WithJsonSchema({"type": "string", "enum": list(RunKind)})]
ShownRunState = Annotated[str, WithJsonSchema({"type": "string", "enum": list(RunState)})]
ShownStage = Annotated[str, WithJsonSchema({"type": "string", "enum": list(Stage)})]
ShownStep = Annotated[str, WithJsonSchema({"type": "string", "enum": list(StepName)})]
ShownStepState = Annotated[str, WithJsonSchema({"type": "string", "enum": list(StepState)})]
ShownTokenState = Annotated[str, WithJsonSchema({"type": "string", "enum": list(TokenState)})]
ShownVerdict = Annotated[str, WithJsonSchema({"type": "string", "enum": list(Verdict)})]


def shown_message(value: str) -> str:
    return bounded.text(bounded.without_sql(value), 4_000)


ShownMessage = Annotated[str, AfterValidator(shown_message)]
"""A message from a machine, AWS or a library, without SQL and cut to a readable length."""

_SHOWN: dict[str, frozenset[str]] = {
    StepName.NEEDS_MODEL: frozenset(
        {
            "reason",
            "commit",
            "config_differs",
            "raw_source_data_bytes",
            "benchmarking_data_bytes",
            "taken_over",
            "inputs",
        }
    ),
    StepName.FIND_IMAGE: frozenset({"image_id", "name", "created"}),
    StepName.FIND_NETWORK: frozenset({"zone"}),
    StepName.LAUNCH_INSTANCE: frozenset({"instance_id", "instance_type", "region", "zone"}),
    StepName.AWAIT_ADDRESS: frozenset(),
    StepName.AWAIT_READY: frozenset({"checks"}),
    StepName.FETCH_KEY: frozenset({"fingerprint"}),
    StepName.VALIDATE_CONNECTION: frozenset(),
    StepName.BRING_CODE: frozenset({"commit", "config_differs"}),
    StepName.LOAD_INPUTS: frozenset({"inputs", "config_sha256"}),
    StepName.TRAIN: frozenset({"files", "metrics", "counts", "epochs", "phases", "data", "warnings"}),
    StepName.BENCHMARK: frozenset({"files", "metrics", "counts", "phases", "data", "warnings"}),
    StepName.COLLECT: frozenset({"files", "optional_files", "model_files"}),
    StepName.TERMINATE_INSTANCE: frozenset({"instance_ids"}),
    StepName.VALIDATE: frozenset({"verdict", "reason", "against"}),
    StepName.PUBLISH: frozenset({"artifacts", "metrics", "verdict", "verdict_reason", "signed_with"}),
    StepName.COMPARE: frozenset(
        {
            "verdict",
            "same_bytes",
            "largest_difference",
            "not_compared",
            "tolerance",
            "figures",
            "inputs",
            "not_pinned",
            "findings",
            "repaired",
            "not_repaired",
        }
    ),
}


# What can be long. A list of builds leaves it out.
_LONG = frozenset({"epochs", "phases", "data", "warnings", "model_files"})


def step_output(step: str, output: Mapping[str, Any], *, whole: bool) -> dict[str, Any]:
    """The part of a step's output that anybody may see: no network, private address, secret's name or path.

    If this version does not know the step, nothing of its output is shown.
    """
    shown = _SHOWN.get(step, frozenset()) - (frozenset() if whole else _LONG)
    return {name: value for name, value in output.items() if name in shown}
