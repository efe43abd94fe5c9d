"""What a build made: its files with what is in them, how the training went, and how long everything took."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db.tables import BuildStep, Model
from app.words import StepName

# The steps that are jobs, which report what they have read and how long their phases took.
_JOBS = (StepName.TRAIN, StepName.BENCHMARK)


@dataclass(frozen=True)
class Content:
    """A file inside an artifact."""

    path: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class OutputFile:
    """An artifact. `contents` are the files inside it, which are known of model.zip alone."""

    name: str
    sha256: str | None
    size_bytes: int
    contents: tuple[Content, ...] = ()


@dataclass(frozen=True)
class Timing:
    """How long a step took, or with `phase` a part of the job in it."""

    step: str
    phase: str | None
    seconds: float


@dataclass(frozen=True)
class Outputs:
    """What a build made. `data` is what happened to the rows of each source or benchmark, by step.

    Builds of earlier releases, and trainings at older commits, did not report everything.
    """

    files: tuple[OutputFile, ...]
    epochs: tuple[Mapping[str, float], ...]
    timings: tuple[Timing, ...]
    data: Mapping[str, Mapping[str, Any]]
    warnings: tuple[str, ...]


def of_steps(model: Model, steps: Sequence[BuildStep]) -> Outputs:
    """From what the steps of the model's build have stored, in the order in which they were done."""
    outputs: dict[str, Mapping[str, Any]] = {step.name: step.output or {} for step in steps}
    contents = tuple(contents_of(outputs.get(StepName.COLLECT, {})))
    return Outputs(
        tuple(
            OutputFile(file.name, file.sha256, file.size_bytes, contents if file.name == "model.zip" else ())
            for file in sorted(model.artifacts, key=lambda file: file.name)
        ),
        tuple(outputs.get(StepName.TRAIN, {}).get("epochs") or ()),
        tuple(_timings(steps)),
        {name: data for name in _JOBS if (data := outputs.get(name, {}).get("data"))},
        warnings_of(outputs),
    )


def warnings_of_build(session: Session, build_id: UUID) -> tuple[str, ...]:
    """What the training and then the benchmark of a build warned of."""
    rows = session.execute(
        select(BuildStep.name, BuildStep.output["warnings"]).where(
            BuildStep.build_id == build_id, BuildStep.name.in_(_JOBS)
        )
    )
    return warnings_of({name: {"warnings": warnings} for name, warnings in rows})


def contents_of(collected: Mapping[str, Any]) -> Iterator[Content]:
    """The files inside model.zip, as the output of `collect` has them."""
    for one in collected.get("model_files") or ():
        yield Content(one["path"], one["sha256"], one["size_bytes"])


def digests_of_contents(session: Session, build_id: UUID) -> dict[str, str]:
    """The sha256 of each file inside the model.zip of a build, by path. Empty if they were not recorded."""
    collected = session.scalar(
        select(BuildStep.output).where(BuildStep.build_id == build_id, BuildStep.name == StepName.COLLECT)
    )
    return {one.path: one.sha256 for one in contents_of(collected or {})}


def warnings_of(outputs: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    """What the training and then the benchmark warned of."""
    return tuple(text for name in _JOBS for text in outputs.get(name, {}).get("warnings") or ())


def _timings(steps: Sequence[BuildStep]) -> Iterator[Timing]:
    for step in steps:
        if step.finished_at is not None:
            yield Timing(step.name, None, (step.finished_at - step.started_at).total_seconds())
        for phase in (step.output or {}).get("phases") or ():
            yield Timing(step.name, phase["phase"], phase["seconds"])
