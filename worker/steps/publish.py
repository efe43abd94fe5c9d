"""Publishes the model: its files are made once, then copied under its prefix, then recorded."""

import gzip
import json
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar
from uuid import UUID

from sqlalchemy.orm import Session

from app.aws import PreconditionFailed
from app.failures import FailureCode
from app.registry import clearing, environments, inputs, provenance, takeovers
from app.registry.builds import listing, log, steps
from app.registry.builds.lease import Lease
from app.registry.builds.steps import BuildView
from app.registry.models.catalogue import ArtifactRef
from app.registry.models.report import Report
from app.registry.models.signatures import PublicKey
from app.registry.publication import Publication, publish
from app.storage import keys
from app.storage.bucket import digest_of
from app.words import StepName, Verdict
from worker.documents.key import signing_key
from worker.documents.sbom import Described, sbom
from worker.documents.signature import sign
from worker.errors import StepFailed
from worker.retry import Patience
from worker.steps.collect import Collect, CollectedFile, keep_unpublished
from worker.steps.job import Benchmark
from worker.steps.leftovers import is_leftover
from worker.steps.published_config import published_config
from worker.steps.report import report_of
from worker.steps.result import FileRef
from worker.steps.step import Output, Step, output_of
from worker.steps.validation import Validate
from worker.workbench import Workbench

_LOG_BLOCK = 4 << 20


class SignedWith(Output):
    """The public half of the key that the model was signed with."""

    fingerprint: str
    public_key: str


class Published(Output):
    artifacts: dict[str, FileRef]
    metrics: dict[str, Any]
    verdict: Verdict
    verdict_reason: str
    signed_with: SignedWith | None = None


class Frozen(Output):
    """The model's files. They are made once, and every worker that publishes copies exactly these bytes."""

    files: dict[str, CollectedFile]
    signed_with: SignedWith | None = None


class Publish(Step[Published]):
    """Publish the model. A repetition gives exactly the same bytes, and a published object is never replaced.

    First every file of the model is made and kept as unpublished, and their digests are stored under the
    lease. Then exactly these files are put under the prefix, each only if no object is there. The record
    comes last: if it exists, all files exist.
    """

    name: ClassVar = StepName.PUBLISH
    # The bucket may be out of reach for hours, and a trained model would be lost.
    deadline: ClassVar = timedelta(days=1)
    patience: ClassVar = Patience.FROM_THE_TRAINING_ON
    output: ClassVar = Published

    def act(self, build: BuildView, work: Workbench) -> Published:
        verdict = output_of(build, Validate)
        frozen = self._freeze(build, work)
        files = frozen.files
        self._await_deletes(build, work)
        for name, file in files.items():
            work.check()
            self._put(build, work, name, file)
        return Published(
            artifacts={
                name: FileRef(sha256=file.sha256, size_bytes=file.size_bytes) for name, file in files.items()
            },
            metrics=output_of(build, Benchmark).metrics,
            verdict=verdict.verdict,
            verdict_reason=verdict.reason,
            signed_with=frozen.signed_with,
        )

    def apply(self, session: Session, lease: Lease, output: Published) -> None:
        prefix = listing.get(session, lease.build_id).prefix
        artifacts = tuple(
            ArtifactRef(name, keys.artifact_key(prefix, name), file.sha256, file.size_bytes)
            for name, file in output.artifacts.items()
        )
        signed = output.signed_with
        publish(
            session,
            lease,
            Publication(
                artifacts,
                output.metrics,
                output.verdict,
                output.verdict_reason,
                None if signed is None else PublicKey(signed.fingerprint, signed.public_key),
            ),
        )
        super().apply(session, lease, output)

    def tidy(self, build: BuildView, work: Workbench) -> None:
        for folder in keys.unpublished_folders(build.id):
            for key, _ in list(work.clouds.bucket.list(folder)):
                work.clouds.bucket.delete(key)

    def undo(self, build: BuildView, work: Workbench) -> None:
        """Remove what this build has put under the prefix, because the model will not exist."""
        bucket = work.clouds.bucket
        for name in keys.PUBLISHED:
            there = bucket.head(keys.artifact_key(build.prefix, name))
            if there is not None and there.build_id == str(build.id):
                work.check()
                bucket.delete(there.key, only=there)

    def _await_deletes(self, build: BuildView, work: Workbench) -> None:
        """Wait until no delete of what was under the prefix before can arrive any more."""
        while True:
            with work.transaction() as session:
                wait = clearing.wait(session, build.lease, work.settings.retry_window)
            if wait is None:
                return
            work.note(f"What was under {build.prefix} before was deleted. It is written in {wait.seconds} s.")
            work.sleep(wait.total_seconds())

    def _freeze(self, build: BuildView, work: Workbench) -> Frozen:
        """The files to publish. They are made and recorded once; later tries read the record."""
        with work.transaction() as session:
            stored = steps.view(session, build.lease).checkpoints.get(self.name)
        if stored is not None:
            return Frozen.model_validate(stored)
        # Without the key, nothing is made that would be made again.
        key = signing_key(work.settings, work.clouds.home)
        files, report = output_of(build, Collect).all_files, report_of(build, work)
        made = _digests(files)
        for local in (
            self._write_config(build, work),
            *self._write_report(report, work),
            self._write_log(build, work),
            *self._write_documents(build, work, made),
        ):
            files[local.name] = _keep(build, work, local)
        signed_with = None
        if key is not None:
            # Last, because it signs all the others. The markers are not signed: they change.
            local = work.scratch / keys.SIGNATURE
            sign(build.prefix, _digests(files), key, local)
            files[local.name] = _keep(build, work, local)
            signed_with = SignedWith(fingerprint=key.fingerprint, public_key=key.public_key)
        frozen = Frozen(files=files, signed_with=signed_with)
        with work.transaction() as session:
            steps.checkpoint(session, build.lease, self.name, frozen.model_dump(mode="json"))
            # Of the same try as the file, so that the API and the file say the same.
            if report is not None:
                steps.set_report(session, build.lease, report.model_dump(mode="json"))
        return frozen

    def _write_config(self, build: BuildView, work: Workbench) -> Path:
        return self._write(work, keys.SEARCH_CONFIG, published_config(build))

    def _write_report(self, report: Report | None, work: Workbench) -> Iterator[Path]:
        if report is not None:
            yield self._write(work, keys.CHECK_RESULT, report.to_json())

    def _write_documents(self, build: BuildView, work: Workbench, made: dict[str, str]) -> Iterator[Path]:
        """What the model consists of, and what it was made from."""
        with work.transaction() as session:
            statement = provenance.statement(session, build.id, made)
            used = tuple(inputs.of_build(session, build.id))
            environment = environments.of_build(session, build.id)
        finished = statement["predicate"]["runDetails"]["metadata"].get("finishedOn")
        described = Described(
            build.prefix,
            made[keys.MODEL_ZIP],
            None if finished is None else datetime.fromisoformat(finished),
            used,
            output_of(build, Benchmark).metrics,
            {} if environment is None else environment.packages,
        )
        yield self._write(work, keys.SBOM, sbom(described))
        yield self._write(work, keys.PROVENANCE, json.dumps(statement, indent=2, sort_keys=True) + "\n")

    def _write(self, work: Workbench, name: str, content: str) -> Path:
        local = work.scratch / name
        local.write_text(content, encoding="utf-8")
        return local

    def _write_log(self, build: BuildView, work: Workbench) -> Path:
        """The log of the build, after those of the builds whose collected files it has taken over."""
        local = work.scratch / keys.BUILD_LOG
        with work.transaction() as session:
            builds = takeovers.made_by(session, build.id)
        # The header has no time, so that the same log gives the same bytes.
        with local.open("wb") as raw, gzip.GzipFile(fileobj=raw, mode="wb", filename="", mtime=0) as packed:
            for one in builds:
                offset = 0
                while block := self._log_block(work, one, offset):
                    packed.write(block)
                    offset += len(block)
        return local

    def _log_block(self, work: Workbench, build_id: UUID, offset: int) -> bytes:
        with work.transaction() as session:
            return log.read(session, build_id, offset, _LOG_BLOCK)[0]

    def _put(self, build: BuildView, work: Workbench, name: str, file: CollectedFile) -> None:
        """Copy the file under the prefix if no object is there. Leftovers of failed builds are removed."""
        bucket, key = work.clouds.bucket, keys.artifact_key(build.prefix, name)
        source = bucket.head(file.lies_at(build.id, name))
        if source is None or source.sha256 != file.sha256:
            code = FailureCode.CORRUPT_ARTIFACT
            message = f"The unpublished {name} is not in the bucket as it was put there. {code.advice}"
            raise StepFailed(code, message)
        there = bucket.head(key)
        # Even if its content is right: as the object of a build that has ended, it could still be removed.
        if there is not None and is_leftover(build, work, there):
            work.check()
            bucket.delete(key, only=there)
            there = None
        if there is None:
            work.check()
            try:
                bucket.copy(source, key, over=None)
            except PreconditionFailed:
                # It may be ours: a request's answer was lost, or another worker publishes the same files.
                work.log(f"{key} was put there by another request")
            there = bucket.head(key)
        if there is None or (there.sha256, there.size_bytes) != (file.sha256, file.size_bytes):
            code = FailureCode.PREFIX_TAKEN
            raise StepFailed(code, f"The bucket has another {key}. {code.advice}")


def _keep(build: BuildView, work: Workbench, local: Path) -> CollectedFile:
    content = digest_of(local)
    key = keep_unpublished(build, work, local.name, local, content)
    return CollectedFile(sha256=content.sha256, size_bytes=content.size_bytes, key=key)


def _digests(files: Mapping[str, CollectedFile]) -> dict[str, str]:
    return {name: file.sha256 for name, file in files.items()}
