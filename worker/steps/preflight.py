"""Before anything costs money: what the build needs is there, and what it makes is not there yet."""

import struct
import zipfile
from datetime import timedelta
from pathlib import Path
from typing import ClassVar

from app.registry.builds.steps import BuildView
from app.storage import keys
from app.storage.bucket import Bucket
from app.words import FailureCode, StepName
from worker.errors import StepFailed
from worker.machine.git import LocalGit
from worker.steps.commit import differing_keys, found_commit
from worker.steps.leftovers import is_leftover
from worker.steps.step import Output, Step
from worker.workbench import Workbench


class Needed(Output):
    """`reason` is why a model is built; the sizes are of the bucket's inputs, in bytes.

    `config_differs` names the keys whose values at the commit are not those that were posted. It is None, as
    `commit` is, where the worker has no repository to look into: the instance compares then.
    """

    reason: str
    commit: str | None = None
    config_differs: tuple[str, ...] | None = None
    raw_source_data_bytes: int
    benchmarking_data_bytes: int


class NeedsModel(Step[Needed]):
    """The decision was made when CI posted; what is left is whether it can be carried out."""

    name: ClassVar = StepName.NEEDS_MODEL
    deadline: ClassVar = timedelta(minutes=10)
    output: ClassVar = Needed

    def act(self, build: BuildView, work: Workbench) -> Needed:
        bucket = work.clouds.bucket
        sizes = {name: _whole_zip(bucket, name) for name in keys.ROOT_NAMES}
        for name in keys.CONTENT_TYPES:
            there = bucket.head(keys.artifact_key(build.prefix, name))
            # What a build of ours left there, publishing removes.
            if there is not None and there.build_id != str(build.id) and not is_leftover(build, work, there):
                code = FailureCode.PREFIX_TAKEN
                message = f"The bucket {bucket.name} has a {there.key} that this build may not replace."
                raise StepFailed(code, f"{message} {code.advice}")
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
        )


def _whole_zip(bucket: Bucket, name: str) -> int:
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
