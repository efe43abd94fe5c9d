"""Garbage collection among everything else that happens, in any order.

Builds, imports, promotions, decisions of people, and a git repository whose branches come and go; collections
that die at some call to S3 and are resumed later, or are stopped. Everything goes through the API and the
worker's own functions, over a real Postgres, the simulated S3 and a real git repository. After each step, the
plan is compared with the rules said in other words, and the bucket with what it must still hold.
"""

import contextlib
import hashlib
import itertools
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from fastapi.testclient import TestClient
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from pydantic import SecretStr

from app.aws import CloudError
from app.db.session import Database
from app.registry import inputs
from app.registry.builds.lease import release
from app.registry.inputs import InputRecord
from app.settings import Settings
from app.storage import keys
from app.words import InputKind, Stage, Verdict
from local.simcloud.server import SimCloud
from tests.databases import empty
from tests.integration.app.registry import Registry, config_of
from tests.integration.bare_repository import Repository
from tests.integration.objects import overwrite
from tests.integration.worker import collection_rules as rules
from tests.integration.worker.collection_rules import Seen
from tests.integration.worker.old_bucket import YEARS_AGO, put_model
from tests.machines import run_machine
from worker import mirror
from worker.branches.look import look
from worker.clouds import Clouds
from worker.runs.carrying import RunCarrier

FEATURES = ("feature/a", "feature/b", "dependabot/c")
CONTENTS = {hashlib.sha256(each).hexdigest(): each for each in (b"one", b"two", b"three")}
A_WEEK, A_MONTH = timedelta(days=8), timedelta(days=31)

_features = st.sampled_from(FEATURES)
_numbers = st.integers(0, 20)
_spans = st.sampled_from([A_WEEK, A_MONTH])
# The call to S3 at which the worker dies.
_deaths = st.none() | st.integers(0, 8)


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(
        update={
            "gc_minimum_age": rules.MINIMUM_AGE,
            "gc_keep_newest_passed": 0,
            "gc_grace": rules.GRACE,
            "gc_most_at_once": 1.0,
            "gc_retire_after": rules.RETIRE_AFTER,
            "gc_rollback_targets": rules.ROLLBACK_TARGETS,
            "gc_bot_branches": (rules.BOTS,),
            "retry_window": rules.RETRY_WINDOW,
        }
    )


@pytest.fixture
def machine(
    settings: Settings,
    database: Database,
    clients: Clouds,
    api: TestClient,
    carrier: RunCarrier,
    cloud: SimCloud,
    tmp_path: Path,
) -> type[RuleBasedStateMachine]:
    registry = Registry(database, clients.bucket)
    bucket = clients.bucket
    folders = (tmp_path / f"{number}.git" for number in itertools.count())

    class Collecting(RuleBasedStateMachine):
        @initialize(deaths=st.tuples(_deaths, _deaths))
        def begin(self, deaths: tuple[int | None, ...]) -> None:
            # Those of the last two collections.
            self.deaths = deaths
            with psycopg.connect(database.conninfo) as connection:
                empty(connection)
            for there in list(bucket.listed()):
                bucket.delete(there.key)
            self.repository = Repository(next(folders))
            self.settings = settings.model_copy(update={"git_remote": SecretStr(str(self.repository.folder))})
            self.numbers = itertools.count()
            # Each commit that was ever made, with the branch that it was made on.
            self.commits: list[tuple[str, str]] = []
            self.seen = Seen()
            # What lies under each prefix as long as its model is kept or marked.
            self.files: dict[str, set[str]] = {}
            # The collection that has died, and goes on later.
            self.run: str | None = None
            self._commit("main")
            for branch in FEATURES:
                self._commit(branch)
                self._build(self.commits[-1], passed=False, contents={next(iter(CONTENTS))})
            # Of an imported model no branch is known, so its commit alone keeps it.
            self.import_a_model(1, set(), passed=False)
            # The model of the bot's branch may go, and the others may as soon as their branches are gone.
            rules.move_into_the_past(registry, A_MONTH)
            # Only now, so that the branches are known from the first step on.
            self._look()

        # What happens in the git repository

        def _commit(self, branch: str, *others: str, on: str | None = None) -> None:
            if branch != "main" and on is None:
                on = self.repository.git("rev-parse", "main")
            message = f"commit {next(self.numbers)}"
            self.commits.append((branch, self.repository.commit(branch, *others, on=on, message=message)))

        def _head(self, branch: str) -> str | None:
            return self.repository.git("rev-parse", branch) if self.repository.has(branch) else None

        @rule(
            branch=_features,
            how=st.sampled_from(["merge", "squash", "update", "force-push", "stack", "work"]),
            other=_features,
            delete=st.booleans(),
        )
        def change_a_branch(self, branch: str, how: str, other: str, delete: bool) -> None:
            head = self._head(branch)
            match how:
                case "merge" if head is not None:
                    self._commit("main", head)
                case "squash":
                    self._commit("main")
                case "update" if head is not None:
                    self._commit(branch, self.repository.git("rev-parse", "main"))
                case "force-push":
                    self.repository.delete(branch)
                    self._commit(branch, on=self.commits[0][1])
                case "stack":
                    self._commit(branch, on=self._head(other))
                case _:
                    self._commit(branch)
            if delete:
                self.repository.delete(branch)

        def _look(self) -> None:
            look(database, self.settings)
            assert registry.value("SELECT problem FROM git_repository") is None
            self.seen.look(self.repository, rules.models(registry))

        # What CI and the worker do

        @rule(
            number=_numbers,
            passed=st.booleans(),
            contents=st.sets(st.sampled_from(list(CONTENTS))),
            end=st.sampled_from(["publish", "publish", "fail", "later"]),
        )
        def build(self, number: int, passed: bool, contents: set[str], end: str) -> None:
            self._build(self.commits[-1 - number % len(self.commits)], passed, contents, end)

        def _build(
            self, commit: tuple[str, str], passed: bool, contents: set[str], end: str = "publish"
        ) -> None:
            branch, sha = commit
            body = {"sha": sha, "branch": branch, "search_config": config_of("1.0.0")}
            prefix = f"1.0.0-{sha[:7]}"
            before = rules.states(registry).get(prefix)
            answer = api.post("/builds", json=body)
            if before in ("sweeping", "collected"):
                assert (answer.status_code, self._problem(answer)) == (409, "prefix-collected")
                return
            if before is not None:
                # It is restored if it was marked.
                assert (answer.status_code, rules.states(registry)[prefix]) == (200, "kept")
                return
            build = UUID(answer.json()["build"]["id"])
            if answer.status_code == 202:
                self._use(build, contents)
            self._end(build, Verdict.PASSED if passed else Verdict.FAILED, end)

        def _use(self, build: UUID, contents: set[str]) -> None:
            """As the worker keeps its inputs."""
            lease = registry.take(build)
            for digest in sorted(contents):
                used = InputRecord(InputKind.RAW_DATA, digest[:5], digest, len(CONTENTS[digest]))
                # What was swept a short while ago must not be put there again at once.
                for _ in range(2):
                    with database.transaction() as session:
                        inputs.record(session, lease, [used])
                        wait = inputs.claim(session, lease, digest)
                    if wait is None:
                        break
                    registry.execute("UPDATE inputs SET sweeping_at = sweeping_at - interval '1 hour'")
                assert wait is None
                overwrite(bucket, keys.input_key(digest), CONTENTS[digest])
                with database.transaction() as session:
                    inputs.stored(session, lease, digest)
            with database.transaction() as session:
                release(session, lease)

        def _end(self, build: UUID, verdict: Verdict, end: str) -> None:
            if end == "publish":
                prefix = registry.publish(build, verdict, model_zip=10, provenance_json=5)
                mirror.drain(database, bucket)
                self.files[prefix] = {"model.zip", "provenance.json", str(verdict)}
            elif end == "fail":
                overwrite(bucket, f"unpublished/{build}/{'a' * 64}", b"weights")
                registry.fail(build)

        @rule(verdict=st.sampled_from([Verdict.PASSED, Verdict.FAILED]), fail=st.booleans())
        def end_what_is_active(self, verdict: Verdict, fail: bool) -> None:
            for build in registry.values("SELECT id FROM builds WHERE finished_at IS NULL"):
                self._end(build, verdict, "fail" if fail else "publish")

        @rule(number=_numbers, stages=st.sets(st.sampled_from(list(Stage))), passed=st.booleans())
        def import_a_model(self, number: int, stages: set[Stage], passed: bool) -> None:
            prefix = f"0.9.0-{self.commits[number % len(self.commits)][1][:7]}"
            if prefix not in self.files:
                at = YEARS_AGO + timedelta(hours=next(self.numbers))
                markers = {stage.value: at for stage in stages} | ({"passed": at} if passed else {})
                put_model(bucket, prefix, at=at, markers=markers)
                self.files[prefix] = {
                    "model.zip",
                    "search-config.toml",
                    "benchmark_results.xml",
                    *markers,
                }
            run = api.post("/imports", json={}).json()["id"]
            carrier.carry(UUID(run))
            assert api.get(f"/runs/{run}").json()["state"] == "succeeded"

        # What people do

        def _any_model(self, number: int) -> str:
            prefixes = [model["prefix"] for model in rules.models(registry)]
            return str(prefixes[number % len(prefixes)])

        @rule(number=_numbers, stage=st.sampled_from(list(Stage)))
        def promote(self, number: int, stage: Stage) -> None:
            prefix = self._any_model(number)
            before = rules.states(registry)[prefix]
            body = {"stage": stage, "note": "a reason", "override": True}
            answer = api.post(f"/models/{prefix}/promotions", json=body)
            assert answer.status_code in ((200, 201) if before == "kept" else (410,)), answer.text
            mirror.drain(database, bucket)
            if before == "kept":
                self.files[prefix].add(str(stage))

        @rule(number=_numbers, what=st.sampled_from(["restore", "pin", "unpin", "release", "withdraw"]))
        def decide(self, number: int, what: str) -> None:
            prefix = self._any_model(number)
            before = rules.states(registry)[prefix]
            calls: dict[str, Callable[[], Any]] = {
                "restore": lambda: api.post(f"/models/{prefix}/restore"),
                "pin": lambda: api.post(f"/models/{prefix}/pin", json={"note": "a reason"}),
                "unpin": lambda: api.delete(f"/models/{prefix}/pin"),
                "release": lambda: api.post(f"/models/{prefix}/release", json={"reason": "a reason"}),
                "withdraw": lambda: api.delete(f"/models/{prefix}/release"),
            }
            answer = calls[what]()
            gone = before in ("sweeping", "collected")
            assert answer.status_code == (410 if gone and what != "unpin" else 200)
            if not gone and what in ("restore", "pin"):
                assert rules.states(registry)[prefix] == "kept"

        @rule(span=_spans, looked=st.booleans())
        def time_passes(self, span: timedelta, looked: bool) -> None:
            rules.move_into_the_past(registry, span)
            if looked:
                self._look()

        # Collections

        @rule(death=_deaths, lost=st.booleans())
        def collect(self, death: int | None, lost: bool) -> None:
            self._collect(death, lost)

        @rule(death=_deaths, gone=st.sets(_features), span=_spans)
        def collect_later(self, death: int | None, gone: set[str], span: timedelta) -> None:
            """As most of them are: the branches are known, and what was marked before is due."""
            self.repository.delete(*sorted(gone))
            rules.move_into_the_past(registry, span)
            self._look()
            self._collect(death)

        def _collect(self, death: int | None = None, lost: bool = False) -> None:
            """Begin a collection, or go on with one that has died. `death` is the call to S3 that fails."""
            resumed = self.run is not None
            if not resumed:
                answer = api.post("/gc/runs", json={"dry_run": False})
                assert answer.status_code == 202, answer.text
                self.run = answer.json()["id"]
            run = UUID(self.run)
            expected = rules.expected_states(registry, self.seen)
            before = rules.states(registry)
            with contextlib.ExitStack() as closing:
                if death is not None:
                    fault = (
                        cloud.faults.add("s3", lose="answer", skip=death)
                        if lost
                        else cloud.faults.add("s3", code="AccessDenied", status=403, skip=death)
                    )
                    closing.callback(cloud.faults.remove, fault)
                with contextlib.suppress(CloudError):
                    carrier.carry(run)
            registry.execute("UPDATE runs SET takings = 0")
            after = rules.states(registry)
            ways = {"kept": 0, "marked": 1, "sweeping": 2, "collected": 3}
            for prefix, state in after.items():
                if before[prefix] == "kept" or expected[prefix] != "kept":
                    assert ways[before[prefix]] <= ways[state] <= ways[expected[prefix]], prefix
                else:
                    # It lost its mark, or still has it, if the run has died or was past that phase.
                    assert state in ("kept", "marked")
            if api.get(f"/runs/{run}").json()["state"] != "succeeded":
                assert death is not None
                return
            self.run = None
            assert "sweeping" not in after.values()
            if not resumed:
                assert after == expected
                assert {key for key, _ in bucket.list("inputs/")} == {
                    keys.input_key(digest) for digest in rules.needed_inputs(registry)
                }
                assert self._unpublished() == rules.retriable(registry)

        @rule()
        def try_a_collection_or_stop_it(self) -> None:
            if self.run is not None:
                assert api.post(f"/runs/{self.run}/stop").json()["state"] == "stopped"
                self.run = None
                return
            before, there = rules.states(registry), list(bucket.listed())
            run = api.post("/gc/runs", json={}).json()["id"]
            carrier.carry(UUID(run))
            assert api.get(f"/runs/{run}").json()["state"] == "succeeded"
            assert (rules.states(registry), list(bucket.listed())) == (before, there)

        # What must hold

        @staticmethod
        def _problem(answer: Any) -> str:
            return str(answer.json()["type"].rpartition("/")[2])

        @staticmethod
        def _unpublished() -> set[str]:
            return {key.split("/")[1] for key, _ in bucket.list("unpublished/")}

        @invariant()
        def the_plan_says_what_the_rules_say(self) -> None:
            plan = api.get("/gc/plan", params={"limit": 200}).json()["items"]
            why = rules.reasons(registry, self.seen)
            assert {one["prefix"]: one["verdict"] for one in plan} == {
                prefix: "kept" if reasons else "doomed" for prefix, reasons in why.items()
            }

        @invariant()
        def the_bucket_has_what_it_must(self) -> None:
            there: dict[str, set[str]] = {}
            for one in bucket.listed():
                folder, _, name = one.key.rpartition("/")
                there.setdefault(folder, set()).add(name)
            for prefix, state in rules.states(registry).items():
                found = there.get(prefix, set())
                if state in ("kept", "marked"):
                    assert found == self.files[prefix]
                elif state == "sweeping":
                    assert found <= self.files[prefix]
                else:
                    assert found == set()
            for digest in rules.needed_inputs(registry):
                assert keys.input_key(digest).rpartition("/")[2] in there.get("inputs/sha256", set())
            assert rules.retriable(registry) <= self._unpublished()

        @invariant()
        def what_runs_or_is_pinned_is_kept(self) -> None:
            states = rules.states(registry)
            for stage in Stage:
                answer = api.get(f"/models/{stage}/latest")
                if answer.status_code == 200:
                    assert states[answer.json()["prefix"]] == "kept"
            for model in rules.models(registry):
                assert model["pinned_at"] is None or model["state"] in ("kept", "collected")

        def teardown(self) -> None:
            """Whatever has happened, the next nights collect what may go, and nothing else."""
            if self.run is not None:
                self._collect()
            self.repository.delete(*FEATURES)
            for death in self.deaths:
                rules.move_into_the_past(registry, A_MONTH)
                self._look()
                self._collect(death)
                if self.run is not None:
                    self._collect()
            self.the_bucket_has_what_it_must()

    return Collecting


def test_a_collection_deletes_what_may_go_and_nothing_else_whatever_happens(
    machine: type[RuleBasedStateMachine],
) -> None:
    run_machine(machine, examples=4, steps=10)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_collections_delete_what_may_go_and_nothing_else_whatever_happens_for_long(
    machine: type[RuleBasedStateMachine],
) -> None:
    run_machine(machine, examples=150, steps=40)
