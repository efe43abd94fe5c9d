"""The closed sets of words that the tables, the API and the worker share.

Check constraints, the enums of the OpenAPI document and docs/failure-codes.md are made from these.
"""

from enum import StrEnum
from typing import Self, TypeVar

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
    BENCHMARK_DATA = "benchmark_data"
    MACHINE_IMAGE = "machine_image"
    TRANSFORMER = "transformer"
    PYTHON_ENVIRONMENT = "python_environment"


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


class FileChange(StrEnum):
    """How a file inside an archive differs from that of another model."""

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


class RunKind(StrEnum):
    """A long piece of work that a person or the schedule asks for."""

    IMPORT = "import"
    RECONCILIATION = "reconciliation"
    COLLECTION = "collection"


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
    STRAY_OBJECT = "stray_object"
    UNKNOWN_PREFIX = "unknown_prefix"


class LeftOut(StrEnum):
    """Why an import leaves a prefix of the bucket out."""

    NO_MODEL = "no_model"
    BUILD_UNDER_WAY = "build_under_way"
    WRITTEN_BY_A_REGISTRY = "written_by_a_registry"
    CONFIG_UNREADABLE = "config_unreadable"
    VERSION_DIFFERS = "version_differs"


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
    PROMOTED = "promoted"
    ROLLED_BACK = "rolled_back"
    RUN_REQUESTED = "run_requested"
    RUN_STOPPED = "run_stopped"
    TOKEN_CREATED = "token_created"  # noqa: S105 - the word, not a secret
    TOKEN_REVOKED = "token_revoked"  # noqa: S105
    VERDICT_CHANGED = "verdict_changed"


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


class Responsible(StrEnum):
    """Who can remove the cause of a failure."""

    AUTHOR = "the commit's author"
    DATA_OWNER = "the owner of the data"
    OPERATOR = "the operator of the registry"
    CLOUD = "AWS"
    TRAINING = "the training code at this commit"
    REGISTRY = "the registry"


class FailureCode(StrEnum):
    """Why a build failed. Stable: programs branch on it.

    A training at an older or newer commit may send a code that is not here, so codes are stored as text.
    """

    retry_helps: bool
    responsible: Responsible
    meaning: str
    advice: str

    def __new__(
        cls,
        value: str,
        retry_helps: bool,  # noqa: FBT001
        responsible: Responsible,
        meaning: str,
        advice: str,
    ) -> Self:
        member = str.__new__(cls, value)
        member._value_ = value
        member.retry_helps = retry_helps
        member.responsible = responsible
        member.meaning = meaning
        member.advice = advice
        return member

    # Each member reads as a row of a table: code, whether a retry helps, who is responsible; meaning; advice.
    # fmt: off
    # Before an instance is launched
    MISSING_INPUT = (
        "missing_input", False, Responsible.DATA_OWNER,
        "The bucket's root lacks raw_source_data.zip or benchmarking_data.zip.",
        "Put the file there, then post the build again.",
    )
    UNUSABLE_INPUT = (
        "unusable_input", False, Responsible.DATA_OWNER,
        "An input in the bucket's root is not a whole zip archive.",
        "Upload the file again, then post the build again.",
    )
    PREFIX_TAKEN = (
        "prefix_taken", False, Responsible.OPERATOR,
        "The bucket has objects under the prefix that this registry did not write.",
        "Raise the version in search-config.toml, or move the objects away.",
    )
    NO_IMAGE = (
        "no_image", False, Responsible.OPERATOR,
        "No machine image of the configured name and owner is available and fits the instance type.",
        "Make one with Packer (.packer/), or set REGISTRY_IMAGE_NAME_PATTERN and REGISTRY_IMAGE_OWNERS.",
    )
    NO_NETWORK = (
        "no_network", False, Responsible.OPERATOR,
        "The configured subnet or security group does not exist, or is not unique.",
        "Set REGISTRY_SUBNET_CIDR and REGISTRY_SECURITY_GROUP to what the account has.",
    )
    UNKNOWN_COMMIT = (
        "unknown_commit", False, Responsible.AUTHOR,
        "The commit is not in the training repository.",
        "Push the commit, then post the build again.",
    )
    CONFIG_DIFFERS_FROM_COMMIT = (
        "config_differs_from_commit", False, Responsible.AUTHOR,
        "The posted search-config.toml has other values than the file at that commit.",
        "Commit the configuration and post that commit, or post with force.",
    )

    # AWS
    NO_CAPACITY = (
        "no_capacity", True, Responsible.CLOUD,
        "AWS has no instance of the wanted type now.",
        "Post the build again later, or configure another instance type.",
    )
    QUOTA_EXCEEDED = (
        "quota_exceeded", False, Responsible.OPERATOR,
        "The account has reached its limit of instances.",
        "Raise the limit in AWS, or wait until other instances have ended; then post the build again.",
    )
    CLOUD_AUTH = (
        "cloud_auth", False, Responsible.OPERATOR,
        "AWS refused the worker's credentials or their rights.",
        "Check the worker's IAM role against the README, then post the build again.",
    )
    CLOUD_ERROR = (
        "cloud_error", True, Responsible.CLOUD,
        "AWS refused a call for another reason, which the message quotes.",
        "Do what the message of AWS says, then post the build again.",
    )
    TOO_MANY_LAUNCHES = (
        "too_many_launches", True, Responsible.CLOUD,
        "The build lost each of its instances and has used up its launches.",
        "Look at the build's launches to see why the instances ended; then post the build again.",
    )

    # The instance
    INSTANCE_LOST = (
        "instance_lost", True, Responsible.CLOUD,
        "The instance ended although the registry did not terminate it.",
        "Post the build again.",
    )
    INSTANCE_IMPAIRED = (
        "instance_impaired", True, Responsible.CLOUD,
        "EC2's own checks found the instance impaired.",
        "Post the build again.",
    )
    NO_KEY = (
        "no_key", False, Responsible.OPERATOR,
        "The secret with the SSH key is missing, or does not hold a private key.",
        "Set REGISTRY_SSH_KEY_SECRET to a secret that holds the private key of REGISTRY_KEY_NAME.",
    )
    CONNECTION_REFUSED = (
        "connection_refused", False, Responsible.OPERATOR,
        "The instance refused the SSH key, or showed another host key than before.",
        "Compare REGISTRY_KEY_NAME with the key in REGISTRY_SSH_KEY_SECRET.",
    )
    INVALID_IMAGE = (
        "invalid_image", False, Responsible.OPERATOR,
        "The machine image does not provide what docs/training-machine.md asks for.",
        "Repair the image, raise .packer/ami-version.txt and make it again.",
    )
    COMMAND_FAILED = (
        "command_failed", False, Responsible.OPERATOR,
        "A command of the worker failed on the instance.",
        "The message quotes the command's output. Repair its cause, then post the build again.",
    )
    INSTANCE_FAULT = (
        "instance_fault", False, Responsible.OPERATOR,
        "The instance's disk is full, read-only or not writable by the login user.",
        "Use an image or instance type with a larger disk, then post the build again.",
    )
    CORRUPT_TRANSFER = (
        "corrupt_transfer", True, Responsible.CLOUD,
        "A file arrived with another digest than it was sent with.",
        "Post the build again.",
    )

    # Signing
    NO_SIGNING_KEY = (
        "no_signing_key", False, Responsible.OPERATOR,
        "The setting or the secret with the key that models are signed with does not hold such a key.",
        "Correct REGISTRY_SIGNING_KEY or the secret that REGISTRY_SIGNING_KEY_SECRET names.",
    )

    # The job on the instance
    KILLED = (
        "killed", False, Responsible.TRAINING,
        "The training was killed and left no exit status. Most often its memory ran out.",
        "Read the end of the build's log. Use a larger instance type if memory ran out.",
    )
    REBOOTED = (
        "rebooted", True, Responsible.CLOUD,
        "The instance rebooted while the training ran, which ended it.",
        "Post the build again.",
    )
    STALLED = (
        "stalled", False, Responsible.TRAINING,
        "The training wrote neither a log line nor progress for too long.",
        "Read the end of the build's log to see where it hangs.",
    )
    INVALID_RESULT = (
        "invalid_result", False, Responsible.TRAINING,
        "The training left a result.json that violates the contract.",
        "Repair the training code; docs/training-machine.md describes the contract.",
    )
    MISSING_OUTPUT = (
        "missing_output", False, Responsible.TRAINING,
        "The training succeeded, but lacks a file that it must make.",
        "Repair the training code; docs/training-machine.md names the files.",
    )
    INVALID_CONFIG = (
        "invalid_config", False, Responsible.AUTHOR,
        "The training cannot use search-config.toml.",
        "Correct the keys that the message names.",
    )
    INVALID_JOB = (
        "invalid_job", False, Responsible.REGISTRY,
        "The training cannot read the job that the worker gave it.",
        "The training code at this commit and the worker do not fit together; report it.",
    )
    MISSING_SOURCE = (
        "missing_source", False, Responsible.DATA_OWNER,
        "A data source that the configuration names is not there.",
        "Add the file to raw_source_data.zip or to the commit, or correct its path in search-config.toml.",
    )
    UNREADABLE_SOURCE = (
        "unreadable_source", False, Responsible.DATA_OWNER,
        "A data source cannot be read.",
        "Correct the file that the message names.",
    )
    NO_CLASSES = (
        "no_classes", False, Responsible.DATA_OWNER,
        "After reading and filtering, the sources have no code that a model could learn.",
        "Check the codes in the sources, and the filters in search-config.toml.",
    )
    MISSING_BENCHMARK = (
        "missing_benchmark", False, Responsible.DATA_OWNER,
        "benchmarking_data.zip holds nothing that can be measured.",
        "Correct the benchmark data, then post the build again.",
    )
    DIVERGED = (
        "diverged", False, Responsible.AUTHOR,
        "The training's weights became infinite or not a number.",
        "Lower learning_rate in search-config.toml.",
    )
    OUT_OF_MEMORY = (
        "out_of_memory", False, Responsible.AUTHOR,
        "The training needed more memory than the instance has.",
        "Lower the batch sizes in search-config.toml, or use a larger instance type.",
    )
    OUT_OF_DISK = (
        "out_of_disk", False, Responsible.OPERATOR,
        "The training filled the instance's disk.",
        "Use an image or instance type with a larger disk.",
    )
    CRASHED = (
        "crashed", False, Responsible.TRAINING,
        "The training ended with an unexpected error.",
        "Read the traceback at the end of the build's log.",
    )

    # After the training
    CORRUPT_INPUT = (
        "corrupt_input", False, Responsible.OPERATOR,
        "The content of an object under inputs/sha256/ does not match the digest in its name.",
        "Find out who wrote it and move it away; then post the build again.",
    )
    CORRUPT_ARTIFACT = (
        "corrupt_artifact", False, Responsible.OPERATOR,
        "An artifact is not in the bucket as the registry wrote it.",
        "Find out who else writes to the bucket; then post the build again.",
    )

    # Any step
    DEADLINE_EXCEEDED = (
        "deadline_exceeded", True, Responsible.OPERATOR,
        "A step did not end before its deadline.",
        "The build's log shows how far it got and what it waited for.",
    )
    INTERNAL_ERROR = (
        "internal_error", False, Responsible.REGISTRY,
        "A defect of the registry ended the build.",
        "Report it with the end of the build's log.",
    )
    # fmt: on
