"""Pins the input data by digest in the bucket, and copies it to the instance."""

import shlex
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import ClassVar

from app.aws import CloudNotFound
from app.failures import FailureCode
from app.registry import inputs
from app.registry.builds.steps import BuildView
from app.registry.inputs import Details, InputRecord, Part
from app.storage import keys
from app.storage.bucket import Bucket, Downloaded, FileDigest, KeyTaken, digest_of
from app.words import BuildKind, InputKind, StepName
from worker.errors import StepFailed
from worker.machine.folders import BuildFolder, Machine
from worker.machine.remote import Remote, RemoteFault
from worker.machine.workspace import Workspace
from worker.steps.connection import ValidateConnection, workspace
from worker.steps.needed import KeptFile, Needed
from worker.steps.parts import UnknownParts, parts_of
from worker.steps.pins import pins_of
from worker.steps.step import Output, Step, output_of
from worker.workbench import Workbench

# What the inputs in the bucket's root are to a build.
KINDS = {
    keys.RAW_SOURCE_DATA: InputKind.RAW_DATA,
    keys.BENCHMARKING_DATA: InputKind.BENCHMARK_DATA,
}

# What the thresholds of the validation are called as an input, if some were posted.
THRESHOLDS = "benchmark-thresholds.toml"

# The most that S3 accepts in one request, and copies in one.
LIMIT_BYTES = 5 << 30


class Loaded(Output):
    """The inputs by the names that they have in the bucket's root."""

    inputs: dict[str, KeptFile]
    config_sha256: str


class LoadInputs(Step[Loaded]):
    """Copy the inputs that the bucket's root holds now. Later changes there do not affect the build.

    A build that gets another instance copies what it has used before, and a retry the inputs of the build
    that it repeats, as far as the bucket still has them. A reproduction copies those that were recorded, and
    the answers of additional sources with them.
    """

    name: ClassVar = StepName.LOAD_INPUTS
    deadline: ClassVar = timedelta(hours=1)
    output: ClassVar = Loaded

    def act(self, build: BuildView, work: Workbench) -> Loaded:
        space = workspace(build, work)
        folder = Machine(output_of(build, ValidateConnection).home).build(build.id)
        pins = pins_of(build)
        kept = pins.inputs if pins else Needed.model_validate(build.outputs[StepName.NEEDS_MODEL]).inputs
        pinned: dict[str, KeptFile] = {}
        for name in KINDS:
            local = work.scratch / name
            content = _pin(build, work, name, kept.get(name), local)
            work.check()
            target = folder.input(name)
            space.put_file(local, target)
            self._verify(space.remote, target, content)
            local.unlink()
            pinned[name] = KeptFile(
                key=keys.input_key(content.sha256), sha256=content.sha256, size_bytes=content.size_bytes
            )
        if pins is not None:
            self._put_snapshots(work, space, folder, pins.snapshots)
        config = work.scratch / keys.SEARCH_CONFIG
        config.write_text(build.search_config, encoding="utf-8")
        space.put_file(config, folder.config)
        digest = _keep_text(build, work, InputKind.CONFIG, config)
        if build.thresholds is not None:
            thresholds = work.scratch / THRESHOLDS
            thresholds.write_text(build.thresholds, encoding="utf-8")
            _keep_text(build, work, InputKind.THRESHOLDS, thresholds)
        return Loaded(inputs=pinned, config_sha256=digest.sha256)

    def _put_snapshots(
        self, work: Workbench, space: Workspace, folder: BuildFolder, snapshots: dict[str, KeptFile]
    ) -> None:
        space.run(f"mkdir -p {shlex.quote(folder.snapshots)}", timeout_s=60)
        for name, kept in snapshots.items():
            local = work.scratch / "snapshot"
            content = download_pinned(work, kept, local).content
            work.check()
            target = f"{folder.snapshots}/{name}"
            space.put_file(local, target)
            self._verify(space.remote, target, content)
            local.unlink()

    def _verify(self, remote: Remote, path: str, content: FileDigest) -> None:
        found = remote.value(f"sha256sum <{shlex.quote(path)}", r"[0-9a-f]{64} .*", timeout_s=300)
        if found.split()[0] != content.sha256:
            message = f"{path} was sent with the sha256 {content.sha256}, and has {found.split()[0]}"
            raise RemoteFault(message, FailureCode.CORRUPT_TRANSFER)


def _keep_text(build: BuildView, work: Workbench, kind: InputKind, local: Path) -> FileDigest:
    """Keep a text that was posted. Raises StepFailed, CloudError."""
    content = digest_of(local)
    origin = f"s3://{work.clouds.bucket.name}/{keys.input_key(content.sha256)}"
    used = InputRecord(kind, local.name, content.sha256, content.size_bytes, origin)
    work.check()
    keep_input(build, work, used, local, content, content_type="application/toml")
    return content


def _pin(build: BuildView, work: Workbench, name: str, kept: KeptFile | None, local: Path) -> FileDigest:
    """Fetch an input and keep it under its digest, or fetch the one that is kept. Raises StepFailed."""
    bucket = work.clouds.bucket
    before = _used_before(build, work, name)
    if before is not None and before.sha256 is not None:
        key = keys.input_key(before.sha256)
        kept = KeptFile(key=key, sha256=before.sha256, size_bytes=before.size_bytes or 0)
    if kept is not None and build.kind is BuildKind.REPRODUCE:
        found: Downloaded | None = download_pinned(work, kept, local)
    else:
        found = None if kept is None else _download_kept(work, name, kept, local)
    if kept is not None and found is not None:
        key = kept.key
    else:
        key, found = _download(bucket, name, local)
    content = found.content
    details: Details = _details(bucket, key, found)
    if before is not None and before.sha256 == content.sha256:
        # Where it came from at first.
        details = before.details
    origin = f"s3://{bucket.name}/{keys.input_key(content.sha256)}"
    used = InputRecord(KINDS[name], name, content.sha256, content.size_bytes, origin, details)
    keep_input(build, work, used, local, content, content_type="application/zip")
    _record_parts(build, work, name, content.sha256, local)
    return content


def _used_before(build: BuildView, work: Workbench, name: str) -> InputRecord | None:
    """What the build has used already, on an instance that it has lost, or in a try that broke off."""
    if build.kind is BuildKind.REPRODUCE:
        return None
    with work.transaction() as session:
        return inputs.kept_of_build(session, build.id, KINDS[name], name)


def _details(bucket: Bucket, key: str, found: Downloaded) -> dict[str, str]:
    details = {
        "fetched_from": f"s3://{bucket.name}/{key}",
        "fetched_at": datetime.now(UTC).isoformat(),
        "etag": found.etag.strip('"'),
    }
    if found.version is not None:
        details["object_version"] = found.version
    return details


def _record_parts(build: BuildView, work: Workbench, name: str, sha256: str, local: Path) -> None:
    """Record the files in an archive, the first time that a build uses it. Raises LeaseLost."""
    with work.transaction() as session:
        if inputs.has_parts(session, sha256):
            return
    parts: list[Part] = []
    problem = None
    try:
        parts = parts_of(local, work.check)
    except UnknownParts as exc:
        # The training reads the archive itself, and decides whether it can be used.
        problem = str(exc)
        work.log(f"The files in {name} are not recorded: {problem}")
    with work.transaction() as session:
        inputs.record_parts(session, build.lease, sha256, parts, problem)


def _download_kept(work: Workbench, name: str, kept: KeptFile, local: Path) -> Downloaded | None:
    """The input of the build that is retried. None if the bucket does not hold it any more."""
    found = _kept_content(work, kept, local)
    if found is None:
        work.note(f"{kept.key} is not in the bucket as it was put there. {name} is read from the root again.")
    return found


def download_pinned(work: Workbench, kept: KeptFile, local: Path) -> Downloaded:
    """The recorded input of the model that is reproduced. Raises StepFailed if it is not there as it was."""
    found = _kept_content(work, kept, local)
    if found is None:
        code = FailureCode.NOT_REPRODUCIBLE
        raise StepFailed(code, f"{kept.key} is not in the bucket as it was put there. {code.advice}")
    return found


def _kept_content(work: Workbench, kept: KeptFile, local: Path) -> Downloaded | None:
    try:
        found = work.clouds.bucket.download(kept.key, local)
    except CloudNotFound:
        return None
    return found if found.content.sha256 == kept.sha256 else None


def _download(bucket: Bucket, name: str, local: Path) -> tuple[str, Downloaded]:
    """The input by the first of its names that the bucket has, and this name. Raises StepFailed."""
    for key in keys.ROOT_NAMES[name]:
        try:
            return key, bucket.download(key, local)
        except CloudNotFound:
            continue
    code = FailureCode.MISSING_INPUT
    raise StepFailed(code, f"The bucket {bucket.name} has no {name} in its root any more. {code.advice}")


def keep_input(
    build: BuildView,
    work: Workbench,
    used: InputRecord,
    local: Path,
    content: FileDigest,
    *,
    content_type: str,
) -> None:
    """Record the input, then keep the file under a key made from its digest. Raises StepFailed, CloudError.

    The order ensures that the database knows everything in the bucket, and that garbage collection deletes
    nothing that a build relies on.
    """
    bucket, key = work.clouds.bucket, keys.input_key(content.sha256)
    while (wait := _record(build, work, used, content)) is not None:
        work.note(f"Garbage collection has just deleted {key}. It is put there again in {wait.seconds} s.")
        work.sleep(wait.total_seconds())
    try:
        written = bucket.put_once(key, local, content, content_type=content_type)
    except KeyTaken:
        written = False
    # Somebody else wrote the existing object, and its metadata may be wrong, so its bytes are read.
    if not written and bucket.digest(key) != content:
        code = FailureCode.CORRUPT_INPUT
        raise StepFailed(
            code, f"The content of s3://{bucket.name}/{key} does not match its name. {code.advice}"
        )
    with work.transaction() as session:
        inputs.stored(session, build.lease, content.sha256)


def _record(build: BuildView, work: Workbench, used: InputRecord, content: FileDigest) -> timedelta | None:
    """Record the use. Returns how long to wait before the content may be put into the bucket, if at all."""
    with work.transaction() as session:
        inputs.record(session, build.lease, [used])
        return inputs.claim(session, build.lease, content.sha256)
