"""Runs the work of a job, and reports how it ended in `result.json` and by an exit status."""

import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import torch

from training.errors import FailureCode, TrainingError
from training.files import disk_is_full
from training.interruption import Interrupted, interruptible
from training.job.request import Command
from training.job.result import write_failure, write_result
from training.network.standing import Epoch
from training.pipeline import Outcome, describe_files
from training.storable import several_lines, without_secrets

_LONGEST_TRACEBACK: Final = 50_000


@dataclass(frozen=True)
class Failure:
    reason: FailureCode
    message: str


def run(
    command: Command,
    folder: Path,
    work: Callable[[], Outcome],
    timings: Sequence[tuple[str, float]] = (),
) -> int:
    """Do the work, write `result.json` into the folder, and return the exit status.

    `timings` has the phases of the work and their seconds, when the work has ended.
    """
    try:
        with interruptible():
            outcome = work()
        result: dict[str, Any] = {
            "outcome": "succeeded",
            "files": describe_files(outcome.files),
            "inputs": [
                {key: value for key, value in asdict(one).items() if value not in (None, (), {})}
                for one in outcome.inputs
            ],
            "metrics": outcome.metrics,
            "counts": outcome.counts,
        }
        optional = {
            "config": outcome.config,
            "epochs": _told(outcome.epochs),
            "tuning": _told(outcome.tuning),
            "phases": [{"phase": name, "seconds": seconds} for name, seconds in timings],
            "data": outcome.data,
            "warnings": outcome.warnings,
        }
        result |= {key: value for key, value in optional.items() if value}
    except (Exception, Interrupted) as exc:
        failure = failure_of(exc)
        if failure.reason is FailureCode.CRASHED:
            _log(traceback.format_exc())
        _log(f"{failure.reason.code}: {failure.message}\n")
        return write_failure(folder, command, failure.reason, failure.message)
    write_result(folder, command, result)
    return 0


def _told(epochs: Sequence[Epoch]) -> list[dict[str, float]]:
    return [
        {"epoch": number, "loss": round(one.loss, 6), "accuracy": round(one.accuracy, 6)}
        for number, one in enumerate(epochs, 1)
    ]


def follow(work: Callable[[], Outcome]) -> int:
    """Do the part of a process that is not the leader. It prints only why it failed."""
    try:
        with interruptible():
            work()
    except (Exception, Interrupted) as exc:
        failure = failure_of(exc)
        _log(f"{failure.reason.code}: {failure.message}\n")
        return failure.reason.exit_status
    return 0


def _log(text: str) -> None:
    sys.stderr.write(several_lines(without_secrets(text), _LONGEST_TRACEBACK))


def failure_of(error: Exception | Interrupted) -> Failure:
    """What `result.json` tells the worker about an exception."""
    if isinstance(error, Interrupted):
        return Failure(
            FailureCode.INTERRUPTED,
            "The run was asked to end by SIGTERM. If it has a checkpoints folder, run it again with the same "
            "folder, and it goes on where it was.",
        )
    if isinstance(error, TrainingError):
        return Failure(error.reason, error.message)
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or _is_out_of_cpu_memory(error):
        return Failure(
            FailureCode.OUT_OF_MEMORY,
            f"There is not enough memory ({error}). Lower model_batch_size, embedding_batch_size or "
            "hidden_size, or use a larger instance.",
        )
    if isinstance(error, OSError) and disk_is_full(error):
        return Failure(
            FailureCode.OUT_OF_DISK, f"The disk is full ({error}). Use an instance with a larger disk."
        )
    return Failure(FailureCode.CRASHED, f"{type(error).__name__}: {error}")


def _is_out_of_cpu_memory(error: Exception) -> bool:
    """On the CPU, torch's allocator raises a plain RuntimeError."""
    return isinstance(error, RuntimeError) and (
        "not enough memory" in str(error) or "can't allocate memory" in str(error)
    )
