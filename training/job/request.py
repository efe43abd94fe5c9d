"""`job.json`: what a run is asked to do."""

import json
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from training.errors import FailureCode, TrainingError

Command = Literal["train", "benchmark"]


class Job(BaseModel):
    """The content of `job.json`. Unknown keys are ignored, because the worker may be newer."""

    model_config = ConfigDict(frozen=True)

    schema_: Literal[1]
    config: Path
    raw_source_data: Path | None = None
    benchmarking_data: Path | None = None
    output: Path
    embedding_cache: str | None = None
    snapshots: Path | None = None
    checkpoints: Path | None = None


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
        raise TrainingError(FailureCode.INVALID_JOB, f"{path.name} cannot be used: {problem}") from exc
