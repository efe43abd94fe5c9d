"""Posts in any order, compared with the rules in a few lines; and posts through several processes at once."""

import itertools
import multiprocessing
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from uuid import UUID

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from app.db.session import Database
from app.registry.builds import requests
from app.registry.builds.requests import BuildRequest
from app.registry.errors import ConfigDiffers, InvalidConfig, PrefixCollision
from tests.integration.app.registry import Registry, config_of
from tests.machines import run_machine

# The first two share their first 7 digits.
SHAS = ["abcdef1" + "0" * 33, "abcdef1" + "1" * 33, "1234567" + "0" * 33]
# The first two have the same values.
LAYOUTS = ["{0}", "# A comment.\r\n{0}seed = 0\r\n", "{0}seed = 5\n"]


@dataclass
class Holder:
    """What has a prefix."""

    sha: str
    layout: int
    build: UUID | None
    active: bool


def test_any_order_of_posts_means_what_it_must(registry: Registry) -> None:
    database: Database = registry.database
    runs = itertools.count(1)

    class Posts(RuleBasedStateMachine):
        @initialize()
        def begin(self) -> None:
            # Every run has versions of its own, so that it begins with nothing.
            self.major = next(runs)
            self.holders: dict[tuple[int, str], Holder] = {}
            self.built: Counter[tuple[int, str]] = Counter()

        def version(self, minor: int) -> str:
            return f"{self.major}.{minor}.0"

        @rule(
            minor=st.integers(1, 2),
            sha=st.sampled_from(SHAS),
            layout=st.sampled_from(range(3)),
            base=st.sampled_from([None, "0.0.1", "same", "9999.0.0", "v1", "fatal: no such commit"]),
            force=st.booleans(),
            dry_run=st.booleans(),
        )
        def post(
            self, minor: int, sha: str, layout: int, base: str | None, force: bool, dry_run: bool
        ) -> None:
            version, prefix = self.version(minor), (minor, sha[:7])
            base = version if base == "same" else base
            base_text = base if base is None or " " in base else config_of(base)
            wanted = BuildRequest(
                sha,
                "main",
                LAYOUTS[layout].format(config_of(version)),
                base_text,
                force=force,
                dry_run=dry_run,
            )
            holder = self.holders.get(prefix)
            refusal: type[Exception] | None = None
            if base_text is not None and " " in str(base) and not force:
                refusal = InvalidConfig
            elif base in (version, "9999.0.0") and not force:
                expected = "not_needed"
            elif holder is None:
                expected = "needed" if dry_run else "queued"
            elif holder.sha != sha:
                refusal = PrefixCollision
            elif max(holder.layout, 1) != max(layout, 1):
                refusal = ConfigDiffers
            else:
                expected = "exists"
            if refusal is not None:
                with pytest.raises(refusal), database.transaction() as session:
                    requests.request(session, wanted)
                return
            with database.transaction() as session:
                answer = requests.request(session, wanted)
            assert answer.outcome == expected
            changed = base in (version, "9999.0.0") and layout == 2
            assert answer.changed_keys == (("seed",) if changed else ())
            assert (answer.base_problem is None) is (base not in ("v1", "fatal: no such commit"))
            if expected == "queued":
                assert answer.build is not None
                self.holders[prefix] = Holder(sha, layout, answer.build.id, active=True)
                self.built[prefix] += 1
            elif expected == "exists":
                assert holder is not None
                assert (None if answer.build is None else answer.build.id) == holder.build

        def active(self, number: int) -> tuple[tuple[int, str], Holder] | None:
            found = [item for item in self.holders.items() if item[1].active]
            return found[number % len(found)] if found else None

        @rule(number=st.integers(0, 5), cancelled=st.booleans())
        def end(self, number: int, cancelled: bool) -> None:
            if found := self.active(number):
                prefix, holder = found
                assert holder.build is not None
                registry.fail(holder.build)
                if cancelled:
                    registry.execute("UPDATE builds SET state = 'cancelled' WHERE id = :id", id=holder.build)
                del self.holders[prefix]

        @rule(number=st.integers(0, 5))
        def publish(self, number: int) -> None:
            if found := self.active(number):
                assert found[1].build is not None
                registry.publish(found[1].build)
                found[1].active = False

        @rule(minor=st.integers(1, 2), sha=st.sampled_from(SHAS))
        def adopt(self, minor: int, sha: str) -> None:
            prefix = (minor, sha[:7])
            if prefix not in self.holders:
                registry.execute(
                    "INSERT INTO models (prefix, version, sha, origin, search_config, metrics, verdict,"
                    " verdict_reason) VALUES (:version || '-' || left(:sha, 7), :version, :sha, 'imported',"
                    " :config, '{}', 'unknown', 'imported')",
                    version=self.version(minor),
                    sha=sha,
                    config=config_of(self.version(minor)),
                )
                self.holders[prefix] = Holder(sha, 0, None, active=False)

        @invariant()
        def every_build_has_its_job_and_its_first_event(self) -> None:
            ours = "prefix LIKE :major || '.%'"
            builds = registry.values(f"SELECT id FROM builds WHERE {ours}", major=str(self.major))
            assert len(builds) == sum(self.built.values())
            jobs = registry.values("SELECT (args->>'build_id')::uuid FROM procrastinate_jobs")
            first = registry.values("SELECT build_id FROM build_events WHERE data->>'state' = 'queued'")
            for build in builds:
                assert jobs.count(build) == first.count(build) == 1

    run_machine(Posts, examples=30, steps=20)


def posts_of_a_process(address: str) -> list[tuple[str, str]]:
    """Post the same commits as every other process; the outcomes, with the ids of the builds."""
    database = Database(address)
    found: list[tuple[str, str]] = []
    for number in range(40):
        with database.transaction() as session:
            wanted = BuildRequest(f"{number:07x}".ljust(40, "a"), "main", config_of("1.0.0"))
            answer = requests.request(session, wanted)
            assert answer.build is not None
            found.append((answer.outcome, str(answer.build.id)))
    database.close()
    return found


def test_several_processes_that_post_the_same_commits_make_one_build_of_each(registry: Registry) -> None:
    address = registry.database.conninfo
    with ProcessPoolExecutor(3, mp_context=multiprocessing.get_context("spawn")) as processes:
        answers = list(processes.map(posts_of_a_process, [address] * 3))
    for of_one_commit in zip(*answers, strict=True):
        outcomes = sorted(outcome for outcome, _ in of_one_commit)
        assert outcomes == ["exists", "exists", "queued"]
        assert len({build for _, build in of_one_commit}) == 1
    assert registry.count("builds") == registry.count("procrastinate_jobs") == 40
