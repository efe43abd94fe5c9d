"""Runs the training and the benchmark as detached jobs on the instance."""

from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from typing import Any, ClassVar

from pydantic import Field, ValidationError

from app.failures import FailureCode
from app.registry import inputs
from app.registry.builds import steps
from app.registry.builds.steps import BuildView
from app.storage import keys
from app.words import InputKind, StepName
from worker.errors import StepFailed
from worker.machine.folders import BuildFolder, Machine
from worker.machine.job import Follower, Job, JobDied, JobSilent
from worker.retry import ON_ANOTHER_INSTANCE, Patience
from worker.steps import checkpoints
from worker.steps.checkpoints import CheckpointCopier
from worker.steps.code import BringCode
from worker.steps.connection import ValidateConnection, workspace
from worker.steps.pins import pins_of
from worker.steps.reported import JobInput, rows_by_source
from worker.steps.result import FileRef, JobResult
from worker.steps.step import Output, Step, output_of
from worker.workbench import Workbench


class JobState(Output):
    """While the job runs, the number of bytes of its log that were stored; at its end, what it reported.

    `config` has every value that a training used. Those of earlier releases do not report it. `snapshots` and
    `contents` are the inputs that the job has left as files.
    """

    log_bytes: int = 0
    files: dict[str, FileRef] = Field(default_factory=dict)
    metrics: dict[str, Any] = Field(default_factory=dict)
    counts: dict[str, Any] = Field(default_factory=dict)
    config: dict[str, Any] = Field(default_factory=dict)
    epochs: list[dict[str, int | float]] = Field(default_factory=list)
    phases: list[dict[str, str | int | float]] = Field(default_factory=list)
    data: dict[str, Any] = Field(default_factory=dict)
    warnings: list[str] = Field(default_factory=list)
    snapshots: list[JobInput] = Field(default_factory=list)
    contents: list[JobInput] = Field(default_factory=list)


class RunJob(Step[JobState]):
    """Start the job unless it was started before, and follow it. It survives a lost connection or worker."""

    patience: ClassVar = Patience.FROM_THE_TRAINING_ON
    output: ClassVar = JobState
    command: ClassVar[str]
    # The archive that the job reads, and the detail that says how many rows were read of what is in it.
    archive: ClassVar[tuple[InputKind, str]]
    rows: ClassVar[str]

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
        if (pins := pins_of(build)) is not None and pins.snapshots:
            order["snapshots"] = folder.snapshots
        self.prepare(build, work, job, folder, order)
        job.start(order, folder.repository, machine.python)
        with self.copier(build, work, folder) as copier:
            try:
                status, log_bytes = self._follow(build, work, job)
                result = self._result(job, status)
            except StepFailed as exc:
                if copier is not None and exc.code in ON_ANOTHER_INSTANCE:
                    copier.copy_last(job.remote)
                raise
        reported = [self.named(build, item) for item in result.inputs]
        self._record(build, work, reported, rows_by_source(result.data))
        return JobState(
            log_bytes=log_bytes,
            files=result.files,
            metrics=result.metrics,
            counts=result.counts,
            config=result.config,
            epochs=result.epochs,
            phases=result.phases,
            data=result.data,
            warnings=result.warnings,
            snapshots=[item for item in reported if item.file is not None],
            contents=[item for item in reported if item.content is not None],
        )

    def prepare(
        self, build: BuildView, work: Workbench, job: Job, folder: BuildFolder, order: dict[str, object]
    ) -> None:
        """What is done before the job is started. It may add to the order."""

    def copier(
        self, build: BuildView, work: Workbench, folder: BuildFolder
    ) -> AbstractContextManager[CheckpointCopier | None]:
        """What copies the job's checkpoints while it runs, if it has any."""
        del build, work, folder
        return nullcontext()

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

    def named(self, build: BuildView, item: JobInput) -> JobInput:
        """The input under the name by which the build records it."""
        del build
        return item

    def _record(
        self, build: BuildView, work: Workbench, reported: list[JobInput], rows: dict[str, int]
    ) -> None:
        """Record the inputs, and with the archive that the job has read how many rows it found in it."""
        used = [(item, record) for item in reported if (record := item.as_record()) is not None]
        recorded = [item for item, _ in used]
        for item in reported:
            if item not in recorded:
                work.log(f"{item.name} is an input of the unknown kind {item.kind}. It is not recorded.")
        fetched = {item.name for item in reported if item.kind == InputKind.ADDITIONAL_SOURCE}
        of_archive = {source: count for source, count in rows.items() if source not in fetched}
        with work.transaction() as session:
            inputs.record(session, build.lease, [record for _, record in used])
            for item in recorded:
                if item.parts:
                    inputs.record_parts(session, build.lease, item.sha256, item.as_parts())
            if of_archive:
                inputs.add_details(session, build.lease, *self.archive, {self.rows: of_archive})

    def _result(self, job: Job, status: int) -> JobResult:
        """What the job has reported. Raises StepFailed if it has not succeeded."""
        content = job.result()
        if content is None:
            code = FailureCode.CRASHED
            message = f"{self.command} ended with status {status} and without a result. {code.advice}"
            raise StepFailed(code, message)
        try:
            result = JobResult.model_validate_json(content)
        except ValidationError as exc:
            code = FailureCode.INVALID_RESULT
            raise StepFailed(code, f"{self.command} left an unusable result.json: {exc}") from exc
        if result.outcome != "succeeded" or status != 0:
            message = result.message or f"{self.command} ended with status {status}; see the build's log."
            raise StepFailed(result.code or FailureCode.CRASHED, message)
        return result


class Train(RunJob):
    """The training. What it keeps while it runs is copied to the bucket, for an instance that follows."""

    name: ClassVar = StepName.TRAIN
    deadline: ClassVar = timedelta(hours=7)
    command: ClassVar = "train"
    archive: ClassVar = (InputKind.RAW_DATA, keys.RAW_SOURCE_DATA)
    rows: ClassVar = "rows_by_source"

    def prepare(
        self, build: BuildView, work: Workbench, job: Job, folder: BuildFolder, order: dict[str, object]
    ) -> None:
        order["checkpoints"] = folder.checkpoints
        if not job.was_started():
            checkpoints.restore(build, work, job.workspace, folder)

    def copier(self, build: BuildView, work: Workbench, folder: BuildFolder) -> CheckpointCopier:
        return CheckpointCopier(build, work, folder)


class Benchmark(RunJob):
    name: ClassVar = StepName.BENCHMARK
    deadline: ClassVar = timedelta(hours=2)
    command: ClassVar = "benchmark"
    archive: ClassVar = (InputKind.BENCHMARK_DATA, keys.BENCHMARKING_DATA)
    rows: ClassVar = "rows_by_benchmark"

    def named(self, build: BuildView, item: JobInput) -> JobInput:
        """With a name of its own if the training had another content of this name."""
        for trained in output_of(build, Train).contents:
            if (trained.kind, trained.name) == (item.kind, item.name) and trained.sha256 != item.sha256:
                return item.model_copy(update={"name": f"{item.name} ({self.command})"})
        return item
