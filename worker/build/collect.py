"""What the instance made, brought to where its end does not reach it."""

from datetime import timedelta
from typing import ClassVar

from app.registry.runs import RunView
from app.storage import keys
from app.storage.bucket import digest_of
from app.words import StepName
from worker.build.connection import ValidateConnection, connect
from worker.build.folders import Machine
from worker.build.job import Benchmark, FileRef, Train
from worker.build.step import Output, Step, StepFailed, output_of
from worker.build.workbench import Workbench

REQUIRED = (keys.MODEL_ZIP, keys.BENCHMARK_XML, keys.BENCHMARK_ZIP)


class Collected(Output):
    """The files, by name, under the build's staging prefix."""

    files: dict[str, FileRef]


class Collect(Step[Collected]):
    """Fetch the files, compare them with the digests that the machine reported, and stage them."""

    name: ClassVar = StepName.COLLECT
    deadline: ClassVar = timedelta(hours=1)
    output: ClassVar = Collected

    def act(self, run: RunView, work: Workbench) -> Collected:
        remote = connect(run, work)
        folder = Machine(output_of(run, ValidateConnection).home).build(run.id)
        reported = output_of(run, Train).files | output_of(run, Benchmark).files
        files = {}
        for name in REQUIRED:
            if name not in reported:
                message = (
                    f"Training reported no {name}. This is a defect of the training code at this commit."
                )
                raise StepFailed("missing_output", message)
            work.check()
            local = work.scratch / name
            try:
                remote.get_file(f"{folder.output}/{name}", local)
            except FileNotFoundError as exc:
                message = f"{name} is not on the instance, though training reported it."
                raise StepFailed("missing_output", message) from exc
            content = digest_of(local)
            if content.sha256 != reported[name].sha256:
                message = (
                    f"{name} has the sha256 {content.sha256}, and training reported {reported[name].sha256}."
                )
                raise StepFailed("corrupt_transfer", message)
            work.cloud.bucket.replace(
                keys.staged_key(run.id, name),
                local,
                content,
                content_type=keys.CONTENT_TYPES[name],
                build_id=str(run.id),
            )
            local.unlink()
            files[name] = FileRef(sha256=content.sha256, size_bytes=content.size_bytes)
        return Collected(files=files)
