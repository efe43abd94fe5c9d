"""Compares the model that was made again with the original. Nothing of it is published."""

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import ClassVar

from sqlalchemy.orm import Session

from app.aws import CloudNotFound
from app.failures import FailureCode
from app.registry.builds import listing
from app.registry.builds.lease import Lease
from app.registry.builds.steps import BuildView
from app.registry.lineage import differences, outputs
from app.registry.models.catalogue import ArtifactRef
from app.registry.reproductions import recorded
from app.registry.reproductions.outcomes import Outcome, Wanted
from app.registry.runs import reconciliation
from app.storage import keys
from app.storage.bucket import FileDigest
from app.words import InputKind, StepName
from worker.errors import StepFailed
from worker.retry import Patience
from worker.steps.collect import Collect, CollectedFile
from worker.steps.job import Benchmark
from worker.steps.pins import pins_of
from worker.steps.reproduction.judgement import Content, judge
from worker.steps.reproduction.packages import (
    CLASSES,
    WEIGHTS,
    Package,
    UnreadablePackage,
    deciding,
    unpack,
)
from worker.steps.reproduction.repairs import repair
from worker.steps.reproduction.weights import UnreadableWeights, largest_difference
from worker.steps.step import Output, Step, output_of
from worker.workbench import Workbench


class Compared(Outcome, Output):
    """The outcome of the reproduction."""


class Compare(Step[Compared]):
    """Compare files, classes, figures, weights and inputs with what was recorded of the original."""

    name: ClassVar = StepName.COMPARE
    # The bucket may be out of reach for hours, and the reproduction was paid for.
    deadline: ClassVar = timedelta(days=1)
    patience: ClassVar = Patience.FROM_THE_TRAINING_ON
    output: ClassVar = Compared

    def act(self, build: BuildView, work: Workbench) -> Compared:
        pins = pins_of(build)
        if build.reproduces is None or pins is None:
            message = f"the build {build.id} does not say which model it reproduces"
            raise AssertionError(message)
        with work.transaction() as session:
            known = recorded.of_model(session, build.reproduces)
            contents = outputs.digests_of_contents(session, known.build_id)
            changed = [
                one
                for one in differences.between_builds(session, build.id, known.build_id)
                # A reproduction is not validated, and its models differ by nothing that validates them.
                if one.kind != InputKind.THRESHOLDS
            ]
        made = output_of(build, Collect).files[keys.MODEL_ZIP]
        content = _compare(build, work, made, known.artifacts.get(keys.MODEL_ZIP), contents)
        outcome = judge(
            content,
            known.metrics,
            output_of(build, Benchmark).metrics,
            changed,
            pins.not_pinned,
            work.settings.reproduction_tolerance,
        )
        if Wanted.of(build.reproduction_wanted).repair:
            outcome = repair(build, work, known, outcome)
        work.log(f"{known.prefix} was made again: {outcome.verdict}")
        for finding in outcome.findings:
            work.log(finding)
        return Compared.model_validate(outcome.model_dump())

    def apply(self, session: Session, lease: Lease, output: Compared) -> None:
        if output.repaired:
            prefix = listing.get(session, lease.build_id).prefix
            present = [keys.artifact_key(prefix, name) for name in output.repaired]
            reconciliation.remember(session, present=present)
        super().apply(session, lease, output)

    def tidy(self, build: BuildView, work: Workbench) -> None:
        for key, _ in list(work.clouds.bucket.list(keys.unpublished_folders(build.id)[0])):
            work.clouds.bucket.delete(key)


def _compare(
    build: BuildView,
    work: Workbench,
    made: CollectedFile,
    original: ArtifactRef | None,
    contents: Mapping[str, str],
) -> Content:
    """Compare the two packages. If the bucket has lost the original, compare the recorded digests.

    `contents` has those of the files inside the original. Raises StepFailed and CloudError.
    """
    if original is not None and (made.sha256, made.size_bytes) == (original.sha256, original.size_bytes):
        return Content(same_bytes=keys.MODEL_ZIP, largest_difference=0.0)
    ours, theirs = work.scratch / "reproduced.zip", work.scratch / "original.zip"
    if not _download(work, made.lies_at(build.id, keys.MODEL_ZIP), made.sha256, ours):
        code = FailureCode.CORRUPT_ARTIFACT
        message = f"The reproduced {keys.MODEL_ZIP} is not in the bucket as it was put there. {code.advice}"
        raise StepFailed(code, message)
    try:
        mine = unpack(ours, work.scratch / "reproduced.pt", work.check)
    except UnreadablePackage as exc:
        return _unknown(f"the reproduced {keys.MODEL_ZIP}: {exc}")
    if original is None or original.sha256 is None:
        return _by_digests(mine, contents, f"no digest of the original {keys.MODEL_ZIP} was recorded")
    if not _download(work, original.key, original.sha256, theirs):
        why = f"the bucket does not have the original {original.key} any more"
        return _by_digests(mine, contents, why)
    try:
        other = unpack(theirs, work.scratch / "original.pt", work.check)
    except UnreadablePackage as exc:
        return _unknown(f"the original {keys.MODEL_ZIP}: {exc}")
    return _contents(work, mine, other)


def _unknown(reason: str) -> Content:
    return Content(classes_known=False, not_compared=reason)


def _by_digests(mine: Package, contents: Mapping[str, str], why: str) -> Content:
    """Compare with the recorded digests of the original's files. `why` says why there is nothing else."""
    if not contents:
        return _unknown(f"{why}, and the digests of the files in it were not recorded")
    ours, theirs = deciding(mine.files), deciding(contents)
    if ours == theirs:
        return Content(same_bytes=WEIGHTS, largest_difference=0.0)
    names = sorted(path for path in {*ours, *theirs} if ours.get(path) != theirs.get(path))
    differ = f"{why}, and these files in it had other digests: {', '.join(names)}"
    # A list of the same classes in another order has another digest, too.
    return Content(classes_known=CLASSES not in names, not_compared=differ)


def _contents(work: Workbench, mine: Package, other: Package) -> Content:
    if mine.transformers != other.transformers:
        # The same weights of the network would then give other answers, and similar ones say nothing.
        why = "the transformers in the two packages, whose embeddings the networks take, are not the same"
        return Content(classes_differ=_classes(mine, other), not_compared=why)
    if mine.files[WEIGHTS] == other.files[WEIGHTS] and mine.classes == other.classes:
        return Content(same_bytes=WEIGHTS, largest_difference=0.0)
    differ = _classes(mine, other)
    if mine.classes != other.classes:
        why = "the outputs of the two networks are not for the same classes in the same order"
        return Content(classes_differ=differ, not_compared=why)
    try:
        found = largest_difference(mine.weights, other.weights, work.check)
        return Content(classes_differ=differ, largest_difference=found.largest)
    except UnreadableWeights as exc:
        return Content(classes_differ=differ, not_compared=str(exc))


def _classes(mine: Package, other: Package) -> str | None:
    ours, theirs = set(mine.classes), set(other.classes)
    if ours == theirs:
        return None
    return f"{len(theirs - ours)} are only in the original, and {len(ours - theirs)} only in the reproduction"


def _download(work: Workbench, key: str, sha256: str, to: Path) -> bool:
    """Fetch an object. False if the bucket does not have it with this content. Raises CloudError."""
    work.check()
    try:
        content: FileDigest = work.clouds.bucket.download(key, to).content
    except CloudNotFound:
        return False
    return content.sha256 == sha256
