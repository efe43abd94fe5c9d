"""What a model was made from, and whether exactly the same can still be had."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db.tables import BuildStep, Launch, Model
from app.registry import inputs
from app.registry.errors import NotReproducible
from app.registry.inputs import InputRecord
from app.registry.models import catalogue
from app.registry.models.catalogue import ArtifactRef
from app.registry.reproductions.outcomes import NotPinned
from app.storage import keys
from app.storage.bucket import Bucket
from app.words import InputKind, Irreproducible, Pinned, StepName

_COMMIT = re.compile(r"git\+(.+)@([0-9a-f]{40})")
_IMAGE = re.compile(r"aws:([a-z0-9-]+):(ami-[0-9a-f]+)")

# The inputs that every model has, by kind and name.
_ALWAYS = (
    (Pinned.CODE, keys.CODE_PACK),
    (Pinned.RAW_DATA, keys.RAW_SOURCE_DATA),
    (Pinned.BENCHMARK_DATA, keys.BENCHMARKING_DATA),
)


@dataclass(frozen=True)
class RecordedCommit:
    """The commit by all its digits, and the repository that it came from."""

    sha: str
    origin: str


@dataclass(frozen=True)
class RecordedImage:
    """The machine image that the model's instance was made from."""

    region: str
    image_id: str
    used: InputRecord


@dataclass(frozen=True)
class Recorded:
    """A model and what is recorded of its making.

    `build_id` is the build that published it. `snapshot_files` are the names of the files in which the
    training kept the answers of additional sources, by source. `commit`, `image` and `instance_type` are None
    where they were not recorded.
    """

    model_id: UUID
    prefix: str
    build_id: UUID
    inputs: tuple[InputRecord, ...]
    snapshot_files: Mapping[str, str]
    commit: RecordedCommit | None
    image: RecordedImage | None
    instance_type: str | None
    artifacts: Mapping[str, ArtifactRef]
    metrics: Mapping[str, Any]

    def input(self, kind: Pinned, name: str) -> InputRecord | None:
        found = (one for one in self.inputs if (one.kind.value, one.name) == (kind.value, name))
        return next(found, None)

    @property
    def snapshots(self) -> tuple[InputRecord, ...]:
        """The answers of additional sources, one for each source."""
        return tuple(one for one in self.inputs if one.kind is InputKind.ADDITIONAL_SOURCE)


def of_prefix(session: Session, prefix: str) -> Recorded:
    """Raises NotFound, and NotReproducible for a model that was imported."""
    return _of(session, catalogue.get_with_artifacts(session, prefix))


def of_model(session: Session, model_id: UUID) -> Recorded:
    """Raises NotFound, and NotReproducible for a model that was imported."""
    return of_prefix(session, session.scalars(select(Model.prefix).where(Model.id == model_id)).one())


def _of(session: Session, model: Model) -> Recorded:
    if model.build_id is None:
        message = (
            f"{model.prefix} was imported, so nobody recorded what it was made from, and it cannot be made "
            "again. Build its commit at a new version instead."
        )
        raise NotReproducible(message, prefix=model.prefix, reason=Irreproducible.IMPORTED)
    used = tuple(inputs.of_build(session, model.build_id))
    steps = {
        step.name: step
        for step in session.scalars(
            select(BuildStep).where(
                BuildStep.build_id == model.build_id,
                BuildStep.name.in_([StepName.LAUNCH_INSTANCE, StepName.TRAIN]),
            )
        )
    }
    train = steps.get(StepName.TRAIN)
    return Recorded(
        model_id=model.id,
        prefix=model.prefix,
        build_id=model.build_id,
        inputs=used,
        snapshot_files=dict(_snapshot_files({} if train is None else train.output or {})),
        commit=next((commit for one in used if (commit := _commit(one)) is not None), None),
        image=next((image for one in used if (image := _image(one)) is not None), None),
        instance_type=_instance_type(session, model.build_id, steps.get(StepName.LAUNCH_INSTANCE)),
        artifacts={
            file.name: ArtifactRef(file.name, file.key, file.sha256, file.size_bytes)
            for file in model.artifacts
        },
        metrics=model.metrics,
    )


def _snapshot_files(output: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The file name of each snapshot that the training reported. It is never used as a path."""
    snapshots = output.get("snapshots")
    for one in snapshots if isinstance(snapshots, list) else ():
        name, file = (one.get("name"), one.get("file")) if isinstance(one, dict) else (None, None)
        if isinstance(name, str) and isinstance(file, str) and (base := PurePosixPath(file).name):
            yield name, base


def _commit(used: InputRecord) -> RecordedCommit | None:
    found = _COMMIT.fullmatch(used.origin or "") if used.kind is InputKind.CODE else None
    return None if found is None else RecordedCommit(found[2], found[1])


def _image(used: InputRecord) -> RecordedImage | None:
    found = _IMAGE.fullmatch(used.origin or "") if used.kind is InputKind.MACHINE_IMAGE else None
    return None if found is None else RecordedImage(found[1], found[2], used)


def _instance_type(session: Session, build_id: UUID, launch: BuildStep | None) -> str | None:
    """Of the instance that the model was trained on, which another build may have launched."""
    output = {} if launch is None else launch.output or {}
    if isinstance(output.get("instance_type"), str):
        return str(output["instance_type"])
    maker = build_id if launch is None else launch.taken_over_from or build_id
    query = select(Launch.instance_type).where(Launch.build_id == maker, Launch.instance_id.is_not(None))
    return session.scalar(query.order_by(Launch.attempt.desc()).limit(1))


def lost(recorded: Recorded, bucket: Bucket, *, patient: bool = True) -> list[NotPinned]:
    """What cannot be had any more as it was recorded, as far as the database and S3 can tell.

    No session may be open meanwhile. Raises CloudError.
    """
    found = [
        NotPinned(what=kind, name=name, reason=reason)
        for kind, name in _ALWAYS
        if (reason := _why_lost(recorded.input(kind, name), bucket, patient=patient)) is not None
    ]
    for used in recorded.snapshots:
        reason = _why_lost(used, bucket, patient=patient)
        if reason is None and used.name not in recorded.snapshot_files:
            reason = "the name of the file that the training kept it in was not recorded"
        if reason is not None:
            found.append(NotPinned(what=Pinned.ADDITIONAL_SOURCE, name=used.name, reason=reason))
    if recorded.commit is None and not any(one.what == Pinned.CODE for one in found):
        found.append(NotPinned(what=Pinned.CODE, name=keys.CODE_PACK, reason="its commit was not recorded"))
    for kind, value in (
        (Pinned.MACHINE_IMAGE, recorded.image),
        (Pinned.INSTANCE_TYPE, recorded.instance_type),
    ):
        if value is None:
            found.append(NotPinned(what=kind, name=kind, reason="it was not recorded"))
    return found


def _why_lost(used: InputRecord | None, bucket: Bucket, *, patient: bool) -> str | None:
    if used is None or used.sha256 is None or used.size_bytes is None:
        return "no copy of it was kept"
    key = keys.input_key(used.sha256)
    there = bucket.head(key, patient=patient)
    if there is None:
        return f"the bucket has no {key} any more"
    if there.size_bytes != used.size_bytes:
        return f"{key} has {there.size_bytes} bytes, and {used.size_bytes} were recorded"
    if there.sha256 not in (None, used.sha256):
        return f"{key} has other content, with the sha256 {there.sha256}"
    return None
