"""The closed sets of words that the tables, the API and the worker share."""

from enum import StrEnum


class BuildState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def active(self) -> bool:
        return self in (BuildState.QUEUED, BuildState.RUNNING)


class StepState(StrEnum):
    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    SKIPPED = "skipped"


class StepName(StrEnum):
    """The boxes of a build's flow, in their order."""

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
    """Of the validation against the model in production."""

    PASSED = "passed"
    FAILED = "failed"
