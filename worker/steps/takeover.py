"""What a retry takes over from the build that it repeats: its collected files, or at least its inputs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from sqlalchemy.orm import Session

from app.aws import CloudNotFound, PreconditionFailed
from app.registry import takeovers
from app.registry.builds.lease import Lease
from app.registry.builds.steps import BuildView
from app.registry.takeovers import Ancestor
from app.storage import keys
from app.storage.bucket import ObjectInfo
from app.words import BuildKind, StepName
from worker.steps.collect import OPTIONAL, REQUIRED, Collect, Collected, CollectedFile
from worker.steps.inputs import KINDS
from worker.steps.job import Benchmark, Train
from worker.steps.needed import KeptFile, TakenOver
from worker.workbench import Workbench

_FLOW = BuildKind.TRAIN.steps
# The steps that the new build need not do, when it has the collected files.
_DONE = _FLOW[_FLOW.index(StepName.NEEDS_MODEL) + 1 : _FLOW.index(StepName.COLLECT) + 1]
# Those of them whose outputs are about the model. The others are about the other build's instance.
_ABOUT_THE_MODEL = frozenset(
    {
        StepName.FIND_IMAGE,
        StepName.BRING_CODE,
        StepName.LOAD_INPUTS,
        StepName.TRAIN,
        StepName.BENCHMARK,
    }
)


@dataclass(frozen=True)
class Taken:
    """The build from which something is taken over, and what that is."""

    source: Ancestor
    output: TakenOver


def collected_by(build: BuildView, work: Workbench, earlier: Sequence[Ancestor]) -> Taken | None:
    """Make the collected files of a build that was retried this build's own, as far as they still hold.

    The nearest build that has collected its files decides. None if there is no such build, or if one of the
    files that every model has is gone or has changed. The files are copied, because those of the other build
    are deleted some time after its end, and publishing goes by the build that an object belongs to. Raises
    CloudError.
    """
    source = next((one for one in earlier if {StepName.NEEDS_MODEL, *_DONE} <= one.done), None)
    collected = None if source is None else _readable(source)
    if source is None or collected is None:
        return None
    found: dict[str, tuple[CollectedFile, ObjectInfo]] = {}
    for name, file in collected.all_files.items():
        there = work.clouds.bucket.head(file.lies_at(source.build_id, name))
        if there is None or (there.sha256, there.size_bytes) != (file.sha256, file.size_bytes):
            work.note(
                f"The {name} that the build {source.build_id} has collected is not in the bucket any more as "
                f"it was put there. {_without(name)}"
            )
            if name in REQUIRED:
                return None
        else:
            found[name] = file, there
    files = {}
    for name, (file, there) in found.items():
        key = _adopt(build, work, name, there, file)
        if key is not None:
            files[name] = KeptFile(sha256=file.sha256, size_bytes=file.size_bytes, key=key)
        elif name in REQUIRED:
            return None
    work.log(
        f"The files that the build {source.build_id} has collected are taken over. "
        f"GET /builds/{source.build_id}/log has the log of their training."
    )
    return Taken(source, TakenOver(build=source.build_id, files=files))


def _readable(source: Ancestor) -> Collected | None:
    """The collected files. None if this release cannot use what another one has stored."""
    try:
        for step in (Train, Benchmark):
            step.output.model_validate(source.outputs[step.name])
        collected = Collected.model_validate(source.outputs[Collect.name])
    except (KeyError, ValidationError):
        return None
    return collected if set(REQUIRED) <= set(collected.files) <= set(keys.CONTENT_TYPES) else None


def _without(name: str) -> str:
    """What follows if a file that was collected is gone."""
    return "The model is trained again." if name in REQUIRED else "The model is published without it."


def _adopt(
    build: BuildView, work: Workbench, name: str, there: ObjectInfo, file: CollectedFile
) -> str | None:
    """Copy the file into this build's folder, and return its key there. None if it has changed meanwhile.

    The key contains the digest, so a repetition and a stale worker write the same bytes to the same place.
    """
    bucket, key = work.clouds.bucket, keys.unpublished_key(build.id, file.sha256)
    work.check()
    try:
        bucket.adopt(there, key, content_type=keys.CONTENT_TYPES[name], build_id=str(build.id))
    except (PreconditionFailed, CloudNotFound):
        # An earlier try has copied it, or the answer to this request was lost, or the source has changed.
        work.log(f"{key} was not copied by this request")
    copied = bucket.head(key)
    if copied is None or (copied.sha256, copied.size_bytes) != (file.sha256, file.size_bytes):
        work.note(f"{there.key} could not be copied as it was put there. {_without(name)}")
        return None
    return key


def inputs_of(work: Workbench, earlier: Sequence[Ancestor]) -> dict[str, KeptFile]:
    """The inputs of the builds that were retried, by name, as far as the bucket still has them.

    For each of them, the nearest build that has read it decides. Raises CloudError.
    """
    found = {}
    for name, kind in KINDS.items():
        used = next(
            (
                item
                for one in earlier
                for item in one.inputs
                if (item.kind, item.name) == (kind, name) and item.sha256 is not None
            ),
            None,
        )
        if used is None or used.sha256 is None:
            continue
        key = keys.input_key(used.sha256)
        there = work.clouds.bucket.head(key)
        if there is None or there.size_bytes != used.size_bytes or there.sha256 not in (None, used.sha256):
            work.note(f"{key} is not in the bucket as it was put there. {name} is read from the root again.")
            continue
        found[name] = KeptFile(key=key, sha256=used.sha256, size_bytes=there.size_bytes)
    return found


def record(session: Session, lease: Lease, taken: TakenOver) -> None:
    """Record the steps that need not be done, in the transaction of `needs_model`. Raises LeaseLost."""
    files = {name: CollectedFile.model_validate(file.model_dump()) for name, file in taken.files.items()}
    optional = {name: files.pop(name) for name in OPTIONAL if name in files}
    collected = Collected(files=files, optional_files=optional).model_dump(mode="json")

    def output(name: StepName, before: dict[str, Any] | None) -> dict[str, Any] | None:
        if name is StepName.COLLECT:
            # The same bytes, so the same files are inside.
            return {**collected, "model_files": (before or {}).get("model_files", [])}
        return before if name in _ABOUT_THE_MODEL else None

    takeovers.take_over(session, lease, taken.build, _DONE, output)
