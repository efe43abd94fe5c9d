"""Errors that end a run. Each has a code that the worker and people can act on."""

from enum import Enum


class FailureCode(Enum):
    """Why a run failed: the code in `result.json` and the exit status."""

    INVALID_CONFIG = "invalid_config", 2
    INVALID_JOB = "invalid_job", 2
    MISSING_SOURCE = "missing_source", 3
    UNREADABLE_SOURCE = "unreadable_source", 3
    NO_CLASSES = "no_classes", 3
    MISSING_BENCHMARK = "missing_benchmark", 3
    DIVERGED = "diverged", 4
    OUT_OF_MEMORY = "out_of_memory", 5
    OUT_OF_DISK = "out_of_disk", 5
    INTERRUPTED = "interrupted", 6
    CRASHED = "crashed", 1

    def __init__(self, code: str, exit_status: int) -> None:
        self.code = code
        self.exit_status = exit_status


class TrainingError(Exception):
    """The run cannot continue. `message` says what is wrong and what to do next."""

    def __init__(self, reason: FailureCode, message: str) -> None:
        self.reason = reason
        self.message = message
        super().__init__(f"{reason.code}: {message}")
