"""Copies the results of the jobs from the instance to the bucket, before the instance is terminated."""

from datetime import timedelta
from pathlib import Path
from typing import ClassVar, Final
from uuid import UUID

from pydantic import Field

from app.failures import FailureCode
from app.registry import inputs
from app.registry.builds.steps import BuildView
from app.registry.environments import Environment
from app.registry.inputs import InputRecord
from app.storage import keys
from app.storage.bucket import FileDigest, digest_of
from app.words import InputKind, StepName, known
from worker.errors import StepFailed
from worker.machine.folders import Machine
from worker.machine.remote import Remote, RemoteFault
from worker.retry import Patience
from worker.steps.connection import ValidateConnection, connect
from worker.steps.inputs import LIMIT_BYTES, keep_input
from worker.steps.job import Benchmark, Train
from worker.steps.parts import UnknownParts, parts_of
from worker.steps.pins import pins_of
from worker.steps.reported import JobInput
from worker.steps.result import FileRef
from worker.steps.step import Output, Step, output_of
from worker.workbench import Workbench

_LARGEST_ENVIRONMENT = 4 << 20
# A model has five. They are shown with the build.
_MOST_MODEL_FILES = 100

REQUIRED = (keys.MODEL_ZIP, keys.BENCHMARK_XML, keys.BENCHMARK_ZIP)
# What a training may make as well. One at an older commit does not, and no build fails for lack of it.
OPTIONAL = (keys.TRAINING_REPORT,)
_LARGEST_OPTIONAL: Final = 64 << 20


class CollectedFile(FileRef):
    """A file of the model. `key` is where the bucket keeps it until it is published.

    Builds of the release before did not store the key.
    """

    key: str | None = None

    def lies_at(self, build_id: UUID, name: str) -> str:
        return self.key or keys.former_unpublished_key(build_id, name)


class ModelFile(Output):
    """A file inside model.zip."""

    path: str
    sha256: str
    size_bytes: int


class Collected(Output):
    """The files of the model, by name, and the files inside model.zip, where these could be told.

    Workers of the release before do not read `optional_files`, so they can publish the model without them.
    """

    files: dict[str, CollectedFile]
    optional_files: dict[str, CollectedFile] = Field(default_factory=dict)
    model_files: tuple[ModelFile, ...] = ()

    @property
    def all_files(self) -> dict[str, CollectedFile]:
        """The files that this release publishes. It leaves out what a newer one may have collected."""
        known = {name: file for name, file in self.optional_files.items() if name in OPTIONAL}
        return {**self.files, **known}


class Collect(Step[Collected]):
    """Fetch the files, compare them with the digests that the machine reported, and keep them in the bucket.

    Snapshots of additional sources and the list of packages are kept with the other inputs.
    """

    name: ClassVar = StepName.COLLECT
    # The bucket may be out of reach for hours, and the instance holds the only copy of the model.
    deadline: ClassVar = timedelta(days=1)
    patience: ClassVar = Patience.FROM_THE_TRAINING_ON
    output: ClassVar = Collected

    def act(self, build: BuildView, work: Workbench) -> Collected:
        remote = connect(build, work)
        output = Machine(output_of(build, ValidateConnection).home).build(build.id).output
        trained, measured = output_of(build, Train), output_of(build, Benchmark)
        reported = trained.files | measured.files
        pins = pins_of(build)
        given = {file.sha256 for file in pins.snapshots.values()} if pins is not None else set()
        for snapshot in trained.snapshots:
            # One that was given to the training is kept already, and is not in its output.
            if snapshot.sha256 not in given:
                self._keep(build, work, remote, f"{output}/{snapshot.file}", snapshot)
        # The benchmark runs in the same environment, so it reports the same content again.
        contents = {(one.kind, one.name, one.sha256): one for one in (*trained.contents, *measured.contents)}
        for one in contents.values():
            self._keep(build, work, remote, f"{output}/{one.content}", one)
        files: dict[str, CollectedFile] = {}
        inside: tuple[ModelFile, ...] = ()
        for name in REQUIRED:
            if name not in reported:
                message = (
                    f"Training reported no {name}. This is a defect of the training code at this commit."
                )
                raise StepFailed(FailureCode.MISSING_OUTPUT, message)
            local, content = self._fetch(work, remote, f"{output}/{name}", reported[name].sha256)
            key = keep_unpublished(build, work, name, local, content)
            if name == keys.MODEL_ZIP:
                inside = _inside(work, local)
            local.unlink()
            files[name] = CollectedFile(sha256=content.sha256, size_bytes=content.size_bytes, key=key)
        optional = {}
        for name in OPTIONAL:
            if name in reported:
                found = self._collect_optional(build, work, remote, f"{output}/{name}", reported[name])
                if found is not None:
                    optional[name] = found
        return Collected(files=files, optional_files=optional, model_files=inside)

    def _collect_optional(
        self, build: BuildView, work: Workbench, remote: Remote, path: str, reported: FileRef
    ) -> CollectedFile | None:
        """Collect a file that describes the model. None if it is not what was reported: no model is lost."""
        try:
            local, content = self._fetch(work, remote, path, reported.sha256, limit_bytes=_LARGEST_OPTIONAL)
        except StepFailed as exc:
            work.note(f"The model is published without {Path(path).name}. {exc.message}")
            return None
        except RemoteFault as exc:
            if exc.code not in (FailureCode.CORRUPT_TRANSFER, FailureCode.INVALID_RESULT):
                raise
            work.note(f"The model is published without {Path(path).name}. {exc}")
            return None
        key = keep_unpublished(build, work, local.name, local, content)
        local.unlink()
        return CollectedFile(sha256=content.sha256, size_bytes=content.size_bytes, key=key)

    def _keep(self, build: BuildView, work: Workbench, remote: Remote, path: str, item: JobInput) -> None:
        """Keep an input that only the instance has, such as the answer of an additional source.

        Workers of the release before stored snapshots only, whatever their kind.
        """
        local, content = self._fetch(work, remote, path, item.sha256)
        kind = known(InputKind, item.kind) or InputKind.ADDITIONAL_SOURCE
        origin = item.url or f"s3://{work.clouds.bucket.name}/{keys.input_key(content.sha256)}"
        used = InputRecord(kind, item.name, content.sha256, content.size_bytes, origin, item.details)
        keep_input(build, work, used, local, content, content_type="application/octet-stream")
        if kind is InputKind.PYTHON_ENVIRONMENT:
            self._describe(build, work, item, local)
        local.unlink()

    def _describe(self, build: BuildView, work: Workbench, item: JobInput, local: Path) -> None:
        """Store the packages, so that models can be compared without reading the bucket."""
        small = local.stat().st_size <= _LARGEST_ENVIRONMENT
        environment = Environment.of_json(local.read_bytes()) if small else None
        if environment is None:
            work.log(f"{item.content} does not list packages. It is kept as it is.")
            return
        with work.transaction() as session:
            inputs.describe(session, build.lease, item.sha256, environment.to_stored())

    def _fetch(
        self, work: Workbench, remote: Remote, path: str, sha256: str, *, limit_bytes: int = LIMIT_BYTES
    ) -> tuple[Path, FileDigest]:
        work.check()
        local = work.scratch / Path(path).name
        try:
            remote.get_file(path, local, limit_bytes=limit_bytes)
        except FileNotFoundError as exc:
            message = f"{path} is not on the instance, though training reported it."
            raise StepFailed(FailureCode.MISSING_OUTPUT, message) from exc
        content = digest_of(local)
        if content.sha256 != sha256:
            message = f"{path} has the sha256 {content.sha256}, and training reported {sha256}"
            raise RemoteFault(message, FailureCode.CORRUPT_TRANSFER)
        return local, content


def _inside(work: Workbench, model: Path) -> tuple[ModelFile, ...]:
    """The files inside model.zip. None if it cannot be read, or has so many that it is not a model."""
    try:
        parts = parts_of(model, work.check)
    except UnknownParts as exc:
        work.log(f"The files in {model.name} are not recorded: {exc}")
        return ()
    if len(parts) > _MOST_MODEL_FILES:
        work.log(f"The files in {model.name} are not recorded, because there are {len(parts):,} of them.")
        return ()
    return tuple(ModelFile(path=one.path, sha256=one.sha256, size_bytes=one.size_bytes) for one in parts)


def keep_unpublished(build: BuildView, work: Workbench, name: str, local: Path, content: FileDigest) -> str:
    """Keep a file of the model as unpublished; returns its key. Raises CloudError."""
    key = keys.unpublished_key(build.id, content.sha256)
    work.check()
    work.clouds.bucket.put_once(
        key, local, content, content_type=keys.CONTENT_TYPES[name], build_id=str(build.id)
    )
    return key
