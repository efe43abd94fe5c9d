"""Checks the bucket before anything costs money: the inputs must exist, and the model must not."""

from datetime import timedelta
from typing import ClassVar

from app.registry.builds.steps import BuildView
from app.storage import keys
from app.words import FailureCode, StepName
from worker.errors import StepFailed
from worker.steps.step import Output, Step
from worker.workbench import Workbench


class Needed(Output):
    """`reason` is why a model is built; the sizes are of the bucket's inputs, in bytes."""

    reason: str
    raw_source_data_bytes: int
    benchmarking_data_bytes: int


class NeedsModel(Step[Needed]):
    """Check whether the build can be done. That a model is needed was decided when CI posted the build."""

    name: ClassVar = StepName.NEEDS_MODEL
    deadline: ClassVar = timedelta(minutes=10)
    output: ClassVar = Needed

    def act(self, build: BuildView, work: Workbench) -> Needed:
        bucket = work.clouds.bucket
        sizes = {}
        for key in (keys.RAW_SOURCE_DATA, keys.BENCHMARKING_DATA):
            found = bucket.head(key)
            if found is None:
                message = f"The bucket {bucket.name} has no {key} in its root. Put it there, then post again."
                raise StepFailed(FailureCode.MISSING_INPUT, message)
            sizes[key] = found.size_bytes
        taken = bucket.head(keys.artifact_key(build.prefix, keys.MODEL_ZIP))
        if taken is not None and taken.build_id is None:
            message = (
                f"The bucket {bucket.name} has a {taken.key} that this registry did not write. "
                "Raise the version in search-config.toml, or move the object away."
            )
            raise StepFailed(FailureCode.PREFIX_TAKEN, message)
        return Needed(
            reason="the version has risen, or the build was forced",
            raw_source_data_bytes=sizes[keys.RAW_SOURCE_DATA],
            benchmarking_data_bytes=sizes[keys.BENCHMARKING_DATA],
        )
