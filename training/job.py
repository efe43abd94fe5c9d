"""The contract with the worker: `job.json` goes in, `result.json` and an exit status come out."""

import json
import sys
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

import torch
from pydantic import BaseModel, ConfigDict, ValidationError

from training.errors import FailureCode, TrainingError
from training.files import disk_is_full, written_whole
from training.pipeline import Outcome, describe_files

Command = Literal["train", "benchmark"]
RESULT: Final = "result.json"


class Job(BaseModel):
    """`job.json`. Keys that this version does not know are passed over: the worker may be newer."""

    model_config = ConfigDict(frozen=True)

    schema_: Literal[1]
    config: Path
    raw_source_data: Path | None = None
    benchmarking_data: Path | None = None
    output: Path
    embedding_cache: str | None = None
    snapshots: Path | None = None


@dataclass(frozen=True)
class Failure:
    reason: FailureCode
    message: str


def read_job(path: Path) -> Job:
    """Raises `invalid_job`."""
    try:
        content = json.loads(path.read_text("utf-8"))
        return Job.model_validate({"schema_": content.get("schema"), **content})
    except (OSError, ValueError, AttributeError) as exc:
        problem = exc
        if isinstance(exc, ValidationError):
            problem = ValueError(
                "; ".join(f"{'.'.join(map(str, e['loc'])).rstrip('_')}: {e['msg']}" for e in exc.errors())
            )
        raise TrainingError(FailureCode.INVALID_JOB, f"{path} is no job: {problem}") from exc


def run(command: Command, folder: Path, work: Callable[[], Outcome]) -> int:
    """Do the work, write `result.json` into the folder, and return the exit status."""
    result: dict[str, Any] = {"schema": 1, "command": command}
    try:
        outcome = work()
        result |= {
            "outcome": "succeeded",
            "files": describe_files(outcome.files),
            "inputs": [
                {key: value for key, value in asdict(one).items() if value is not None}
                for one in outcome.inputs
            ],
            "metrics": outcome.metrics,
            "counts": outcome.counts,
        }
        status = 0
    except Exception as exc:
        failure = failure_of(exc)
        if failure.reason is FailureCode.CRASHED:
            traceback.print_exc()
        sys.stderr.write(f"{failure.reason.code}: {failure.message}\n")
        result |= {"outcome": "failed", "code": failure.reason.code, "message": failure.message}
        status = failure.reason.exit_status
    write_result(folder, result)
    return status


def follow(work: Callable[[], Outcome]) -> int:
    """Do a process's part of the work without a word, but for why it failed."""
    try:
        work()
    except Exception as exc:
        failure = failure_of(exc)
        sys.stderr.write(f"{failure.reason.code}: {failure.message}\n")
        return failure.reason.exit_status
    return 0


def exit_status_of(folder: Path) -> int:
    """The exit status of the failure that `result.json` names; 1 where there is none."""
    try:
        code = json.loads((folder / RESULT).read_text("utf-8")).get("code")
    except (OSError, ValueError):
        code = None
    return next((reason.exit_status for reason in FailureCode if reason.code == code), 1)


def write_result(folder: Path, result: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with written_whole(folder / RESULT) as beside:
        beside.write_text(json.dumps(result, indent=2) + "\n", "utf-8")


def failure_of(error: Exception) -> Failure:
    """What the worker is told of an exception."""
    if isinstance(error, TrainingError):
        return Failure(error.reason, error.message)
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or _torch_says_no_memory(error):
        return Failure(
            FailureCode.OUT_OF_MEMORY,
            f"not enough memory ({error}): lower model_batch_size, embedding_batch_size or hidden_size, "
            "or take a larger instance",
        )
    if isinstance(error, OSError) and disk_is_full(error):
        return Failure(
            FailureCode.OUT_OF_DISK, f"no space left ({error}): take an instance with a larger disk"
        )
    return Failure(FailureCode.CRASHED, f"{type(error).__name__}: {error}")


def _torch_says_no_memory(error: Exception) -> bool:
    """On the CPU torch raises a plain RuntimeError from its allocator."""
    return isinstance(error, RuntimeError) and (
        "not enough memory" in str(error) or "can't allocate memory" in str(error)
    )
