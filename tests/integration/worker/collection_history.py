"""The histories in which garbage collection is tried: a git repository, and what CI and the workers do.

Everything goes through the API and the worker's own functions. `test_collection_order.py` adds what people do
and the collections, and says what must hold.
"""

import hashlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar
from uuid import UUID

import psycopg
from fastapi.testclient import TestClient
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule
from pydantic import SecretStr

from app.db.session import Database
from app.registry import inputs
from app.registry.builds import ending
from app.registry.builds.lease import release
from app.registry.inputs import InputRecord
from app.settings import Settings
from app.storage import keys
from app.storage.bucket import Bucket
from app.words import BuildState, InputKind, Pinned, Stage, Verdict
from local.simcloud.server import SimCloud
from tests.databases import empty
from tests.integration.app.registry import Registry, config_of
from tests.integration.bare_repository import Repository
from tests.integration.objects import overwrite
from tests.integration.worker import collection_rules as rules
from tests.integration.worker.collection_rules import Seen
from tests.integration.worker.old_bucket import YEARS_AGO, put_model
from worker import mirror
from worker.branches.look import look
from worker.runs.carrying import RunCarrier

FEATURES = ("feature/a", "feature/b", "dependabot/c")
CONTENTS = {hashlib.sha256(each).hexdigest(): each for each in (b"one", b"two", b"three", b"four")}
A_MONTH = timedelta(days=31)

features = st.sampled_from(FEATURES)
numbers = st.integers(0, 20)
contents = st.sets(st.sampled_from(list(CONTENTS)), max_size=3)
# How a build goes on. One that ends later is active until then.
ends = st.sampled_from(["publish", "publish", "fail", "cancel", "later"])


@dataclass(frozen=True)
class World:
    """What all histories have in common."""

    settings: Settings
    database: Database
    registry: Registry
    bucket: Bucket
    api: TestClient
    carrier: RunCarrier
    cloud: SimCloud
    # Where the git repositories go, one for each history.
    folders: Iterator[Path]


@dataclass(frozen=True)
class Promised:
    """The contents that a build can rely on, and the builds whose unpublished files it can take over."""

    contents: set[str]
    unpublished: set[str] = field(default_factory=set)


def used_content(digest: str) -> InputRecord:
    return InputRecord(InputKind.RAW_DATA, digest[:5], digest, len(CONTENTS[digest]))


def problem(answer: Any) -> str:
    return str(answer.json()["type"].rpartition("/")[2])


class BranchHistory(RuleBasedStateMachine):
    """What happens in the git repository, and what the worker sees of it."""

    world: ClassVar[World]

    def _begin(self) -> None:
        with psycopg.connect(self.world.database.conninfo) as connection:
            empty(connection)
        for there in list(self.world.bucket.listed()):
            self.world.bucket.delete(there.key)
        self.repository = Repository(next(self.world.folders))
        remote = SecretStr(str(self.repository.folder))
        self.settings = self.world.settings.model_copy(update={"git_remote": remote})
        self.numbers = itertools.count()
        self.main = "main"
        # Each commit that was ever made, with the branch that it was made on.
        self.commits: list[tuple[str, str]] = []
        self.seen = Seen()
        self._commit(self.main)

    def _commit(self, branch: str, *others: str, on: str | None = None) -> None:
        if branch != self.main and on is None:
            on = self._head(self.main)
        message = f"commit {next(self.numbers)}"
        self.commits.append((branch, self.repository.commit(branch, *others, on=on, message=message)))

    def _head(self, branch: str) -> str | None:
        return self.repository.git("rev-parse", branch) if self.repository.has(branch) else None

    @rule(
        branch=features,
        how=st.sampled_from(["merge", "squash", "update", "force-push", "stack", "work"]),
        other=features,
        delete=st.booleans(),
    )
    def change_a_branch(self, branch: str, how: str, other: str, delete: bool) -> None:
        head = self._head(branch)
        match how:
            case "merge" if head is not None:
                self._commit(self.main, head)
            case "squash":
                self._commit(self.main)
            case "update" if head is not None:
                self._commit(branch, self.repository.git("rev-parse", self.main))
            case "force-push":
                self.repository.delete(branch)
                self._commit(branch, on=self.commits[0][1])
            case "stack":
                self._commit(branch, on=self._head(other))
            case _:
                self._commit(branch)
        if delete:
            self.repository.delete(branch)

    @rule(how=st.sampled_from(["rename", "force-push"]))
    def change_the_main_branch(self, how: str) -> None:
        if how == "rename":
            new = "trunk" if self.main == "main" else "main"
            self.repository.rename_main(self.main, new)
            self.main = new
        else:
            # Its newest commit is replaced by another one.
            _, *before = self.repository.git("rev-list", "--first-parent", self.main).splitlines()
            self.repository.delete(self.main)
            self._commit(self.main, on=before[0] if before else None)

    def _look(self) -> None:
        look(self.world.database, self.settings)
        assert self.world.registry.value("SELECT problem FROM git_repository") is None
        self.seen.look(self.repository, rules.models(self.world.registry))


class BuildHistory(BranchHistory):
    """What CI asks for, and how builds go on, publish, fail, are repeated and are reproduced."""

    def _begin(self) -> None:
        super()._begin()
        # What lies under each prefix as long as its model is kept or marked.
        self.files: dict[str, set[str]] = {}
        # What was there for each retry and reproduction when it was asked for. It stays until it has ended.
        self.promised: dict[UUID, Promised] = {}
        for branch in FEATURES:
            self._commit(branch)
            self._build(self.commits[-1], passed=False, used={next(iter(CONTENTS))})
        # Of an imported model no branch is known, so its commit alone keeps it.
        self.import_a_model(1, set(), passed=False)
        # The model of the bot's branch may go, and the others may as soon as their branches are gone.
        rules.move_into_the_past(self.world.registry, A_MONTH)
        # Only now, so that the branches are known from the first step on.
        self._look()

    @rule(number=numbers, passed=st.booleans(), used=contents, end=ends)
    def build(self, number: int, passed: bool, used: set[str], end: str) -> None:
        self._build(self.commits[-1 - number % len(self.commits)], passed, used, end)

    def _build(
        self,
        commit: tuple[str, str],
        passed: bool,
        used: set[str],
        end: str = "publish",
        *,
        patient: bool = True,
    ) -> None:
        branch, sha = commit
        prefix = f"1.0.0-{sha[:7]}"
        before = rules.states(self.world.registry).get(prefix)
        body = {"sha": sha, "branch": branch, "search_config": config_of("1.0.0")}
        answer = self.world.api.post("/builds", json=body)
        if before in ("sweeping", "collected"):
            assert (answer.status_code, problem(answer)) == (409, "prefix-collected")
        elif before is not None:
            # It is restored if it was marked.
            assert answer.status_code == 200
            assert rules.states(self.world.registry)[prefix] == "kept"
        else:
            build = UUID(answer.json()["build"]["id"])
            if answer.status_code == 202 and not self._use(build, used, patient=patient):
                end = "fail"
            self._end(build, Verdict.PASSED if passed else Verdict.FAILED, end)

    def _use(self, build: UUID, used: set[str], *, patient: bool = True) -> bool:
        """Keep its inputs, as the worker does. Without patience, it gives up where it would have to wait."""
        database, bucket, lease = self.world.database, self.world.bucket, self.world.registry.take(build)
        wait = None
        for digest in sorted(used):
            # What was swept a short while ago must not be put there again at once.
            for _ in range(2):
                with database.transaction() as session:
                    inputs.record(session, lease, [used_content(digest)])
                    wait = inputs.claim(session, lease, digest)
                if wait is None or not patient:
                    break
                self.world.registry.execute("UPDATE inputs SET sweeping_at = sweeping_at - interval '1 hour'")
            if wait is not None:
                assert not patient
                break
            overwrite(bucket, keys.input_key(digest), CONTENTS[digest])
            with database.transaction() as session:
                inputs.stored(session, lease, digest)
        with database.transaction() as session:
            release(session, lease)
        return wait is None

    def _end(self, build: UUID, verdict: Verdict, end: str) -> None:
        registry = self.world.registry
        reproduction = registry.value("SELECT kind FROM builds WHERE id = :id", id=build) == "reproduce"
        if end == "publish" and not reproduction:
            prefix = registry.publish(build, verdict, model_zip=10, provenance_json=5)
            mirror.drain(self.world.database, self.world.bucket)
            self.files[prefix] = {"model.zip", "provenance.json", str(verdict)}
        elif end != "later":
            # What it has collected. A build that publishes removes it.
            overwrite(self.world.bucket, f"unpublished/{build}/{'a' * 64}", b"weights")
            if end == "fail":
                registry.fail(build)
                return
            state = BuildState.CANCELLED if end == "cancel" else BuildState.SUCCEEDED
            lease = registry.take(build)
            with self.world.database.transaction() as session:
                ending.end(session, lease, state)

    @rule(verdict=st.sampled_from([Verdict.PASSED, Verdict.FAILED]), end=ends)
    def end_what_is_active(self, verdict: Verdict, end: str) -> None:
        for build in self.world.registry.values(
            "SELECT id FROM builds WHERE finished_at IS NULL ORDER BY created_at, id"
        ):
            self._end(build, verdict, end)

    @rule(number=numbers, passed=st.booleans(), end=ends)
    def retry(self, number: int, passed: bool, end: str) -> None:
        """CI or a person repeats a build that has failed."""
        failed = rules.rows(
            self.world.registry,
            "SELECT id, kind, prefix FROM builds WHERE state IN ('failed', 'cancelled')"
            " ORDER BY created_at DESC, id",
        )
        if not failed:
            return
        build = failed[number % len(failed)]
        before = rules.states(self.world.registry).get(build["prefix"])
        answer = self.world.api.post(f"/builds/{build['id']}/retry")
        match answer.status_code:
            case 202:
                assert (before, build["kind"]) == (None, "train")
                again = UUID(answer.json()["id"])
                earlier = {str(each) for each in rules.repeated_by(self.world.registry, again)}
                self.promised[again] = Promised(self._contents_of(*earlier), earlier & self._unpublished())
                self._end(again, Verdict.PASSED if passed else Verdict.FAILED, end)
            case 200:
                # The retry of before is active, or has made a model, which is restored if it was marked.
                assert answer.json()["retry_of"] == str(build["id"])
                assert rules.states(self.world.registry).get(build["prefix"], "kept") == "kept"
            case 409:
                gone = before in ("sweeping", "collected") and build["kind"] == "train"
                assert problem(answer) == ("prefix-collected" if gone else "retry-refused")
            case _:
                raise AssertionError(answer.text)

    @rule(number=numbers, uses=st.booleans(), end=ends)
    def reproduce(self, number: int, uses: bool, end: str) -> None:
        """Somebody wants a model to be made again, which may even be collected."""
        self._reproduce(self._any_model(number), uses, end)

    def _reproduce(self, prefix: str, uses: bool, end: str = "later") -> None:
        registry = self.world.registry
        made_by = registry.value("SELECT build_id FROM models WHERE prefix = :prefix", prefix=prefix)
        # The simulated history has neither commits nor images to pin.
        answer = self.world.api.post(f"/models/{prefix}/reproduce", json={"accept": list(Pinned)})
        if made_by is None:
            assert (answer.status_code, problem(answer)) == (409, "not-reproducible")
            return
        assert answer.status_code in (200, 202), answer.text
        if answer.status_code == 200:
            return
        build = UUID(answer.json()["id"])
        there = self._contents_of(made_by)
        self.promised[build] = Promised(there)
        if uses:
            registry.use(build, *map(used_content, sorted(there)))
        self._end(build, Verdict.UNKNOWN, end)

    def _contents_of(self, *builds: UUID | str) -> set[str]:
        """The contents that the builds used and that are not being deleted."""
        return set(
            self.world.registry.values(
                "SELECT sha256 FROM build_inputs JOIN inputs USING (sha256)"
                " WHERE build_id = ANY(CAST(:builds AS uuid[])) AND sweeping_at IS NULL",
                builds=[str(each) for each in builds],
            )
        )

    def _unpublished(self) -> set[str]:
        """The builds that have unpublished files."""
        return {key.split("/")[1] for key, _ in self.world.bucket.list("unpublished/")}

    def _promises(self) -> Promised:
        """What the builds that are active now can rely on."""
        active = self.world.registry.values("SELECT id FROM builds WHERE finished_at IS NULL")
        promised = [self.promised[each] for each in active if each in self.promised]
        return Promised(
            {each for one in promised for each in one.contents},
            {each for one in promised for each in one.unpublished},
        )

    def _any_model(self, number: int) -> str:
        prefixes = [model["prefix"] for model in rules.models(self.world.registry)]
        return str(prefixes[number % len(prefixes)])

    @rule(number=numbers, stages=st.sets(st.sampled_from(list(Stage))), passed=st.booleans())
    def import_a_model(self, number: int, stages: set[Stage], passed: bool) -> None:
        prefix = f"0.9.0-{self.commits[number % len(self.commits)][1][:7]}"
        if prefix not in self.files:
            at = YEARS_AGO + timedelta(hours=next(self.numbers))
            markers = {stage.value: at for stage in stages} | ({"passed": at} if passed else {})
            put_model(self.world.bucket, prefix, at=at, markers=markers)
            self.files[prefix] = {"model.zip", "search-config.toml", "benchmark_results.xml", *markers}
        run = self.world.api.post("/imports", json={}).json()["id"]
        self.world.carrier.carry(UUID(run))
        assert self.world.api.get(f"/runs/{run}").json()["state"] == "succeeded"
