"""What the instance made, brought to where its end does not reach it."""

from datetime import timedelta
from pathlib import Path
from typing import ClassVar

from app.registry.builds.steps import BuildView
from app.registry.inputs import InputRecord
from app.storage import keys
from app.storage.bucket import FileDigest, digest_of
from app.words import FailureCode, InputKind, StepName
from worker.errors import StepFailed
from worker.remote import Remote
from worker.steps.connection import ValidateConnection, connect
from worker.steps.inputs import keep_input
from worker.steps.job import Benchmark, FileRef, JobInput, Train
from worker.steps.machine import Machine
from worker.steps.step import Output, Step, output_of
from worker.workbench import Workbench

REQUIRED = (keys.MODEL_ZIP, keys.BENCHMARK_XML, keys.BENCHMARK_ZIP)


class Collected(Output):
    """The files, by name, under the build's staging prefix."""

    files: dict[str, FileRef]


class Collect(Step[Collected]):
    """Fetch the files, compare them with the digests that the machine reported, and stage them.

    Snapshots of additional sources are kept with the other inputs.
    """

    name: ClassVar = StepName.COLLECT
    deadline: ClassVar = timedelta(hours=1)
    output: ClassVar = Collected

    def act(self, build: BuildView, work: Workbench) -> Collected:
        remote = connect(build, work)
        output = Machine(output_of(build, ValidateConnection).home).build(build.id).output
        trained = output_of(build, Train)
        reported = trained.files | output_of(build, Benchmark).files
        for snapshot in trained.snapshots:
            self._keep(build, work, remote, output, snapshot)
        files = {}
        for name in REQUIRED:
            if name not in reported:
                message = (
                    f"Training reported no {name}. This is a defect of the training code at this commit."
                )
                raise StepFailed(FailureCode.MISSING_OUTPUT, message)
            local, content = self._fetch(work, remote, f"{output}/{name}", reported[name].sha256)
            work.clouds.bucket.replace(
                keys.staged_key(build.id, name),
                local,
                content,
                content_type=keys.CONTENT_TYPES[name],
                build_id=str(build.id),
            )
            local.unlink()
            files[name] = FileRef(sha256=content.sha256, size_bytes=content.size_bytes)
        return Collected(files=files)

    def _keep(
        self, build: BuildView, work: Workbench, remote: Remote, output: str, snapshot: JobInput
    ) -> None:
        """What an additional source answered will not be had again: it stays, like every other input."""
        local, content = self._fetch(work, remote, f"{output}/{snapshot.file}", snapshot.sha256)
        used = InputRecord(
            InputKind.ADDITIONAL_SOURCE, snapshot.name, content.sha256, content.size_bytes, snapshot.url
        )
        keep_input(build, work, used, local, content, content_type="application/octet-stream")
        local.unlink()

    def _fetch(self, work: Workbench, remote: Remote, path: str, sha256: str) -> tuple[Path, FileDigest]:
        work.check()
        local = work.scratch / Path(path).name
        try:
            remote.get_file(path, local)
        except FileNotFoundError as exc:
            message = f"{path} is not on the instance, though training reported it."
            raise StepFailed(FailureCode.MISSING_OUTPUT, message) from exc
        content = digest_of(local)
        if content.sha256 != sha256:
            message = f"{path} has the sha256 {content.sha256}, and training reported {sha256}."
            raise StepFailed(FailureCode.CORRUPT_TRANSFER, message)
        return local, content
