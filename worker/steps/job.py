"""Runs the training and the benchmark as detached jobs on the instance."""

import json
import re
from datetime import timedelta
from pathlib import PurePosixPath
from typing import Any, ClassVar

from pydantic import BaseModel, Field, ValidationError, field_validator

from app.failures import FailureCode
from app.registry import inputs
from app.registry.builds import steps
from app.registry.builds.steps import BuildView
from app.registry.inputs import InputRecord
from app.registry.public import public_uri
from app.storage import keys
from app.words import InputKind, StepName, known
from worker.errors import StepFailed
from worker.machine.folders import Machine
from worker.machine.job import Follower, Job, JobDied, JobSilent
from worker.retry import Patience
from worker.steps.code import BringCode
from worker.steps.connection import ValidateConnection, workspace
from worker.steps.step import Output, Step, output_of
from worker.workbench import Workbench

_SHA256 = r"[0-9a-f]{64}"
# A configuration has tables, lists of tables, and lists in those.
_CONFIG_DEPTH = 6
_CONFIG_LENGTH = 64 << 10


class FileRef(BaseModel):
    """A file that a job made."""

    sha256: str = Field(pattern=f"^{_SHA256}$")
    size_bytes: int = Field(ge=0)


class JobInput(BaseModel):
    """An input of the model that only the machine knows about.

    A snapshot of an additional source has the `url` that it was taken from, and is a `file` of the output.
    """

    kind: str
    name: str
    sha256: str = Field(pattern=f"^{_SHA256}$")
    url: str | None = None
    file: str | None = None

    @field_validator("file")
    @classmethod
    def _within_the_output(cls, file: str | None) -> str | None:
        """A file outside the output folder was not made by the job, and must not be fetched."""
        if file is None:
            return None
        path = PurePosixPath(file)
        if not path.parts or path.is_absolute() or ".." in path.parts or not file.isprintable():
            message = f"{file!r} does not name a file inside the output folder"
            raise ValueError(message)
        return file

    @field_validator("url")
    @classmethod
    def _public(cls, url: str | None) -> str | None:
        return None if url is None else public_uri(url)


class JobResult(BaseModel):
    """The content of `result.json`, which docs/training-machine.md describes."""

    outcome: str
    files: dict[str, FileRef] = Field(default_factory=dict)
    inputs: list[JobInput] = Field(default_factory=list)
    metrics: dict[str, Any] = Field(default_factory=dict)
    counts: dict[str, Any] = Field(default_factory=dict)
    config: dict[str, Any] = Field(default_factory=dict)
    code: str = ""
    message: str = ""

    @field_validator("config")
    @classmethod
    def _small(cls, config: dict[str, Any]) -> dict[str, Any]:
        """Drop what is too deep or too large: it is loaded with every build, and can be done without."""
        small = _is_shallow(config, _CONFIG_DEPTH) and len(json.dumps(config)) <= _CONFIG_LENGTH
        return config if small else {}

    @field_validator("code")
    @classmethod
    def _word(cls, code: str) -> str:
        """Drop a code that is not a plain word, because programs could not branch on it."""
        return code if re.fullmatch(r"[a-z][a-z0-9_]{0,49}", code) else ""


def _is_shallow(value: object, depth: int) -> bool:
    if not isinstance(value, dict | list):
        return True
    return depth > 0 and all(
        _is_shallow(item, depth - 1) for item in (value.values() if isinstance(value, dict) else value)
    )


class JobState(Output):
    """While the job runs, the number of bytes of its log that were stored; at its end, what it reported.

    `config` has every value that a training used. Those of earlier releases do not report it.
    """

    log_bytes: int = 0
    files: dict[str, FileRef] = Field(default_factory=dict)
    metrics: dict[str, Any] = Field(default_factory=dict)
    counts: dict[str, Any] = Field(default_factory=dict)
    config: dict[str, Any] = Field(default_factory=dict)
    snapshots: list[JobInput] = Field(default_factory=list)


class RunJob(Step[JobState]):
    """Start the job unless it was started before, and follow it. It survives a lost connection or worker."""

    patience: ClassVar = Patience.FROM_THE_TRAINING_ON
    output: ClassVar = JobState
    command: ClassVar[str]

    def act(self, build: BuildView, work: Workbench) -> JobState:
        machine = Machine(output_of(build, ValidateConnection).home)
        folder = machine.build(build.id)
        job = Job(workspace(build, work), folder.job(self.command), self.command)
        order = {
            "schema": 1,
            "build_id": str(build.id),
            "prefix": build.prefix,
            "sha": output_of(build, BringCode).commit,
            "config": folder.config,
            "raw_source_data": folder.input(keys.RAW_SOURCE_DATA),
            "benchmarking_data": folder.input(keys.BENCHMARKING_DATA),
            "output": folder.output,
        }
        job.start(order, folder.repository, machine.python)
        status, log_bytes = self._follow(build, work, job)
        result = self._result(job, status)
        if result.outcome != "succeeded" or status != 0:
            code = result.code or FailureCode.CRASHED
            message = result.message or f"{self.command} ended with status {status}; see the build's log."
            raise StepFailed(code, message)
        self._record(build, work, result.inputs)
        return JobState(
            log_bytes=log_bytes,
            files=result.files,
            metrics=result.metrics,
            counts=result.counts,
            config=result.config,
            snapshots=[item for item in result.inputs if item.file is not None],
        )

    def _follow(self, build: BuildView, work: Workbench, job: Job) -> tuple[int, int]:
        """Returns the job's exit status, and how many bytes of its log were stored."""
        # As it is now: an earlier try of this worker may have read on.
        with work.transaction() as session:
            stored = steps.view(session, build.lease).checkpoints.get(self.name)
        follower = Follower(
            job,
            sleep=work.sleep,
            log=lambda text, read: work.append_log(text, JobState(log_bytes=read)),
            progress=lambda progress: work.progress(
                {
                    "phase": progress.phase,
                    "percent": progress.percent,
                    "eta_seconds": progress.eta_seconds,
                }
            ),
            note=work.note,
            silent_after_s=work.settings.job_silence.total_seconds(),
        )
        try:
            return follower.follow(JobState.model_validate(stored).log_bytes if stored else 0)
        except JobDied as exc:
            message = f"{self.command}: {exc.code.meaning} {exc.code.advice}"
            raise StepFailed(exc.code, message) from exc
        except JobSilent as exc:
            code, silence = FailureCode.STALLED, work.settings.job_silence
            message = f"{self.command} has written neither log nor progress for {silence}. {code.advice}"
            raise StepFailed(code, message) from exc

    def _record(self, build: BuildView, work: Workbench, reported: list[JobInput]) -> None:
        used = []
        for item in reported:
            kind = known(InputKind, item.kind)
            if kind is None:
                work.log(f"{item.name} is an input of the unknown kind {item.kind}. It is not recorded.")
            else:
                used.append(InputRecord(kind, item.name, item.sha256, origin=item.url))
        with work.transaction() as session:
            inputs.record(session, build.lease, used)

    def _result(self, job: Job, status: int) -> JobResult:
        content = job.result()
        if content is None:
            code = FailureCode.CRASHED
            message = f"{self.command} ended with status {status} and without a result. {code.advice}"
            raise StepFailed(code, message)
        try:
            return JobResult.model_validate_json(content)
        except ValidationError as exc:
            code = FailureCode.INVALID_RESULT
            raise StepFailed(code, f"{self.command} left an unusable result.json: {exc}") from exc


class Train(RunJob):
    name: ClassVar = StepName.TRAIN
    deadline: ClassVar = timedelta(hours=7)
    command: ClassVar = "train"


class Benchmark(RunJob):
    name: ClassVar = StepName.BENCHMARK
    deadline: ClassVar = timedelta(hours=2)
    command: ClassVar = "benchmark"
