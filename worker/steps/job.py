"""Training and benchmark: detached jobs on the instance, started once and followed to their end."""

import json
import shlex
from datetime import timedelta
from typing import Any, ClassVar

from pydantic import BaseModel, Field, ValidationError

from app.registry import inputs
from app.registry.builds.steps import BuildView
from app.registry.inputs import InputRecord
from app.storage import keys
from app.words import FailureCode, InputKind, StepName, known
from worker.errors import StepFailed
from worker.remote import CommandFailed, Remote
from worker.steps.code import BringCode
from worker.steps.connection import ValidateConnection, connect
from worker.steps.machine import BuildFolder, Machine
from worker.steps.step import Output, Step, output_of
from worker.workbench import Workbench

_POLL_S = 1.0
# How many polls without news until we ask whether the job still lives.
_QUIET_POLLS = 15

# flock: two starts of a job, by whomever, run one; and a lock that is free tells that the job is dead.
# On a line of its own: behind `&&`, a shell that waits for it would keep our channel open until it ends.
_START = """\
cd {job} || exit 1
setsid nohup flock --nonblock lock sh run.sh >/dev/null 2>&1 </dev/null &
"""
_RUN = """\
[ -e exit ] && exit 0
cd {repository} || exit 1
{python} -m training {command} --job {job}/job.json >>{job}/log 2>&1 </dev/null
echo $? >{job}/exit.partial && mv {job}/exit.partial {job}/exit
"""


class FileRef(BaseModel):
    """A file that a job made."""

    sha256: str
    size_bytes: int


class JobInput(BaseModel):
    """Something that shaped the model and that only the machine knew.

    A snapshot of an additional source has the `url` that it was taken from, and is a `file` of the output.
    """

    kind: str
    name: str
    sha256: str
    url: str | None = None
    file: str | None = None


class JobResult(BaseModel):
    """`result.json`, as docs/training-machine.md has it."""

    outcome: str
    files: dict[str, FileRef] = Field(default_factory=dict)
    inputs: list[JobInput] = Field(default_factory=list)
    metrics: dict[str, Any] = Field(default_factory=dict)
    counts: dict[str, Any] = Field(default_factory=dict)
    code: str = ""
    message: str = ""


class JobState(Output):
    """While the job runs, how many bytes of its log were taken over; at its end, what it reported."""

    log_bytes: int = 0
    files: dict[str, FileRef] = Field(default_factory=dict)
    metrics: dict[str, Any] = Field(default_factory=dict)
    counts: dict[str, Any] = Field(default_factory=dict)
    snapshots: list[JobInput] = Field(default_factory=list)


class RunJob(Step[JobState]):
    """Starts the job, or finds it started, and follows it; a lost connection or worker does not end it."""

    output: ClassVar = JobState
    command: ClassVar[str]

    def act(self, build: BuildView, work: Workbench) -> JobState:
        remote = connect(build, work)
        machine = Machine(output_of(build, ValidateConnection).home)
        folder = machine.build(build.id)
        job = folder.job(self.command)
        if remote.read(f"{job}/exit") is None:
            self._start(build, remote, machine, folder, job)
        stored = build.checkpoints.get(self.name)
        log_bytes = JobState.model_validate(stored).log_bytes if stored else 0
        status, log_bytes = self._follow(work, remote, job, log_bytes)
        result = self._result(remote, job, status)
        if result.outcome != "succeeded" or status != 0:
            code = result.code or "crashed"
            raise StepFailed(
                code, result.message or f"{self.command} ended with status {status}; see the build's log."
            )
        self._record(build, work, result.inputs)
        return JobState(
            log_bytes=log_bytes,
            files=result.files,
            metrics=result.metrics,
            counts=result.counts,
            snapshots=[item for item in result.inputs if item.file is not None],
        )

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

    def _start(
        self, build: BuildView, remote: Remote, machine: Machine, folder: BuildFolder, job: str
    ) -> None:
        remote.run(f"mkdir -p {shlex.quote(job)}", timeout_s=60)
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
        remote.put_text(json.dumps(order, indent=2), f"{job}/job.json")
        quoted = {
            "job": shlex.quote(job),
            "repository": shlex.quote(folder.repository),
            "python": shlex.quote(machine.python),
            "command": self.command,
        }
        remote.put_text(_RUN.format(**quoted), f"{job}/run.sh")
        remote.run(_START.format(**quoted), timeout_s=60)

    def _follow(self, work: Workbench, remote: Remote, job: str, log_bytes: int) -> tuple[int, int]:
        """Take log and progress over until the job has ended.

        Returns its exit status, and how many bytes of its log were taken over.
        """
        progress_bytes = 0
        quiet = 0
        while True:
            # The exit first: what was logged before it is then read below.
            ended = remote.read(f"{job}/exit")
            log = remote.read(f"{job}/log", log_bytes) or b""
            # Whole lines, so that no character is cut in two; at the end, all there is.
            log = log if ended is not None else log[: log.rfind(b"\n") + 1]
            if log:
                log_bytes += len(log)
                work.append_log(log.decode(errors="replace"), JobState(log_bytes=log_bytes))
            news = remote.read(f"{job}/progress.jsonl", progress_bytes) or b""
            news = news[: news.rfind(b"\n") + 1]
            if news:
                progress_bytes += len(news)
                self._show(work, news)
            if ended is not None and not log:
                return int(ended or b"1"), log_bytes
            quiet = 0 if log or news else quiet + 1
            if quiet >= _QUIET_POLLS:
                quiet = 0
                self._require_alive(remote, job)
            if ended is None:
                work.sleep(_POLL_S)

    def _show(self, work: Workbench, lines: bytes) -> None:
        try:
            line = json.loads(lines.splitlines()[-1])
            done, total = float(line["done"]), float(line["total"])
            eta = line.get("eta_seconds")
            progress = {
                "phase": str(line["phase"]),
                "percent": round(100 * min(1.0, done / total), 1) if total > 0 else 0.0,
                "eta_seconds": None if eta is None else float(eta),
            }
        except (ValueError, KeyError, TypeError) as exc:
            work.log(f"unreadable progress, left out: {exc}")
            return
        work.progress(progress)

    def _require_alive(self, remote: Remote, job: str) -> None:
        """Raises StepFailed when no process of the job lives and none of them said how it ended."""
        try:
            remote.run(f"cd {shlex.quote(job)} && flock --nonblock lock test ! -e exit", timeout_s=60)
        except CommandFailed:
            return
        message = (
            f"{self.command} was killed on the instance: it left no exit status. "
            "Most often its memory ran out; see the end of the build's log."
        )
        raise StepFailed(FailureCode.KILLED, message)

    def _result(self, remote: Remote, job: str, status: int) -> JobResult:
        content = remote.read(f"{job}/result.json")
        if content is None:
            return JobResult(
                outcome="failed",
                code="crashed",
                message=f"{self.command} ended with status {status} "
                "and without a result; see the build's log.",
            )
        try:
            return JobResult.model_validate_json(content)
        except ValidationError as exc:
            message = f"{self.command} left an unreadable result.json: {exc}"
            raise StepFailed(FailureCode.INVALID_RESULT, message) from exc


class Train(RunJob):
    name: ClassVar = StepName.TRAIN
    deadline: ClassVar = timedelta(hours=7)
    command: ClassVar = "train"


class Benchmark(RunJob):
    name: ClassVar = StepName.BENCHMARK
    deadline: ClassVar = timedelta(hours=2)
    command: ClassVar = "benchmark"
