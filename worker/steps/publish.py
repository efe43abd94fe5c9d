"""The model comes to exist: its files into their place, then its record, in one transaction."""

import gzip
import json
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar
from uuid import UUID

from sqlalchemy.orm import Session

from app.registry import builds, runs
from app.registry.models import ArtifactRef
from app.registry.runs import InputRecord, Lease, Publication, RunView
from app.storage import keys
from app.storage.bucket import FileDigest, KeyTaken, digest_of
from app.words import BuildState, StepName, Verdict
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

    def act(self, run: RunView, work: Workbench) -> Published:
        verdict = output_of(run, Validate)
        files = self._files(run, work)
        for name, (local, content) in files.items():
            work.check()
            self._put(run, work, name, local, content)
            there = work.cloud.bucket.head(keys.artifact_key(run.prefix, name))
            if there is None or (there.sha256, there.size_bytes) != (content.sha256, content.size_bytes):
                message = f"{name} is not in the bucket as it was written. Look into who else writes to it."
                raise StepFailed("corrupt_artifact", message)
        return Published(
            artifacts={
                name: FileRef(sha256=content.sha256, size_bytes=content.size_bytes)
                for name, (_, content) in files.items()
            },
            metrics=output_of(run, Benchmark).metrics,
            verdict=verdict.verdict,
            verdict_reason=verdict.reason,
        )

    def apply(self, session: Session, lease: Lease, output: Published) -> None:
        prefix = builds.get(session, lease.build_id).prefix
        artifacts = tuple(
            ArtifactRef(name, keys.artifact_key(prefix, name), file.sha256, file.size_bytes)
            for name, file in output.artifacts.items()
        )
        publication = Publication(artifacts, output.metrics, output.verdict, output.verdict_reason)
        runs.publish(session, lease, publication, output.model_dump(mode="json"))

    def tidy(self, run: RunView, work: Workbench) -> None:
        for name in output_of(run, Collect).files:
            work.cloud.bucket.delete(keys.staged_key(run.id, name))

    def _files(self, run: RunView, work: Workbench) -> dict[str, tuple[Path, FileDigest]]:
        """Every artifact on disk, with its digest."""
        files: dict[str, tuple[Path, FileDigest]] = {}
        collected = output_of(run, Collect).files
        for name, expected in collected.items():
            work.check()
            local = work.scratch / name
            content = work.cloud.bucket.download(keys.staged_key(run.id, name), local)
            if content.sha256 != expected.sha256:
                message = f"The staged {name} has the sha256 {content.sha256} instead of {expected.sha256}."
                raise StepFailed("corrupt_transfer", message)
            files[name] = (local, content)
        config = work.scratch / keys.SEARCH_CONFIG
        config.write_text(run.search_config)
        provenance = work.scratch / keys.PROVENANCE
        with work.transaction() as session:
            inputs = runs.inputs_of(session, run.id)
        statement = provenance_of(run, inputs, {name: content for name, (_, content) in files.items()})
        provenance.write_text(json.dumps(statement, indent=2, sort_keys=True) + "\n")
        log = work.scratch / keys.BUILD_LOG
        self._write_log(run, work, log)
        for local in (config, provenance, log):
            files[local.name] = (local, digest_of(local))
        return files

    def _write_log(self, run: RunView, work: Workbench, to: Path) -> None:
        offset = 0
        # No time in the header: the same log gives the same bytes.
        with to.open("wb") as raw, gzip.GzipFile(fileobj=raw, mode="wb", filename="", mtime=0) as packed:
            while True:
                with work.transaction() as session:
                    block, _ = builds.read_log(session, run.id, offset, _LOG_BLOCK)
                if not block:
                    return
                packed.write(block)
                offset += len(block)

    def _put(self, run: RunView, work: Workbench, name: str, local: Path, content: FileDigest) -> None:
        """Into the prefix's place, over nothing but what an unpublished try left there."""
        bucket, key = work.cloud.bucket, keys.artifact_key(run.prefix, name)
        content_type = keys.CONTENT_TYPES[name]
        try:
            bucket.put_once(key, local, content, content_type=content_type, build_id=str(run.id))
        except KeyTaken as taken:
            if not self._is_leftover(run, work, taken.owner):
                message = (
                    f"The bucket has another {key}, which this registry did not publish. "
                    "Raise the version in search-config.toml, or move the object away."
                )
                raise StepFailed("prefix_taken", message) from taken
            bucket.replace(key, local, content, content_type=content_type, build_id=str(run.id))

    def _is_leftover(self, run: RunView, work: Workbench, owner: str | None) -> bool:
        """Whether the object is of this build, or of one of the same prefix that ended unpublished."""
        if owner is None:
            return False
        if owner == str(run.id):
            return True
        try:
            build_id = UUID(owner)
        except ValueError:
            return False
        with work.transaction() as session:
            state = runs.state_of(session, build_id)
        return state in (BuildState.FAILED, BuildState.CANCELLED)


def provenance_of(run: RunView, inputs: list[InputRecord], made: dict[str, FileDigest]) -> dict[str, Any]:
    """What made the model: an in-toto Statement v1 with SLSA Provenance v1 as its predicate."""
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": name, "digest": {"sha256": made[name].sha256}} for name in sorted(made)],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": "urn:tariff-model-registry:build:v1",
                "externalParameters": {"prefix": run.prefix, "sha": run.sha, "branch": run.branch},
                "resolvedDependencies": [
                    {
                        "name": item.name,
                        "annotations": {"kind": item.kind},
                        **({"uri": item.origin} if item.origin else {}),
                        **({"digest": {"sha256": item.sha256}} if item.sha256 else {}),
                    }
                    for item in inputs
                ],
            },
            "runDetails": {
                "builder": {"id": "urn:tariff-model-registry:worker"},
                "metadata": {"invocationId": str(run.id), "startedOn": run.created_at.isoformat()},
            },
        },
    }
