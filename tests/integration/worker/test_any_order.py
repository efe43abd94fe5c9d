"""Posts, builds, promotions, rollbacks and imports in any order, compared with the rules in a few lines.

Everything goes through the API and the worker's own functions, over a real Postgres and the simulated S3.
After each step, what the stages run, their history and the whole bucket are compared.
"""

import itertools
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import psycopg
from fastapi.testclient import TestClient
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from app.db.session import Database
from app.words import Stage, Verdict
from tests.databases import empty
from tests.integration.app.registry import Registry, config_of, sha_of
from tests.integration.worker.old_bucket import put_model
from tests.machines import run_machine
from worker import mirror
from worker.clouds import Clouds
from worker.runs.carrying import RunCarrier

STAGES = list(Stage)
# Four prefixes: two versions, each of two commits.
PREFIXES = [(version, sha_of(number)) for version in ("1.0.0", "1.1.0") for number in (1, 2)]
YEAR_AGO = datetime(2025, 11, 1, 12, 0, tzinfo=UTC)

_prefixes = st.sampled_from(PREFIXES)
_stages = st.sampled_from(STAGES)


class Entry(NamedTuple):
    """A promotion. Promotions are ordered by their time."""

    at: str
    id: int
    prefix: str
    rollback: bool


@dataclass
class Known:
    """What the registry must know of a prefix."""

    build: str | None = None
    active: bool = False
    verdict: Verdict | None = None
    retry_of: str | None = None


@dataclass
class Expected:
    known: dict[str, Known] = field(default_factory=dict)
    # Builds that have failed or were cancelled, with their prefixes.
    ended: list[tuple[str, str]] = field(default_factory=list)
    # Prefixes of the bucket that no import has seen, and the times of their markers.
    unseen: dict[str, dict[Stage, datetime]] = field(default_factory=dict)
    history: dict[Stage, list[Entry]] = field(default_factory=lambda: {stage: [] for stage in Stage})
    # Every key of the bucket, once the outbox has been worked off.
    keys: set[str] = field(default_factory=set)

    def add(self, stage: Stage, entry: Entry) -> None:
        self.history[stage] = sorted([*self.history[stage], entry])
        self.keys.add(f"{entry.prefix}/{stage}")

    def runs(self, stage: Stage) -> str | None:
        return self.history[stage][-1].prefix if self.history[stage] else None

    def was_in(self, prefix: str, stage: Stage | None) -> bool:
        return stage is None or any(entry.prefix == prefix for entry in self.history[stage])

    def refuses(self, prefix: str, stage: Stage) -> bool:
        if stage.before is None:
            return False
        return self.known[prefix].verdict is not Verdict.PASSED or not self.was_in(prefix, stage.before)

    def goes_back_to(self, stage: Stage) -> str | None:
        entries = self.history[stage]
        current = entries[-1].prefix
        came = max(entry for entry in entries if entry.prefix == current and not entry.rollback)
        earlier = [entry for entry in entries if entry < came and entry.prefix != current]
        return earlier[-1].prefix if earlier else None


def prefix_of(version: str, sha: str) -> str:
    return f"{version}-{sha[:7]}"


def test_any_order_of_everything_means_what_it_must(
    database: Database, clients: Clouds, api: TestClient, carrier: RunCarrier
) -> None:
    registry = Registry(database, clients.bucket)
    bucket = clients.bucket

    class Everything(RuleBasedStateMachine):
        @initialize()
        def begin(self) -> None:
            with psycopg.connect(database.conninfo) as connection:
                empty(connection)
            for there in list(bucket.listed()):
                bucket.delete(there.key)
            self.expected = Expected()
            self.markers = itertools.count()

        # What CI does

        @rule(of=_prefixes, promote=st.booleans())
        def post(self, of: tuple[str, str], promote: bool) -> None:
            version, sha = of
            prefix = prefix_of(version, sha)
            body = {"sha": sha, "branch": "main", "search_config": config_of(version)}
            answer = api.post("/builds", json=body | ({"promote_to": "development"} if promote else {}))
            known = self.expected.known.get(prefix)
            assert answer.json()["prefix"] == prefix
            if known is not None:
                assert (answer.status_code, answer.json()["outcome"]) == (200, "exists")
                build = answer.json()["build"]
                assert (None if build is None else build["id"]) == known.build
                return
            assert (answer.status_code, answer.json()["outcome"]) == (202, "queued")
            self.expected.known[prefix] = Known(answer.json()["build"]["id"], active=True)

        # What the worker does

        def _active(self, number: int) -> tuple[str, Known] | None:
            found = [item for item in self.expected.known.items() if item[1].active]
            return found[number % len(found)] if found else None

        @rule(number=st.integers(0, 3), verdict=st.sampled_from([Verdict.PASSED, Verdict.FAILED]))
        def publish(self, number: int, verdict: Verdict) -> None:
            """A build in front of the prefix of another tool ends before anything is launched."""
            if not (found := self._active(number)):
                return
            prefix, known = found
            if prefix in self.expected.unseen:
                return
            build = registry.values("SELECT id FROM builds WHERE id = :id", id=known.build)[0]
            registry.publish(build, verdict)
            known.active, known.verdict = False, verdict
            self.expected.keys |= {f"{prefix}/model.zip", f"{prefix}/{verdict}"}
            for row in api.get(f"/models/{prefix}").json()["promotions"]:
                self._note(Stage(row["stage"]), row)

        @rule(number=st.integers(0, 3), cancel=st.booleans())
        def end(self, number: int, cancel: bool) -> None:
            if not (found := self._active(number)):
                return
            prefix, known = found
            if cancel:
                assert api.post(f"/builds/{known.build}/cancel").json()["state"] == "cancelled"
            else:
                registry.fail(registry.values("SELECT id FROM builds WHERE id = :id", id=known.build)[0])
            del self.expected.known[prefix]
            self.expected.ended.append((str(known.build), prefix))

        @rule(number=st.integers(0, 3))
        def retry(self, number: int) -> None:
            if not self.expected.ended:
                return
            build, prefix = self.expected.ended[number % len(self.expected.ended)]
            answer = api.post(f"/builds/{build}/retry")
            known = self.expected.known.get(prefix)
            if known is None:
                assert (answer.status_code, answer.json()["retry_of"]) == (202, build)
                self.expected.known[prefix] = Known(answer.json()["id"], active=True, retry_of=build)
            elif known.retry_of == build:
                assert (answer.status_code, answer.json()["id"]) == (200, known.build)
            else:
                assert (answer.status_code, answer.json()["reason"]) == (
                    409,
                    "prefix_held" if known.active else "model_exists",
                )

        @rule()
        def mirror_the_outbox(self) -> None:
            mirror.drain(database, bucket)

        # What people and the deploy job do

        def _note(self, stage: Stage, row: dict[str, Any]) -> None:
            entry = Entry(row["promoted_at"], row["id"], row["prefix"], row["rollback"])
            self.expected.add(stage, entry)

        @rule(of=_prefixes, stage=_stages, override=st.booleans(), expect=st.booleans())
        def promote(self, of: tuple[str, str], stage: Stage, override: bool, expect: bool) -> None:
            prefix = prefix_of(*of)
            current = self.expected.runs(stage)
            body: dict[str, Any] = {"stage": stage, "note": "a reason", "override": override}
            if expect and current is not None:
                body["expected"] = current
            answer = api.post(f"/models/{prefix}/promotions", json=body)
            known = self.expected.known.get(prefix)
            if known is None or known.verdict is None:
                assert answer.status_code == 404
            elif current == prefix:
                assert answer.status_code == 200
            elif self.expected.refuses(prefix, stage) and not override:
                assert (answer.status_code, answer.json()["type"].rpartition("/")[2]) == (409, "gate-refused")
            else:
                assert answer.status_code == 201
                assert answer.json()["override"] is self.expected.refuses(prefix, stage)
                self._note(stage, answer.json())

        @rule(stage=_stages, to=st.none() | _prefixes, repeated=st.booleans())
        def roll_back(self, stage: Stage, to: tuple[str, str] | None, repeated: bool) -> None:
            current = self.expected.runs(stage)
            if current is None:
                return
            target = self.expected.goes_back_to(stage) if to is None else prefix_of(*to)
            if target == current:
                return
            body = {"expected": current, "note": "a reason"} | ({} if to is None else {"to": target})
            answer = api.post(f"/stages/{stage}/rollback", json=body)
            if target is None or not self.expected.was_in(target, stage):
                assert answer.status_code in (404, 409)
                return
            assert (answer.status_code, answer.json()["prefix"]) == (201, target)
            self._note(stage, answer.json())
            if repeated:
                assert api.post(f"/stages/{stage}/rollback", json=body).status_code == 409

        @rule(of=_prefixes, verdict=st.sampled_from(list(Verdict)))
        def change_the_verdict(self, of: tuple[str, str], verdict: Verdict) -> None:
            prefix = prefix_of(*of)
            body = {"verdict": verdict, "reason": "a reason"}
            answer = api.post(f"/models/{prefix}/verdict", json=body)
            known = self.expected.known.get(prefix)
            if known is None or known.verdict is None:
                assert answer.status_code == 404
                return
            assert answer.status_code == 200
            if known.verdict is not verdict:
                known.verdict = verdict
                self.expected.keys -= {f"{prefix}/passed", f"{prefix}/failed"}
                if verdict is not Verdict.UNKNOWN:
                    self.expected.keys.add(f"{prefix}/{verdict}")

        # What came before

        @rule(of=_prefixes, stages=st.sets(_stages), passed=st.booleans())
        def another_tool_publishes(self, of: tuple[str, str], stages: set[Stage], passed: bool) -> None:
            prefix = prefix_of(*of)
            known = self.expected.known.get(prefix)
            if prefix in self.expected.unseen or (known is not None and not known.active):
                return
            times = {stage: YEAR_AGO + timedelta(hours=next(self.markers)) for stage in stages}
            markers = {stage.value: at for stage, at in times.items()} | (
                {"passed": YEAR_AGO} if passed else {}
            )
            config = {"search-config.toml": config_of(of[0]).encode()}
            put_model(bucket, prefix, at=YEAR_AGO, markers=markers, files=config)
            self.expected.unseen[prefix] = times
            files = ("model.zip", "search-config.toml", "benchmark_results.xml", *markers)
            self.expected.keys |= {f"{prefix}/{name}" for name in files}

        @rule()
        def import_what_is_there(self) -> None:
            run = api.post("/imports", json={}).json()
            carrier.carry(registry.values("SELECT id FROM runs WHERE id = :id", id=run["id"])[0])
            assert api.get(f"/runs/{run['id']}").json()["state"] == "succeeded"
            for prefix in list(self.expected.unseen):
                if prefix in self.expected.known:
                    # A build that was posted before has the prefix.
                    continue
                times = self.expected.unseen.pop(prefix)
                passed = f"{prefix}/passed" in self.expected.keys
                self.expected.known[prefix] = Known(verdict=Verdict.PASSED if passed else Verdict.UNKNOWN)
                rows = api.get(f"/models/{prefix}").json()["promotions"]
                assert {Stage(row["stage"]) for row in rows} == set(times)
                for row in rows:
                    stage = Stage(row["stage"])
                    assert datetime.fromisoformat(row["promoted_at"]) == times[stage]
                    self._note(stage, row)

        # What must hold

        @invariant()
        def each_stage_runs_the_last_promotion(self) -> None:
            for stage in STAGES:
                expected = self.expected.runs(stage)
                # An import commits in another process, as far as the API knows: its memory may be 100 ms old.
                for _ in range(500):
                    answer = api.get(f"/models/{stage}/latest")
                    found = answer.json()["prefix"] if answer.status_code == 200 else None
                    if found == expected:
                        break
                    time.sleep(0.02)
                assert found == expected

        @invariant()
        def history_is_the_record(self) -> None:
            for stage, entries in self.expected.history.items():
                items = api.get(f"/stages/{stage}/history", params={"limit": 200}).json()["items"]
                found = [(row["promoted_at"], row["id"], row["prefix"], row["rollback"]) for row in items]
                assert found == list(reversed(entries))

        @invariant()
        def models_are_those_that_were_published_or_imported(self) -> None:
            items = api.get("/models", params={"limit": 200}).json()["items"]
            expected = {
                prefix: known.verdict
                for prefix, known in self.expected.known.items()
                if known.verdict is not None
            }
            assert {row["prefix"]: row["verdict"] for row in items} == expected

        @invariant()
        def the_bucket_holds_what_it_should(self) -> None:
            there = {one.key for one in bucket.listed()}
            waiting = set(registry.values("SELECT key FROM outbox"))
            assert self.expected.keys ^ there <= waiting

        def teardown(self) -> None:
            mirror.drain(database, bucket)
            assert {one.key for one in bucket.listed()} == self.expected.keys

    run_machine(Everything, examples=10, steps=25)
