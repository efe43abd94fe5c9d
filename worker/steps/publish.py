"""The model comes to exist: its files into their place, then its record, in one transaction."""

import gzip
import json
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar
from uuid import UUID

from sqlalchemy.orm import Session

from app.registry import provenance
from app.registry.builds import listing, log
from app.registry.builds.lease import Lease, state_of
from app.registry.builds.steps import BuildView
from app.registry.models import ArtifactRef
from app.registry.publication import Publication, publish
from app.storage import keys
from app.storage.bucket import FileDigest, KeyTaken, digest_of
from app.words import BuildState, FailureCode, StepName, Verdict
from worker.errors import StepFailed
from worker.steps.collect import Collect
from worker.steps.job import Benchmark, FileRef
from worker.steps.step import Output, Step, output_of
from worker.steps.validation import Validate
from worker.workbench import Workbench

_LOG_BLOCK = 4 << 20


class Published(Output):
    artifacts: dict[str, FileRef]
    metrics: dict[str, Any]
    verdict: Verdict
    verdict_reason: str


class Publish(Step[Published]):
    """Every artifact first, its digest checked; the record last: its presence says that all are there."""

    name: ClassVar = StepName.PUBLISH
    deadline: ClassVar = timedelta(hours=1)
    output: ClassVar = Published

    def act(self, build: BuildView, work: Workbench) -> Published:
        verdict = output_of(build, Validate)
        files = self._files(build, work)
        for name, (local, content) in files.items():
            work.check()
            self._put(build, work, name, local, content)
            there = work.clouds.bucket.head(keys.artifact_key(build.prefix, name))
            if there is None or (there.sha256, there.size_bytes) != (content.sha256, content.size_bytes):
                message = f"{name} is not in the bucket as it was written. Look into who else writes to it."
                raise StepFailed(FailureCode.CORRUPT_ARTIFACT, message)
        return Published(
            artifacts={
                name: FileRef(sha256=content.sha256, size_bytes=content.size_bytes)
                for name, (_, content) in files.items()
            },
            metrics=output_of(build, Benchmark).metrics,
            verdict=verdict.verdict,
            verdict_reason=verdict.reason,
        )

    def apply(self, session: Session, lease: Lease, output: Published) -> None:
        prefix = listing.get(session, lease.build_id).prefix
        artifacts = tuple(
            ArtifactRef(name, keys.artifact_key(prefix, name), file.sha256, file.size_bytes)
            for name, file in output.artifacts.items()
        )
        publication = Publication(artifacts, output.metrics, output.verdict, output.verdict_reason)
        publish(session, lease, publication)
        super().apply(session, lease, output)

    def tidy(self, build: BuildView, work: Workbench) -> None:
        for name in output_of(build, Collect).files:
            work.clouds.bucket.delete(keys.staged_key(build.id, name))

    def _files(self, build: BuildView, work: Workbench) -> dict[str, tuple[Path, FileDigest]]:
        """Every artifact on disk, with its digest."""
        files: dict[str, tuple[Path, FileDigest]] = {}
        collected = output_of(build, Collect).files
        for name, expected in collected.items():
            work.check()
            local = work.scratch / name
            content = work.clouds.bucket.download(keys.staged_key(build.id, name), local)
            if content.sha256 != expected.sha256:
                message = f"The staged {name} has the sha256 {content.sha256} instead of {expected.sha256}."
                raise StepFailed(FailureCode.CORRUPT_TRANSFER, message)
            files[name] = (local, content)
        config = work.scratch / keys.SEARCH_CONFIG
        config.write_text(build.search_config)
        local_statement = work.scratch / keys.PROVENANCE
        with work.transaction() as session:
            made = {name: content.sha256 for name, (_, content) in files.items()}
            statement = provenance.statement(session, build.id, made)
        local_statement.write_text(json.dumps(statement, indent=2, sort_keys=True) + "\n")
        packed_log = work.scratch / keys.BUILD_LOG
        self._write_log(build, work, packed_log)
        for local in (config, local_statement, packed_log):
            files[local.name] = (local, digest_of(local))
        return files

    def _write_log(self, build: BuildView, work: Workbench, to: Path) -> None:
        offset = 0
        # No time in the header: the same log gives the same bytes.
        with to.open("wb") as raw, gzip.GzipFile(fileobj=raw, mode="wb", filename="", mtime=0) as packed:
            while True:
                with work.transaction() as session:
                    block, _ = log.read(session, build.id, offset, _LOG_BLOCK)
                if not block:
                    return
                packed.write(block)
                offset += len(block)

    def _put(self, build: BuildView, work: Workbench, name: str, local: Path, content: FileDigest) -> None:
        """Into the prefix's place, over nothing but what an unpublished try left there."""
        bucket, key = work.clouds.bucket, keys.artifact_key(build.prefix, name)
        content_type = keys.CONTENT_TYPES[name]
        try:
            bucket.put_once(key, local, content, content_type=content_type, build_id=str(build.id))
        except KeyTaken as taken:
            if not self._is_leftover(build, work, taken.owner):
                message = (
                    f"The bucket has another {key}, which this registry did not publish. "
                    "Raise the version in search-config.toml, or move the object away."
                )
                raise StepFailed(FailureCode.PREFIX_TAKEN, message) from taken
            bucket.replace(key, local, content, content_type=content_type, build_id=str(build.id))

    def _is_leftover(self, build: BuildView, work: Workbench, owner: str | None) -> bool:
        """Whether the object is of this build, or of one of the same prefix that ended unpublished."""
        if owner is None:
            return False
        if owner == str(build.id):
            return True
        try:
            build_id = UUID(owner)
        except ValueError:
            return False
        with work.transaction() as session:
            state = state_of(session, build_id)
        return state in (BuildState.FAILED, BuildState.CANCELLED)
