"""What garbage collection must keep, said again in other words, so that the policy is compared with it.

It reads the tables, and asks git by itself. It shares no code with the policy, with the plan, or with the
worker's look at the branches.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from fnmatch import fnmatch
from typing import Any
from uuid import UUID

from sqlalchemy import text

from tests.integration.app.registry import Registry
from tests.integration.bare_repository import Repository

MINIMUM_AGE = timedelta(days=10)
GRACE = timedelta(days=7)
RETRY_WINDOW = timedelta(days=2)
RETIRE_AFTER = timedelta(days=20)
ROLLBACK_TARGETS = 2
BOTS = "dependabot/*"

# Why a model is kept at the moment, although it may go as soon as more is known.
NOT_KNOWN = {"the branches are not known", "its commit was never seen"}

# Every time that is recorded. To let days pass, all of them are moved into the past.
TIMES = {
    "models": ("published_at", "marked_at", "restored_at", "collected_at", "pinned_at", "released_at"),
    "promotions": ("promoted_at",),
    "builds": ("created_at", "started_at", "finished_at"),
    "inputs": ("recorded_at", "stored_at", "upload_begun_at", "sweeping_at", "collected_at"),
    "git_repository": ("fetched_at", "attempted_at"),
}

Row = Mapping[str, Any]


@dataclass
class Seen:
    """What the last look at the git repository must have found."""

    branches: set[str] = field(default_factory=set)
    # Every name that the main branch had at some look.
    mains: set[str] = field(default_factory=set)
    # The commits that are a branch's own. A model's may be in short.
    own: set[str] = field(default_factory=set)
    # The models whose commits were there at some look.
    known: set[str] = field(default_factory=set)

    def look(self, repository: Repository, models: Iterable[Row]) -> None:
        listed = repository.git("for-each-ref", "--format=%(refname:lstrip=2)", "refs/heads").splitlines()
        self.branches = {name for name in listed if not fnmatch(name, BOTS)}
        main = repository.main
        self.mains.add(main)
        line = repository.git("rev-list", "--first-parent", main).splitlines()
        self.own = set()
        for branch in self.branches - {main}:
            # What it has, without what the main branch had where it left.
            has = repository.git("rev-list", branch).splitlines()
            left_at = next((commit for commit in line if commit in set(has)), None)
            inherited = [] if left_at is None else repository.git("rev-list", left_at).splitlines()
            self.own |= set(has) - set(inherited)
        everything = repository.git("rev-list", "--all").splitlines()
        for model in models:
            if any(commit.startswith(model["sha"]) for commit in everything):
                self.known.add(model["prefix"])

    def holds(self, sha: str) -> bool:
        return any(commit.startswith(sha) for commit in self.own)


def rows(registry: Registry, sql: str) -> list[Row]:
    with registry.database.engine.connect() as connection:
        return [dict(row) for row in connection.execute(text(sql)).mappings()]


def models(registry: Registry) -> list[Row]:
    """All models, oldest first."""
    return rows(registry, "SELECT * FROM models ORDER BY published_at, id")


def reasons(registry: Registry, seen: Seen) -> dict[str, set[str]]:
    """Why each model whose files are there must be kept. What has no reason may go."""
    now: datetime = registry.value("SELECT clock_timestamp()")
    there = [model for model in models(registry) if model["state"] in ("kept", "marked")]
    found: dict[str, set[str]] = {model["prefix"]: set() for model in there}
    fetched_at = registry.value("SELECT max(fetched_at) FROM git_repository")
    for model in there:
        why = found[model["prefix"]]
        if fetched_at is None or fetched_at < now - timedelta(hours=1):
            why.add("the branches are not known")
        else:
            if model["branch"] in seen.branches:
                why.add("its branch exists")
            if model["branch"] in seen.mains:
                why.add("the main branch had the name of its branch")
            if seen.holds(model["sha"]) and model["prefix"] in seen.known:
                why.add("a branch has its commit")
            if model["prefix"] not in seen.known:
                why.add("its commit was never seen")
        if model["pinned_at"] is not None:
            why.add("it is pinned")
        if max(model["published_at"], model["restored_at"] or model["published_at"]) > now - MINIMUM_AGE:
            why.add("it is young, or was restored lately")
    for prefix, reason in (*_of_stages(registry, there, now), *_of_builds(registry, there, now)):
        if prefix in found:
            found[prefix].add(reason)
    return found


def _of_stages(registry: Registry, there: list[Row], now: datetime) -> Iterable[tuple[str, str]]:
    # What a rule gave holds as long as the rule does.
    released = {model["prefix"]: model["released_at"] for model in there if not model["released_by_rule"]}
    patterns = registry.values("SELECT branches FROM release_rules WHERE revoked_at IS NULL")
    by_rule = {
        model["prefix"]
        for model in there
        if model["branch"] is not None and any(fnmatch(model["branch"], pattern) for pattern in patterns)
    }
    for stage in ("development", "staging", "production"):
        history = rows(
            registry,
            "SELECT prefix, promoted_at FROM promotions JOIN models ON models.id = model_id"
            f" WHERE stage = '{stage}' ORDER BY promoted_at, promotions.id",
        )
        if history:
            yield history[-1]["prefix"], f"{stage} runs it"
        if stage == "development":
            continue
        last = {row["prefix"]: number for number, row in enumerate(history)}
        for number in sorted(last.values(), reverse=True)[:ROLLBACK_TARGETS]:
            yield history[number]["prefix"], f"{stage} can go back to it"
        for prefix, number in last.items():
            if number + 1 < len(history) and history[number + 1]["promoted_at"] > now - RETIRE_AFTER:
                yield prefix, f"{stage} ran it lately"
            let_go = released.get(prefix)
            is_released = let_go is not None and let_go > history[number]["promoted_at"]
            if not is_released and prefix not in by_rule:
                yield prefix, f"it was in {stage}, and nobody has released it"


def _of_builds(registry: Registry, there: list[Row], now: datetime) -> Iterable[tuple[str, str]]:
    for build in rows(registry, "SELECT prefix, state, finished_at FROM builds"):
        if build["finished_at"] is None:
            yield build["prefix"], "a build of it is active"
        elif build["state"] != "succeeded" and build["finished_at"] > now - RETRY_WINDOW:
            yield build["prefix"], "a build of it can be retried"
    production = registry.values(
        "SELECT prefix FROM promotions JOIN models ON models.id = model_id WHERE stage = 'production'"
        " ORDER BY promoted_at DESC, promotions.id DESC LIMIT 1"
    )
    passed = [row["prefix"] for row in there if (row["verdict"], row["state"]) == ("passed", "kept")]
    for prefix in production or passed[-1:]:
        yield prefix, "new models are compared with it"


def needed_inputs(registry: Registry) -> set[str]:
    """The digests of the contents that must be in the bucket."""
    # All times were moved together, so the database's own clock says what is recent.
    recent = f"> clock_timestamp() - interval '{RETRY_WINDOW.days} days'"
    found = set(
        registry.values(
            f"""
            SELECT sha256 FROM inputs
             WHERE sweeping_at IS NULL AND greatest(recorded_at, upload_begun_at, stored_at) {recent}
            UNION SELECT sha256 FROM build_inputs JOIN builds ON builds.id = build_id
             WHERE finished_at IS NULL OR finished_at {recent}
            UNION SELECT sha256 FROM build_inputs JOIN models USING (build_id)
             WHERE models.state IN ('kept', 'marked')
            UNION SELECT sha256 FROM build_inputs JOIN inputs USING (sha256) JOIN models USING (build_id)
             JOIN builds ON reproduces = models.id
             WHERE sweeping_at IS NULL AND finished_at IS NULL
            """
        )
    )
    for build in registry.values("SELECT id FROM builds WHERE finished_at IS NULL"):
        for repeated in repeated_by(registry, build):
            found |= set(
                registry.values(
                    "SELECT sha256 FROM build_inputs JOIN inputs USING (sha256)"
                    " WHERE build_id = :id AND sweeping_at IS NULL",
                    id=repeated,
                )
            )
    return found


def repeatable(registry: Registry) -> set[str]:
    """The builds that have failed or were cancelled and can be repeated, with the files that they left."""
    return {
        str(build)
        for build in registry.values(
            "SELECT id FROM builds WHERE kind = 'train' AND finished_at IS NOT NULL AND state <> 'succeeded'"
            " AND finished_at > now() - :window",
            window=RETRY_WINDOW,
        )
    }


def repeated_by(registry: Registry, build: UUID) -> set[UUID]:
    """What the build repeats, and what that has repeated."""
    found = set[UUID]()
    earlier: UUID | None = build
    while earlier := registry.value("SELECT retry_of FROM builds WHERE id = :id", id=earlier):
        found.add(earlier)
    return found


def states(registry: Registry) -> dict[str, str]:
    return {model["prefix"]: model["state"] for model in models(registry)}


def expected_states(registry: Registry, seen: Seen) -> dict[str, str]:
    """The states of the models after a whole collection at this moment."""
    why = reasons(registry, seen)
    due = set(
        registry.values(
            "SELECT prefix FROM models WHERE state = 'marked' AND marked_at < now() - :grace", grace=GRACE
        )
    )
    expected = {}
    for prefix, state in states(registry).items():
        if state in ("sweeping", "collected"):
            expected[prefix] = "collected"
        elif not why[prefix]:
            expected[prefix] = "collected" if prefix in due else "marked"
        elif state == "marked" and why[prefix] <= NOT_KNOWN:
            expected[prefix] = "marked"
        else:
            expected[prefix] = "kept"
    return expected


def move_into_the_past(registry: Registry, span: timedelta) -> None:
    """Let time pass, by moving all that has happened."""
    with registry.database.engine.begin() as connection:
        # Without the triggers, which refuse to change what has happened.
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        for table, columns in TIMES.items():
            moved = ", ".join(f"{column} = {column} - :span" for column in columns)
            connection.execute(text(f"UPDATE {table} SET {moved}"), {"span": span})
