"""A registry with builds and models in it, made through the same calls that the API and the worker make."""

import hashlib
import itertools
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Engine, event, text

from app.db.session import Database
from app.registry import inputs
from app.registry.builds import ending, listing, requests, steps
from app.registry.builds.lease import Lease, release, take
from app.registry.builds.requests import BuildRequest
from app.registry.builds.steps import Failure
from app.registry.inputs import InputRecord, Part
from app.registry.models.catalogue import ArtifactRef
from app.registry.publication import Publication, publish
from app.registry.stages import promotions
from app.registry.stages.promotions import PromotionRequest
from app.storage.bucket import Bucket
from app.storage.keys import artifact_key
from app.words import BuildState, Stage, StepName, Verdict

LEASE = timedelta(minutes=5)


def config_of(version: str) -> str:
    return f'name = "small"\nversion = "{version}"\ndigits = 6\n'


def sha_of(number: int) -> str:
    """A commit whose first 7 digits are the number's own."""
    return f"{number:07x}" + hashlib.sha256(str(number).encode()).hexdigest()[:33]


@dataclass
class Registry:
    """What is in the database, and short ways to put more there."""

    database: Database
    # Where published models put their files; None for tests that look at no file.
    bucket: Bucket | None = None
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(0xA000001))

    def body(self, version: str = "1.0.0", sha: str | None = None, **more: Any) -> dict[str, Any]:
        """A body for POST /builds."""
        sha = sha or sha_of(next(self._numbers))
        return {"sha": sha, "branch": "main", "search_config": config_of(version), **more}

    def queue(
        self,
        version: str = "1.0.0",
        sha: str | None = None,
        branch: str = "main",
        promote_to: Stage | None = None,
    ) -> UUID:
        """A queued build."""
        wanted = BuildRequest(
            sha or sha_of(next(self._numbers)), branch, config_of(version), promote_to=promote_to
        )
        with self.database.transaction() as session:
            answer = requests.request(session, wanted)
        assert answer.build is not None
        return answer.build.id

    def take(self, build_id: UUID, owner: str = "a worker", lease: timedelta = LEASE) -> Lease:
        with self.database.transaction() as session:
            taken = take(session, build_id, owner, lease)
        assert taken is not None
        return taken

    def use(self, build_id: UUID, *used: InputRecord, parts: Iterable[Part] | None = None) -> None:
        """Record inputs of a queued build, and the files in the first of them."""
        lease = self.take(build_id)
        with self.database.transaction() as session:
            inputs.record(session, lease, used)
            if parts is not None and used[0].sha256 is not None:
                inputs.record_parts(session, lease, used[0].sha256, parts)
            release(session, lease)

    def output(self, build_id: UUID, step: StepName, output: dict[str, Any]) -> None:
        """What a step of a queued build has stored at its end."""
        lease = self.take(build_id)
        with self.database.transaction() as session:
            steps.start(session, lease, step)
            steps.finish(session, lease, step, output)
            release(session, lease)

    def publish(self, build_id: UUID, verdict: Verdict = Verdict.PASSED, **sizes: int) -> str:
        """The build's model, with one artifact unless named otherwise; returns its prefix."""
        lease = self.take(build_id)
        with self.database.transaction() as session:
            prefix = listing.get(session, build_id).prefix
            steps.start(session, lease, StepName.PUBLISH)
            published = publication(prefix, verdict, **sizes)
            publish(session, lease, published)
            steps.finish(session, lease, StepName.PUBLISH, {})
            ending.end(session, lease, BuildState.SUCCEEDED)
        if self.bucket is not None:
            for file in published.artifacts:
                self.bucket.write(file.key, content_of(file.name, file.size_bytes), over=None)
        return prefix

    def model(
        self,
        version: str = "1.0.0",
        verdict: Verdict = Verdict.PASSED,
        branch: str = "main",
        stages: tuple[Stage, ...] = (),
    ) -> str:
        """A published model that was promoted to the stages; returns its prefix."""
        prefix = self.publish(self.queue(version, branch=branch), verdict)
        for stage in stages:
            self.promote(prefix, stage)
        return prefix

    def promote(self, prefix: str, stage: Stage, who: str = "someone") -> None:
        with self.database.transaction() as session:
            promotions.record(session, who, prefix, PromotionRequest(stage))

    def fail(self, build_id: UUID) -> None:
        lease = self.take(build_id)
        with self.database.transaction() as session:
            steps.fail(session, lease, Failure(StepName.TRAIN, "out_of_memory", "Take a larger machine."))
        with self.database.transaction() as session:
            ending.end(session, lease, BuildState.FAILED)

    def count(self, table: str, where: str = "true") -> int:
        return int(self.value(f"SELECT count(*) FROM {table} WHERE {where}"))

    def counts(self) -> dict[str, int]:
        """Rows of every table that a request can write to."""
        tables = (
            "builds",
            "build_events",
            "models",
            "artifacts",
            "promotions",
            "outbox",
            "runs",
            "tokens",
            "procrastinate_jobs",
        )
        return {table: self.count(table) for table in tables}

    def value(self, sql: str, **parameters: Any) -> Any:
        with self.database.engine.connect() as connection:
            return connection.execute(text(sql), parameters).scalar_one()

    def await_value(self, sql: str) -> None:
        """Wait until the query's value is true."""
        for _ in range(1000):
            if self.value(sql):
                return
            time.sleep(0.01)
        raise TimeoutError(sql)

    def values(self, sql: str, **parameters: Any) -> list[Any]:
        with self.database.engine.connect() as connection:
            return list(connection.execute(text(sql), parameters).scalars())

    def execute(self, sql: str, **parameters: Any) -> None:
        with self.database.engine.begin() as connection:
            connection.execute(text(sql), parameters)


def content_of(name: str, size: int) -> bytes:
    """What an artifact holds."""
    return name.encode().ljust(size, b".")[:size]


def digest_of(name: str, size: int) -> str:
    return hashlib.sha256(content_of(name, size)).hexdigest()


def publication(prefix: str, verdict: Verdict = Verdict.PASSED, **sizes: int) -> Publication:
    spelled = {"check_result_json": "check_result.json"}
    names = {spelled.get(name, name.replace("_", ".")): size for name, size in sizes.items()}
    names = names or {"model.zip": 10}
    return Publication(
        artifacts=tuple(
            ArtifactRef(name, artifact_key(prefix, name), digest_of(name, size), size)
            for name, size in names.items()
        ),
        metrics={"everyday": {"count": 200, "top_1": 0.62}},
        verdict=verdict,
        verdict_reason="everyday: top_1 62.0%, was 70.0%" if verdict == Verdict.FAILED else "better",
    )


class Statements:
    """Every statement that went to the database while it listened."""

    def __init__(self) -> None:
        self.seen: list[str] = []


@contextmanager
def listening(database: Database, engine: Engine | None = None) -> Iterator[Statements]:
    engine = engine or database.engine
    statements = Statements()

    def note(_c: object, _u: object, statement: str, *_: object) -> None:
        statements.seen.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    try:
        yield statements
    finally:
        event.remove(engine, "before_cursor_execute", note)
