"""The closed sets of words that the tables, the API and the worker share.

Check constraints, the enums of the OpenAPI document and docs/failure-codes.md are made from these.
"""

from enum import StrEnum
from typing import TypeVar

Word = TypeVar("Word", bound=StrEnum)


def known(words: type[Word], text: str) -> Word | None:
    """The word, or None for one that only another version of the registry or of the training knows."""
    return next((word for word in words if word == text), None)


class BuildState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def active(self) -> bool:
        return self in (BuildState.QUEUED, BuildState.RUNNING)

    @property
    def next(self) -> frozenset["BuildState"]:
        """The states that may follow this one."""
        return _NEXT_STATES[self]


_NEXT_STATES: dict[BuildState, frozenset[BuildState]] = {
    BuildState.QUEUED: frozenset({BuildState.RUNNING, BuildState.CANCELLED}),
    BuildState.RUNNING: frozenset({BuildState.SUCCEEDED, BuildState.FAILED, BuildState.CANCELLED}),
    BuildState.SUCCEEDED: frozenset(),
    BuildState.FAILED: frozenset(),
    BuildState.CANCELLED: frozenset(),
}


class Document(StrEnum):
    """The files of a model that stay readable for ever, also when its other files were collected."""

    PROVENANCE = "provenance.json"
    SIGNATURE = "model.sig"
    CHECK_RESULT = "check_result.json"


class StepState(StrEnum):
    """The state of a step in the API. The last two are derived from the flow and never stored."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    PENDING = "pending"
    SKIPPED = "skipped"

    @classmethod
    def stored(cls) -> "tuple[StepState, ...]":
        """The states that a step's row can have. A row exists from the step's start."""
        return (cls.RUNNING, cls.SUCCEEDED, cls.FAILED)


class StepName(StrEnum):
    """Every step of every kind of build."""

    NEEDS_MODEL = "needs_model"
    FIND_IMAGE = "find_image"
    FIND_NETWORK = "find_network"
    LAUNCH_INSTANCE = "launch_instance"
    AWAIT_ADDRESS = "await_address"
    AWAIT_READY = "await_ready"
    FETCH_KEY = "fetch_key"
    VALIDATE_CONNECTION = "validate_connection"
    BRING_CODE = "bring_code"
    LOAD_INPUTS = "load_inputs"
    TRAIN = "train"
    BENCHMARK = "benchmark"
    COLLECT = "collect"
    TERMINATE_INSTANCE = "terminate_instance"
    VALIDATE = "validate"
    PUBLISH = "publish"
    COMPARE = "compare"


class BuildKind(StrEnum):
    """What a build is for: to publish a model under its prefix, or to make an existing one again."""

    TRAIN = "train"
    REPRODUCE = "reproduce"

    @property
    def steps(self) -> tuple[StepName, ...]:
        """The steps of this kind of build, in their order. The worker has the classes behind them."""
        return _STEPS[self]


_ON_THE_INSTANCE = (
    StepName.FIND_IMAGE,
    StepName.FIND_NETWORK,
    StepName.LAUNCH_INSTANCE,
    StepName.AWAIT_ADDRESS,
    StepName.AWAIT_READY,
    StepName.FETCH_KEY,
    StepName.VALIDATE_CONNECTION,
    StepName.BRING_CODE,
    StepName.LOAD_INPUTS,
    StepName.TRAIN,
    StepName.BENCHMARK,
    StepName.COLLECT,
    StepName.TERMINATE_INSTANCE,
)
_STEPS: dict[BuildKind, tuple[StepName, ...]] = {
    BuildKind.TRAIN: (StepName.NEEDS_MODEL, *_ON_THE_INSTANCE, StepName.VALIDATE, StepName.PUBLISH),
    BuildKind.REPRODUCE: (*_ON_THE_INSTANCE, StepName.COMPARE),
}


class EventType(StrEnum):
    """What can happen to a build, as its events record it."""

    STATE = "state"
    STEP_STARTED = "step_started"
    STEP_SUCCEEDED = "step_succeeded"
    STEP_FAILED = "step_failed"
    REWOUND = "rewound"
    LAUNCH_REFUSED = "launch_refused"
    PROMOTION_REFUSED = "promotion_refused"
    NOTE = "note"
    CANCEL_REQUESTED = "cancel_requested"
    RETRY_REQUESTED = "retry_requested"


class RetryRefusal(StrEnum):
    """Why a build cannot be retried."""

    ACTIVE = "active"
    SUCCEEDED = "succeeded"
    PREFIX_HELD = "prefix_held"
    MODEL_EXISTS = "model_exists"
    KIND = "kind"


class LaunchState(StrEnum):
    """The state of one request for an instance."""

    REQUESTED = "requested"
    LAUNCHED = "launched"
    REFUSED = "refused"
    TERMINATED = "terminated"


class Market(StrEnum):
    """How an instance is paid for."""

    ON_DEMAND = "on_demand"
    SPOT = "spot"


class InputKind(StrEnum):
    """What an input is to the build that uses it."""

    CODE = "code"
    CONFIG = "config"
    RAW_DATA = "raw_data"
    ADDITIONAL_SOURCE = "additional_source"
    REFERENCE_DATA = "reference_data"
    BENCHMARK_DATA = "benchmark_data"
    THRESHOLDS = "thresholds"
    MACHINE_IMAGE = "machine_image"
    HARDWARE = "hardware"
    TRANSFORMER = "transformer"
    PYTHON_ENVIRONMENT = "python_environment"
    DETERMINISM = "determinism"


class Pinned(StrEnum):
    """What a reproduction takes as it was recorded. Most are kinds of inputs."""

    CODE = "code"
    RAW_DATA = "raw_data"
    BENCHMARK_DATA = "benchmark_data"
    ADDITIONAL_SOURCE = "additional_source"
    MACHINE_IMAGE = "machine_image"
    INSTANCE_TYPE = "instance_type"


class Irreproducible(StrEnum):
    """Why a model cannot be reproduced, or not without accepting something else in the place of an input."""

    IMPORTED = "imported"
    NOT_PINNED = "not_pinned"


class Sameness(StrEnum):
    """How the model that a reproduction made compares with the original."""

    IDENTICAL = "identical"
    EQUIVALENT = "equivalent"
    DIFFERENT = "different"


class LineageNode(StrEnum):
    """What the graph of a model's lineage consists of."""

    INPUT = "input"
    BUILD = "build"
    MODEL = "model"
    PROMOTION = "promotion"


class LineageEdge(StrEnum):
    """How one node of a model's lineage leads to another one."""

    USED_BY = "used_by"
    RETRIED_BY = "retried_by"
    TAKEN_OVER_BY = "taken_over_by"
    MADE = "made"
    BASELINE_OF = "baseline_of"
    PROMOTED_BY = "promoted_by"
    REPRODUCED_BY = "reproduced_by"


class FileChange(StrEnum):
    """How a file inside an archive, or a package, differs from that of another model."""

    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"


class NotTraced(StrEnum):
    """Why the registry cannot tell whether an input went into a model."""

    IMPORTED = "imported"
    FILES_NOT_RECORDED = "files_not_recorded"


class Stage(StrEnum):
    """Where a model can run, in the order in which it gets there."""

    DEVELOPMENT = "development"
    STAGING = "staging"
    PRODUCTION = "production"

    @property
    def before(self) -> "Stage | None":
        """The stage that a model must have been in first."""
        order = list(Stage)
        position = order.index(self)
        return order[position - 1] if position else None


class Verdict(StrEnum):
    """The result of the validation. It is unknown where there was none, or nothing to compare with."""

    PASSED = "passed"
    FAILED = "failed"
    UNKNOWN = "unknown"

    @property
    def has_marker(self) -> bool:
        """Whether an object of this name stands in the model's prefix."""
        return self is not Verdict.UNKNOWN


class Direction(StrEnum):
    """Which way a figure gets better."""

    INCREASE_IS_GOOD = "increase_is_good"
    INCREASE_IS_BAD = "increase_is_bad"


class Breach(StrEnum):
    """How far a figure got worse than its threshold allows, from the worst on."""

    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"


class Origin(StrEnum):
    """Where a model comes from: a build of this registry, or a bucket that was filled before it existed."""

    BUILT = "built"
    IMPORTED = "imported"


class ModelState(StrEnum):
    """How far garbage collection has got with a model.

    A marked model can be restored. One whose objects are being deleted, or are gone, cannot.
    """

    KEPT = "kept"
    MARKED = "marked"
    SWEEPING = "sweeping"
    COLLECTED = "collected"

    @property
    def next(self) -> frozenset["ModelState"]:
        """The states that may follow this one. A trigger of the database refuses every other change."""
        return _NEXT_MODEL_STATES[self]

    @property
    def gone(self) -> bool:
        """Whether its objects are gone, or are being deleted, so that nothing brings the model back."""
        return self in (ModelState.SWEEPING, ModelState.COLLECTED)


_NEXT_MODEL_STATES: dict[ModelState, frozenset[ModelState]] = {
    ModelState.KEPT: frozenset({ModelState.MARKED}),
    ModelState.MARKED: frozenset({ModelState.KEPT, ModelState.SWEEPING}),
    ModelState.SWEEPING: frozenset({ModelState.COLLECTED}),
    ModelState.COLLECTED: frozenset(),
}


class RunKind(StrEnum):
    """A long piece of work that a person or the schedule asks for."""

    IMPORT = "import"
    RECONCILIATION = "reconciliation"
    COLLECTION = "collection"
    SIGNING = "signing"
    IMAGE_CLEANING = "image_cleaning"


class CollectionMode(StrEnum):
    """What garbage collection may do: nothing; show each night what it would do; or do it each night.

    With `plan`, a person can have it carried out.
    """

    OFF = "off"
    PLAN = "plan"
    ON = "on"


class CollectionPhase(StrEnum):
    """What a collection does, in this order."""

    MARK = "mark"
    SWEEP = "sweep"
    INPUTS = "inputs"
    UNPUBLISHED = "unpublished"


class RunState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    STOPPED = "stopped"

    @property
    def active(self) -> bool:
        return self in (RunState.QUEUED, RunState.RUNNING)


class MirrorDifference(StrEnum):
    """How the bucket can differ from what the registry has recorded."""

    MARKER_MISSING = "marker_missing"
    MARKER_UNKNOWN = "marker_unknown"
    MARKER_NOT_EMPTY = "marker_not_empty"
    ARTIFACT_MISSING = "artifact_missing"
    ARTIFACT_DIFFERS = "artifact_differs"
    LEFTOVER = "leftover"
    STRAY_OBJECT = "stray_object"
    UNKNOWN_PREFIX = "unknown_prefix"
    INPUT_MISSING = "input_missing"
    INPUT_DIFFERS = "input_differs"


class LeftOut(StrEnum):
    """Why an import leaves a prefix of the bucket out."""

    NO_MODEL = "no_model"
    BUILD_UNDER_WAY = "build_under_way"
    BEING_DELETED = "being_deleted"
    WRITTEN_BY_A_REGISTRY = "written_by_a_registry"
    CONFIG_UNREADABLE = "config_unreadable"
    VERSION_DIFFERS = "version_differs"


class PlanVerdict(StrEnum):
    """Whether garbage collection may delete a model, or must keep it."""

    DOOMED = "doomed"
    KEPT = "kept"


class KeepReason(StrEnum):
    """Why garbage collection keeps a model."""

    REACHED_STAGING = "reached_staging"
    REACHED_PRODUCTION = "reached_production"
    RUNS_IN_A_STAGE = "runs_in_a_stage"
    ROLLBACK_TARGET = "rollback_target"
    SUPERSEDED_RECENTLY = "superseded_recently"
    NOT_RELEASED = "not_released"
    LATEST_IN_DEVELOPMENT = "latest_in_development"
    BRANCH_EXISTS = "branch_exists"
    FORMER_MAIN_BRANCH = "former_main_branch"
    BRANCH_NOT_RECORDED = "branch_not_recorded"
    COMMIT_ON_BRANCH = "commit_on_branch"
    COMMIT_UNKNOWN = "commit_unknown"
    BRANCHES_UNKNOWN = "branches_unknown"
    ACTIVE_BUILD = "active_build"
    ACTIVE_REPRODUCTION = "active_reproduction"
    RETRY_WINDOW = "retry_window"
    VALIDATION_BASELINE = "validation_baseline"
    PINNED = "pinned"
    TOO_YOUNG = "too_young"
    RESTORED_RECENTLY = "restored_recently"
    NEWEST_PASSED = "newest_passed"
    BRANCH_RULE = "branch_rule"
    VERSION_RULE = "version_rule"


class CollectReason(StrEnum):
    """Why garbage collection may delete a model."""

    BRANCH_GONE = "branch_gone"
    COMMIT_ON_NO_BRANCH = "commit_on_no_branch"
    RETIRED = "retired"
    RETIRED_BY_RULE = "retired_by_rule"


class ReleaseRuleState(StrEnum):
    """Whether a release rule still holds. It follows from the rule's times and is never stored."""

    ACTIVE = "active"
    REVOKED = "revoked"


class Actor(StrEnum):
    """What kind of actor did something. Its name, beside the kind, is free text."""

    TOKEN = "token"  # noqa: S105 - the word, not a secret
    CI_WORKFLOW = "ci_workflow"
    SYSTEM = "system"
    ANONYMOUS = "anonymous"


class AuditAction(StrEnum):
    """What somebody did, as the audit trail records it."""

    BUILD_REQUESTED = "build_requested"
    BUILD_CANCELLED = "build_cancelled"
    BUILD_RETRIED = "build_retried"
    REPRODUCTION_REQUESTED = "reproduction_requested"
    PROMOTED = "promoted"
    ROLLED_BACK = "rolled_back"
    RUN_REQUESTED = "run_requested"
    RUN_STOPPED = "run_stopped"
    TOKEN_CREATED = "token_created"  # noqa: S105 - the word, not a secret
    TOKEN_REVOKED = "token_revoked"  # noqa: S105
    VERDICT_CHANGED = "verdict_changed"
    MODEL_MARKED = "model_marked"
    MODEL_RESTORED = "model_restored"
    MODEL_SWEPT = "model_swept"
    MODEL_COLLECTED = "model_collected"
    MODEL_PINNED = "model_pinned"
    MODEL_UNPINNED = "model_unpinned"
    MODEL_RELEASED = "model_released"
    RELEASE_WITHDRAWN = "release_withdrawn"
    RELEASE_RULE_SET = "release_rule_set"
    RELEASE_RULE_REVOKED = "release_rule_revoked"
    PUBLISHER_TRUSTED = "publisher_trusted"
    PUBLISHER_REMOVED = "publisher_removed"
    SIGNED_IN = "signed_in"
    MODEL_SIGNED = "model_signed"
    NOTIFICATION_TESTED = "notification_tested"


class NotificationKind(StrEnum):
    """What the registry tells other systems about, in the form that Standard Webhooks recommends."""

    BUILD_ENDED = "build.ended"
    MODEL_VERDICT = "model.verdict"
    STAGE_PROMOTED = "stage.promoted"
    STAGE_ROLLED_BACK = "stage.rolled_back"
    MODEL_MARKED = "model.marked"
    MODEL_RESTORED = "model.restored"
    MODEL_COLLECTED = "model.collected"
    COLLECTION_ENDED = "collection.ended"
    TEST = "test"


class NotificationTarget(StrEnum):
    """Where notifications are sent to."""

    WEBHOOK = "webhook"
    SLACK = "slack"


class NotificationState(StrEnum):
    """How far one notification to one target has got. One that failed is not tried again."""

    PENDING = "pending"
    SENT = "sent"
    FAILED = "failed"


class Access(StrEnum):
    """Who may call the API."""

    OPEN = "open"
    READS = "reads"
    TOKENS = "tokens"


class Scope(StrEnum):
    """What a token may do."""

    READ = "read"
    BUILD = "build"
    PROMOTE_DEVELOPMENT = "promote:development"
    PROMOTE_STAGING = "promote:staging"
    PROMOTE_PRODUCTION = "promote:production"
    OVERRIDE = "override"
    COLLECT = "collect"
    ADMIN = "admin"

    @classmethod
    def promote(cls, stage: Stage) -> "Scope":
        return cls(f"promote:{stage}")


class TokenState(StrEnum):
    """Whether a token of the database is accepted. It follows from the token's times and is never stored."""

    ACTIVE = "active"
    EXPIRED = "expired"
    REVOKED = "revoked"
