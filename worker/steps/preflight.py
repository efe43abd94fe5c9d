"""Before anything costs money: what the build needs is there, and what it makes is not there yet."""

import struct
import zipfile
from datetime import timedelta
from pathlib import Path
from typing import ClassVar

from sqlalchemy.orm import Session

from app.failures import FailureCode
from app.registry import takeovers
from app.registry.builds.lease import Lease
from app.registry.builds.steps import BuildView
from app.registry.takeovers import Ancestor
from app.storage import keys
from app.storage.bucket import Bucket
from app.words import StepName
from worker.documents.key import signing_key
from worker.errors import StepFailed
from worker.machine.git import LocalGit
from worker.steps import takeover
from worker.steps.commit import differing_keys, found_commit
from worker.steps.leftovers import is_leftover
from worker.steps.needed import Needed
from worker.steps.step import Step
from worker.workbench import Workbench


class NeedsModel(Step[Needed]):
    """The decision was made when CI posted; what is left is whether it can be carried out.

    A retry takes over here what still holds of the build that it repeats. If that are the collected files,
    all steps until `collect` are done with this one.
    """

    name: ClassVar = StepName.NEEDS_MODEL
    deadline: ClassVar = timedelta(minutes=10)
    output: ClassVar = Needed

    def act(self, build: BuildView, work: Workbench) -> Needed:
        _refuse_foreign_objects(build, work)
        # Read only to find out now if it is not there, and not once the model has been trained.
        signing_key(work.settings, work.clouds.home)
        earlier: list[Ancestor] = []
        if build.retry_of is not None:
            with work.transaction() as session:
                earlier = takeovers.ancestors(session, build.id)
        if taken := takeover.collected_by(build, work, earlier):
            done = Needed.model_validate(taken.source.outputs[self.name])
            reason = f"the build {taken.source.build_id}, which is retried, has trained the model already"
            return done.model_copy(update={"reason": reason, "taken_over": taken.output, "inputs": {}})
        inputs = takeover.inputs_of(work, earlier)
        bucket = work.clouds.bucket
        sizes = {
            name: inputs[name].size_bytes if name in inputs else whole_zip(bucket, name)
            for name in keys.ROOT_NAMES
        }
        commit, differs = None, None
        if work.settings.code_repository is not None:
            repository = LocalGit(Path(work.settings.code_repository))
            commit = found_commit(repository, build.sha)
            differs = differing_keys(build, work, repository, commit)
        return Needed(
            commit=commit,
            config_differs=differs,
            reason="the version has risen, or the build was forced",
            raw_source_data_bytes=sizes[keys.RAW_SOURCE_DATA],
            benchmarking_data_bytes=sizes[keys.BENCHMARKING_DATA],
            inputs=inputs,
        )

    def apply(self, session: Session, lease: Lease, output: Needed) -> None:
        super().apply(session, lease, output)
        if output.taken_over is not None:
            takeover.record(session, lease, output.taken_over)


def _refuse_foreign_objects(build: BuildView, work: Workbench) -> None:
    """Raises StepFailed if the prefix holds an object that this build may not replace."""
    bucket = work.clouds.bucket
    for name in keys.CONTENT_TYPES:
        there = bucket.head(keys.artifact_key(build.prefix, name))
        # What a build of ours left there, publishing removes.
        if there is not None and there.build_id != str(build.id) and not is_leftover(build, work, there):
            code = FailureCode.PREFIX_TAKEN
            message = f"The bucket {bucket.name} has a {there.key} that this build may not replace."
            raise StepFailed(code, f"{message} {code.advice}")


def whole_zip(bucket: Bucket, name: str) -> int:
    """The size of an input in bytes. Raises StepFailed when it is missing or cannot be a whole archive.

    Only its directory is read, which stands at the end of the file: the machine checks the content.
    """
    found = next((there for key in keys.ROOT_NAMES[name] if (there := bucket.head(key))), None)
    if found is None:
        code = FailureCode.MISSING_INPUT
        raise StepFailed(code, f"The bucket {bucket.name} has no {name} in its root. {code.advice}")
    key = found.key
    try:
        with zipfile.ZipFile(bucket.open(found)) as archive:
            members = [member for member in archive.infolist() if not member.is_dir()]
    except (zipfile.BadZipFile, ValueError, EOFError, struct.error) as exc:
        raise _unusable(key, f"it is not a whole zip archive ({exc})") from exc
    if any(member.header_offset < 0 for member in members):
        raise _unusable(key, "its beginning is missing")
    if not members:
        raise _unusable(key, "it is an empty archive")
    if encrypted := [member.filename for member in members if member.flag_bits & 1]:
        raise _unusable(key, f"it is protected with a password ({encrypted[0]!r})")
    return found.size_bytes


def _unusable(key: str, why: str) -> StepFailed:
    code = FailureCode.UNUSABLE_INPUT
    return StepFailed(code, f"{key} in the bucket's root cannot be used: {why}. {code.advice}")
