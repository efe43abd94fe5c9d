"""What the steps of a reproduction take as it was recorded. Builds that train have none of this."""

from pydantic import Field

from app.registry.builds.steps import BuildView
from app.registry.reproductions.outcomes import NotPinned
from app.words import BuildKind, StepName
from worker.steps.needed import KeptFile
from worker.steps.step import Output


class PinnedCode(Output):
    """The commit, its files as they were kept, and the repository that they came from at first."""

    commit: str
    origin: str
    pack: KeptFile


class Pins(Output):
    """`inputs` are those of the bucket's root by their names there, and `snapshots` those of additional
    sources by the names of their files. What is None or not there could not be had, and was accepted as it
    is now: `not_pinned` says why.
    """

    code: PinnedCode | None = None
    instance_type: str | None = None
    inputs: dict[str, KeptFile] = Field(default_factory=dict)
    snapshots: dict[str, KeptFile] = Field(default_factory=dict)
    not_pinned: tuple[NotPinned, ...] = ()


class Pinned(Output):
    """The part of the output of a reproduction's `find_image` that other steps read."""

    pins: Pins


def pins_of(build: BuildView) -> Pins | None:
    """None for a build that trains."""
    if build.kind is not BuildKind.REPRODUCE:
        return None
    return Pinned.model_validate(build.outputs[StepName.FIND_IMAGE]).pins
