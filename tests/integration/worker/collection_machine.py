"""Collections among what CI, workers and people do, as a state machine of hypothesis, and what must hold.

Collections die at some call to S3 and are resumed later, are stopped, or something happens in the middle of
them. After each step, the plan is compared with the rules said in other words, and the bucket with what it
must still hold.
"""

import contextlib
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any
from uuid import UUID

from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, rule

from app.aws import CloudError
from app.storage import keys
from app.words import Stage
from tests.integration.worker import collection_rules as rules
from tests.integration.worker.collection_history import (
    A_MONTH,
    CONTENTS,
    FEATURES,
    BuildHistory,
    features,
    numbers,
)
from worker import mirror

A_WEEK = timedelta(days=8)
# How far a collection gets with a model.
WAYS = {"kept": 0, "marked": 1, "sweeping": 2, "collected": 3}
MARKERS = {"passed", "failed", *Stage}

_spans = st.sampled_from([A_WEEK, A_MONTH])
# The call to S3 at which the worker dies, or at which something else happens.
_moments = st.integers(0, 8)
_deaths = st.none() | _moments


class Collecting(BuildHistory):
    @initialize(deaths=st.tuples(_deaths, _deaths))
    def begin(self, deaths: tuple[int | None, ...]) -> None:
        # Those of the last two collections.
        self.deaths = deaths
        # The collection that has died, and goes on later.
        self.run: str | None = None
        self._begin()

    # What people do

    @rule(number=numbers, stage=st.sampled_from(list(Stage)))
    def promote(self, number: int, stage: Stage) -> None:
        self._promote(self._any_model(number), stage)

    def _promote(self, prefix: str, stage: Stage) -> None:
        before = rules.states(self.world.registry)[prefix]
        body = {"stage": stage, "note": "a reason", "override": True}
        answer = self.world.api.post(f"/models/{prefix}/promotions", json=body)
        assert answer.status_code in ((200, 201) if before == "kept" else (410,)), answer.text
        mirror.drain(self.world.database, self.world.bucket)
        if before == "kept":
            self.files[prefix].add(str(stage))

    @rule(number=numbers, what=st.sampled_from(["restore", "pin", "unpin", "release", "withdraw"]))
    def decide(self, number: int, what: str) -> None:
        self._decide(self._any_model(number), what)

    def _decide(self, prefix: str, what: str) -> None:
        api = self.world.api
        before = rules.states(self.world.registry)[prefix]
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
            assert rules.states(self.world.registry)[prefix] == "kept"

    @rule(branches=st.sampled_from(["feature/*", "*"]))
    def release_by_a_rule(self, branches: str) -> None:
        body = {"branches": branches, "reason": "a reason"}
        answer = self.world.api.post("/gc/release-rules", json=body)
        assert answer.status_code in (200, 201), answer.text

    @rule()
    def revoke_the_release_rules(self) -> None:
        for one in self.world.api.get("/gc/release-rules", params={"state": "active"}).json()["items"]:
            assert self.world.api.delete(f"/gc/release-rules/{one['id']}").json()["state"] == "revoked"
        for model in rules.models(self.world.registry):
            assert model["released_by_rule"] is None or model["state"] in ("sweeping", "collected")

    @rule(span=_spans, looked=st.booleans())
    def time_passes(self, span: timedelta, looked: bool) -> None:
        rules.move_into_the_past(self.world.registry, span)
        if looked:
            self._look()

    # Collections

    @rule(death=_deaths, lost=st.booleans())
    def collect(self, death: int | None, lost: bool) -> None:
        self._collect(death, lost)

    @rule(death=_deaths, gone=st.sets(features), span=_spans)
    def collect_later(self, death: int | None, gone: set[str], span: timedelta) -> None:
        """As most of them are: the branches are known, and what was marked before is due."""
        self._later(gone, span)
        self._collect(death)

    @rule(
        moment=_moments,
        what=st.sampled_from(["branch", "commit", "promote", "restore", "pin", "post", "reproduce", "build"]),
        number=numbers,
        gone=st.sets(features),
        span=_spans,
    )
    def collect_while_something_happens(
        self, moment: int, what: str, number: int, gone: set[str], span: timedelta
    ) -> None:
        """While a call to S3 waits for its answer, something happens, mostly to a model that is marked."""
        self._later(gone, span)
        states, needed = rules.states(self.world.registry), dict[str, set[str]]()
        run = self._ask_for_a_collection()
        fault = self.world.cloud.faults.add("s3", hang=True, skip=moment)
        with ThreadPoolExecutor(1) as thread:
            carried = thread.submit(self.world.carrier.carry, run)
            try:
                while not (fault.hits or carried.done()):
                    time.sleep(0.002)
                if fault.hits:
                    self._happen(what, number)
                    states = rules.states(self.world.registry)
                    needed = rules.reasons(self.world.registry, self.seen)
            finally:
                self.world.cloud.faults.remove(fault)
            carried.result()
        self._ended()
        after = rules.states(self.world.registry)
        for prefix, state in states.items():
            # What was kept has its grace period before it. What was marked goes only if nothing needs it.
            if state == "kept" or needed.get(prefix):
                assert after[prefix] in ("kept", "marked"), prefix

    def _happen(self, what: str, number: int) -> None:
        models = rules.models(self.world.registry)
        marked = [model for model in models if model["state"] == "marked"]
        chosen = (marked or models)[number % len(marked or models)]
        prefix, branch, sha = chosen["prefix"], chosen["branch"], chosen["sha"]
        match what:
            case "branch":
                # Somebody works on its branch again.
                if branch is not None and not self.repository.has(branch):
                    self._commit(branch)
                self._look()
            case "commit":
                # A branch of any name goes on from its commit.
                self.repository.delete("feature/a")
                self._commit("feature/a", on=self._whole(sha))
                self._look()
            case "promote":
                self._promote(prefix, list(Stage)[number % 3])
            case "restore" | "pin":
                self._decide(prefix, what)
            case "post":
                self._build((branch or self.main, self._whole(sha)), passed=True, used=set())
            case "reproduce":
                self._reproduce(prefix, uses=False)
            case "build":
                # For what is being deleted, it would have to wait until that is over.
                self._commit(self.main)
                self._build(self.commits[-1], False, set(CONTENTS), "later", patient=False)

    def _later(self, gone: set[str], span: timedelta) -> None:
        self.repository.delete(*sorted(gone))
        rules.move_into_the_past(self.world.registry, span)
        self._look()

    def _whole(self, sha: str) -> str:
        return next(each for _, each in self.commits if each.startswith(sha))

    def _ask_for_a_collection(self) -> UUID:
        """One that has died goes on."""
        if self.run is None:
            answer = self.world.api.post("/gc/runs", json={"dry_run": False})
            assert answer.status_code == 202, answer.text
            self.run = answer.json()["id"]
        return UUID(self.run)

    def _collect(self, death: int | None = None, lost: bool = False) -> None:
        """Begin a collection, or go on with one that has died. `death` is the call to S3 that fails."""
        registry, faults = self.world.registry, self.world.cloud.faults
        resumed = self.run is not None
        run = self._ask_for_a_collection()
        expected = rules.expected_states(registry, self.seen)
        before = rules.states(registry)
        with contextlib.ExitStack() as closing:
            if death is not None:
                fault = (
                    faults.add("s3", lose="answer", skip=death)
                    if lost
                    else faults.add("s3", code="AccessDenied", status=403, skip=death)
                )
                closing.callback(faults.remove, fault)
            with contextlib.suppress(CloudError):
                self.world.carrier.carry(run)
        registry.execute("UPDATE runs SET takings = 0")
        after = rules.states(registry)
        for prefix, state in after.items():
            if before[prefix] == "kept" or expected[prefix] != "kept":
                assert WAYS[before[prefix]] <= WAYS[state] <= WAYS[expected[prefix]], prefix
            else:
                # It lost its mark, or still has it, if the run has died or was past that phase.
                assert state in ("kept", "marked")
        if self.world.api.get(f"/runs/{run}").json()["state"] != "succeeded":
            assert death is not None
            return
        self._ended()
        if not resumed:
            assert after == expected
            assert {key for key, _ in self.world.bucket.list("inputs/")} == {
                keys.input_key(digest) for digest in rules.needed_inputs(registry)
            }
            assert self._unpublished() == rules.repeatable(registry) | self._promises().unpublished

    def _ended(self) -> None:
        """The collection has come to its end."""
        assert self.world.api.get(f"/runs/{self.run}").json()["state"] == "succeeded"
        self.run = None
        assert "sweeping" not in rules.states(self.world.registry).values()

    @rule()
    def try_a_collection_or_stop_it(self) -> None:
        api, registry, bucket = self.world.api, self.world.registry, self.world.bucket
        if self.run is not None:
            assert api.post(f"/runs/{self.run}/stop").json()["state"] == "stopped"
            self.run = None
            return
        before, there = rules.states(registry), list(bucket.listed())
        run = api.post("/gc/runs", json={}).json()["id"]
        self.world.carrier.carry(UUID(run))
        assert api.get(f"/runs/{run}").json()["state"] == "succeeded"
        assert (rules.states(registry), list(bucket.listed())) == (before, there)

    # What must hold

    @invariant()
    def the_plan_says_what_the_rules_say(self) -> None:
        plan = self.world.api.get("/gc/plan", params={"limit": 200}).json()["items"]
        why = rules.reasons(self.world.registry, self.seen)
        assert {one["prefix"]: one["verdict"] for one in plan} == {
            prefix: "kept" if reasons else "doomed" for prefix, reasons in why.items()
        }

    @invariant()
    def the_bucket_has_what_it_must(self) -> None:
        registry = self.world.registry
        there: dict[str, set[str]] = {}
        for one in self.world.bucket.listed():
            folder, _, name = one.key.rpartition("/")
            there.setdefault(folder, set()).add(name)
        for prefix, state in rules.states(registry).items():
            found = there.get(prefix, set())
            if state in ("kept", "marked"):
                assert found == self.files[prefix]
            elif state == "sweeping":
                assert found <= self.files[prefix]
                # The markers go last.
                assert found <= MARKERS or self.files[prefix] & MARKERS <= found
            else:
                assert found == set()
        contents = there.get("inputs/sha256", set())
        assert rules.needed_inputs(registry) <= contents
        promised = self._promises()
        assert promised.contents <= contents
        unpublished = {folder.split("/")[1] for folder in there if folder.startswith("unpublished/")}
        assert rules.repeatable(registry) | promised.unpublished <= unpublished

    @invariant()
    def what_runs_or_is_pinned_is_kept(self) -> None:
        states = rules.states(self.world.registry)
        for stage in Stage:
            answer = self.world.api.get(f"/models/{stage}/latest")
            if answer.status_code == 200:
                assert states[answer.json()["prefix"]] == "kept"
        for model in rules.models(self.world.registry):
            assert model["pinned_at"] is None or model["state"] in ("kept", "collected")

    def teardown(self) -> None:
        """Whatever has happened, the next nights collect what may go, and nothing else."""
        if self.run is not None:
            self._collect()
        self.repository.delete(*FEATURES)
        for death in self.deaths:
            rules.move_into_the_past(self.world.registry, A_MONTH)
            self._look()
            self._collect(death)
            if self.run is not None:
                self._collect()
        self.the_bucket_has_what_it_must()
