"""The workflows for GitHub Actions: each job's steps in a real bash, against a live registry."""

import hashlib
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from sqlalchemy import text

from app.db.session import Database
from app.registry.access import publishers
from app.registry.access.callers import Caller
from app.registry.access.publishers import PublisherRequest
from app.settings import Settings, Token
from app.storage.bucket import Bucket
from app.words import Access, Scope, Stage, Verdict
from tests.github import JOB_TOKEN, REPOSITORY, GitHub
from tests.integration.app.registry import Registry
from tests.integration.app.serving import free_port, served
from tests.integration.worker.conftest import Flow
from tests.integration.worker.test_signing import finish
from tests.workflows import ROOT, Runner
from worker.runs.carrying import RunCarrier

Start = Callable[..., Runner]
WORKFLOWS = ROOT / ".github" / "workflows"
CONFIG = '# What the model is trained with.\nname = "small"\nversion = "{}"  # raise it\ndigits = 6\n'


@pytest.fixture
def registry(database: Database) -> Registry:
    return Registry(database)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with a branch that raises the version; `main` has 0.1.0."""
    bare, checkout = tmp_path / "remote.git", tmp_path / "checkout"
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", bare], check=True)
    subprocess.run(["git", "clone", "-q", bare, checkout], check=True, capture_output=True)
    git(checkout, "switch", "-q", "-c", "main")
    commit(checkout, CONFIG.format("0.1.0"))
    git(checkout, "switch", "-q", "-c", "more-data")
    commit(checkout, CONFIG.format("0.2.0"))
    git(checkout, "push", "-q", "origin", "main", "more-data")
    return bare


def rows(registry: Registry, statement: str) -> Sequence[Any]:
    with registry.database.transaction() as session:
        return session.execute(text(statement)).all()


def git(folder: Path, *arguments: str) -> str:
    who = ("-c", "user.name=Somebody", "-c", "user.email=somebody@example.org")
    done = subprocess.run(["git", "-C", folder, *who, *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def commit(checkout: Path, config: str) -> None:
    (checkout / "search-config.toml").write_text(config)
    git(checkout, "add", ".")
    git(checkout, "commit", "-q", "-m", "Change the configuration")


@pytest.fixture
def github(repository: Path) -> Iterator[GitHub]:
    github = GitHub(repository)
    yield github
    github.close()


@pytest.fixture
def url(settings: Settings, github: GitHub) -> Iterator[str]:
    """A registry in which the workflows of the repository are trusted."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    root = Token.parse(f"root={hashlib.sha256(b'r00t').hexdigest()}:{'+'.join(Scope)}")
    guarded = settings.model_copy(
        update={
            "access": Access.TOKENS,
            "api_tokens": (root,),
            "github_issuer": github.address,
            "github_audience": url,
        }
    )
    with served(guarded, port):
        yield url


def trust(registry: Registry, workflow: str, *scopes: Scope, **limits: str) -> None:
    wanted = PublisherRequest(workflow, 728113940, 9919, workflow, frozenset(scopes), **limits)
    with registry.database.transaction() as session:
        publishers.trust(session, Caller("root", frozenset(Scope)), wanted)


@pytest.fixture
def start(url: str, repository: Path, github: GitHub, tmp_path: Path) -> Start:
    """Run the only job of a workflow."""

    def run(name: str, contexts: dict[str, Any], folder: Path = WORKFLOWS) -> Runner:
        event = contexts.pop("event")
        ref = "refs/pull/1/merge" if event == "pull_request" else "refs/heads/main"
        github.of_job = {
            "event_name": event,
            "ref": ref,
            "job_workflow_ref": f"{REPOSITORY}/.github/workflows/{name}@{ref}",
            "environment": contexts.get("inputs", {}).get("stage"),
        }
        of_github = {"repository": REPOSITORY, "token": JOB_TOKEN} | contexts.pop("github", {})
        runner = Runner(
            repository,
            tmp_path / "runner",
            {
                "GITHUB_API_URL": github.address,
                "GITHUB_REPOSITORY": REPOSITORY,
                "ACTIONS_ID_TOKEN_REQUEST_URL": f"{github.address}/identity?api-version=2.0",
                "ACTIONS_ID_TOKEN_REQUEST_TOKEN": JOB_TOKEN,
            },
            {"github": of_github, "vars": {"REGISTRY_URL": url} | contexts.pop("vars", {}), **contexts},
        )
        file = folder / name
        [job] = yaml.safe_load(file.read_text("utf-8"))["jobs"]
        runner.run(file, job)
        return runner

    return run


@pytest.fixture
def worker(registry: Registry, settings: Settings) -> Iterator[list[Verdict | None]]:
    """Ends each build that is asked for: with a model of the next verdict here, or, for None, without one."""
    registry.bucket = Bucket.of(settings)
    verdicts: list[Verdict | None] = []
    stop = threading.Event()

    def work() -> None:
        while not stop.wait(0.1):
            for build_id in registry.values("SELECT id FROM builds WHERE state = 'queued'"):
                verdict = verdicts.pop(0)
                if verdict is None:
                    registry.fail(build_id)
                else:
                    registry.publish(build_id, verdict)

    thread = threading.Thread(target=work)
    thread.start()
    yield verdicts
    stop.set()
    thread.join(60)


def pull_request(github: GitHub, **changed: Any) -> dict[str, Any]:
    opened = github.open("More data", "more-data")
    head = {"sha": opened["head"]["sha"], "ref": "more-data", "repo": {"full_name": REPOSITORY}}
    event = {"pull_request": {"number": opened["number"], "head": head | changed, "base": {"ref": "main"}}}
    return {"event": "pull_request", "github": {"event": event, "head_ref": "more-data"}}


@pytest.mark.parametrize("folder", [WORKFLOWS, ROOT / "docs" / "examples"], ids=["ours", "example"])
def test_a_pull_request_gets_the_report_of_its_model(
    start: Start, registry: Registry, github: GitHub, worker: list[Verdict | None], folder: Path
) -> None:
    trust(registry, "model.yml", Scope.READ, Scope.BUILD, ref="refs/pull/*/merge")
    live = registry.model("0.0.9", stages=(Stage.DEVELOPMENT, Stage.STAGING, Stage.PRODUCTION))
    worker.append(Verdict.PASSED)
    event = pull_request(github)
    runner = start("model.yml", event, folder)
    assert runner.succeeded, runner.output
    sha = github.git("rev-parse", "refs/heads/more-data")
    [build] = rows(registry, "SELECT sha, branch, requested_by, prefix FROM builds WHERE version = '0.2.0'")
    # The head of the pull request, not a merge commit, at its own branch.
    assert (build.sha, build.branch) == (sha, "more-data")
    assert build.requested_by == f"{REPOSITORY}:model.yml:42.1"
    [comment] = github.comments.values()
    assert comment["number"] == 1
    assert f"### Model `0.2.0-{sha[:7]}`" in comment["body"]
    assert "**✅ passed**" in comment["body"]
    assert live in comment["body"]
    assert f"0.2.0-{sha[:7]}" in runner.summary


def test_a_model_that_does_not_pass_fails_the_job_and_is_reported_once(
    start: Start,
    registry: Registry,
    github: GitHub,
    worker: list[Verdict | None],
    tmp_path: Path,
) -> None:
    trust(registry, "model.yml", Scope.READ, Scope.BUILD, ref="refs/pull/*/merge")
    worker.append(Verdict.FAILED)
    event = pull_request(github)
    runner = start("model.yml", dict(event))
    assert [step.outcome for step in runner.ran] == ["success", "failure", "success"], runner.output
    assert "did not pass its validation" in runner.output
    (tmp_path / "runner").rename(tmp_path / "before")
    again = start("model.yml", dict(event))
    assert not again.succeeded
    [comment] = github.comments.values()
    assert "**❌ failed**" in comment["body"]


def test_a_build_that_fails_fails_the_job_and_says_why(
    start: Start,
    registry: Registry,
    github: GitHub,
    worker: list[Verdict | None],
) -> None:
    trust(registry, "model.yml", Scope.READ, Scope.BUILD, ref="refs/pull/*/merge")
    worker.append(None)
    runner = start("model.yml", pull_request(github))
    assert not runner.succeeded
    [comment] = github.comments.values()
    assert "out\\_of\\_memory" in comment["body"]


def test_without_a_rule_the_workflow_is_told_what_to_ask_for(
    start: Start, github: GitHub, registry: Registry
) -> None:
    runner = start("model.yml", pull_request(github))
    assert not runner.succeeded
    assert "POST /trusted-publishers" in runner.output
    assert registry.count("builds") == 0


def test_a_fork_builds_nothing(start: Start, github: GitHub, registry: Registry) -> None:
    event = pull_request(github, repo={"full_name": "somebody/tariff-models"})
    runner = start("model.yml", event)
    assert runner.ran == []
    assert registry.count("builds") == 0


@pytest.mark.parametrize("risen", [True, False])
def test_an_image_is_made_when_its_version_has_risen(
    start: Start, registry: Registry, repository: Path, tmp_path: Path, *, risen: bool
) -> None:
    trust(registry, "image.yml", Scope.READ, ref="refs/heads/main")
    checkout = tmp_path / "checkout"
    git(checkout, "switch", "-q", "main")
    for version in ("1.0.0", "1.0.1" if risen else "1.0.0 "):
        (checkout / ".packer").mkdir(exist_ok=True)
        (checkout / ".packer" / "ami-version.txt").write_text(version)
        git(checkout, "add", ".")
        git(checkout, "commit", "-q", "-m", "Change the image")
    git(checkout, "push", "-q", "origin", "main")
    # Packer itself needs AWS. What it is called with is what matters here.
    calls, packer = tmp_path / "calls", tmp_path / "runner" / "bin" / "packer"
    packer.parent.mkdir(parents=True)
    packer.write_text(f'#!/bin/sh\necho "$@" >> {calls}\n')
    packer.chmod(0o755)
    of_github = {"server_url": "https://github.com", "sha": "5" * 40}
    event = {"event": "push", "github": of_github, "vars": {"AWS_REGION": "eu-west-2", "PACKER_ROLE": "r"}}
    runner = start("image.yml", event)
    assert runner.succeeded, runner.output
    if not risen:
        assert not calls.exists()
        return
    init, build = calls.read_text().splitlines()
    assert init == "init .packer"
    assert f"-var training_repository=https://github.com/{REPOSITORY}" in build
    assert f"-var training_revision={'5' * 40} .packer" in build
    assert "1.0.1" in runner.summary


@pytest.mark.parametrize("on", ["true", ""])
def test_every_night_the_plan_is_shown_and_carried_out_if_that_is_switched_on(
    start: Start, registry: Registry, carrier: RunCarrier, on: str
) -> None:
    trust(registry, "clean-up.yml", Scope.READ, Scope.COLLECT, ref="refs/heads/main")
    kept = registry.model("1.0.0")
    stop = threading.Event()

    def work() -> None:
        while not stop.wait(0.1):
            for run_id in registry.values("SELECT id FROM runs WHERE state = 'queued'"):
                carrier.carry(run_id)

    thread = threading.Thread(target=work)
    thread.start()
    runner = start("clean-up.yml", {"event": "schedule", "vars": {"CLEAN_UP": on}})
    stop.set()
    thread.join(60)
    assert runner.succeeded, runner.output
    assert "may be deleted: 0 models" in runner.summary
    asked = rows(registry, "SELECT kind, options FROM runs ORDER BY created_at")
    assert [run.kind for run in asked] == ["collection", "image_cleaning"]
    assert [run.options["dry_run"] for run in asked] == [on != "true"] * 2
    assert registry.count("models", f"prefix = '{kept}' AND state = 'kept'") == 1


def deployment(stage: str) -> dict[str, Any]:
    return {"event": "workflow_dispatch", "inputs": {"stage": stage, "note": "it is better"}}


def test_a_deployment_verifies_hands_over_and_promotes(
    start: Start, trained: Flow, registry: Registry, tmp_path: Path
) -> None:
    prefix = finish(trained)
    registry.promote(prefix, Stage.DEVELOPMENT)
    registry.execute("UPDATE models SET verdict = 'passed'")
    trust(registry, "deploy.yml", Scope.READ, Scope.PROMOTE_STAGING, environment="staging")
    runner = start("deploy.yml", deployment("staging"))
    assert runner.succeeded, runner.output
    assert (tmp_path / "runner" / "model" / "model.zip").is_file()
    [promotion] = rows(registry, "SELECT note, promoted_by_kind FROM promotions WHERE stage = 'staging'")
    assert (promotion.note, promotion.promoted_by_kind) == ("it is better", "ci_workflow")
    assert f"Deploying {prefix} to staging" in runner.summary


def test_a_model_that_somebody_has_changed_is_not_deployed(
    start: Start, trained: Flow, registry: Registry, tmp_path: Path
) -> None:
    prefix = finish(trained)
    registry.promote(prefix, Stage.DEVELOPMENT)
    registry.execute("UPDATE models SET verdict = 'passed'")
    trust(registry, "deploy.yml", Scope.READ, Scope.PROMOTE_STAGING, environment="staging")
    trained.clouds.bucket.write(
        f"{prefix}/model.zip", b"another model", over=trained.clouds.bucket.head(f"{prefix}/model.zip")
    )
    runner = start("deploy.yml", deployment("staging"))
    outcomes = {step.name: step.outcome for step in runner.ran}
    assert (outcomes["Verify"], outcomes["Hand over"], outcomes["Promote"]) == (
        "failure",
        "skipped",
        "skipped",
    )
    assert not (tmp_path / "runner" / "model").exists()
    assert registry.count("promotions", "stage = 'staging'") == 0


@pytest.mark.parametrize(
    ("verdict", "merge", "state", "merged"),
    [
        (Verdict.PASSED, "true", "closed", True),
        (Verdict.PASSED, "", "open", False),
        (Verdict.FAILED, "true", "closed", False),
        (None, "true", "closed", False),
    ],
    ids=["passed", "for a person", "did not pass", "failed"],
)
def test_a_scheduled_build_is_proposed_and_settled(
    start: Start,
    registry: Registry,
    github: GitHub,
    worker: list[Verdict | None],
    *,
    verdict: Verdict | None,
    merge: str,
    state: str,
    merged: bool,
) -> None:
    trust(registry, "scheduled-model.yml", Scope.READ, Scope.BUILD, ref="refs/heads/main")
    github.git("branch", "scheduled-model/0.0.9", "main")
    github.open("Model 0.0.9", "scheduled-model/0.0.9")
    github.pull_requests[1]["created_at"] = (datetime.now(UTC) - timedelta(days=15)).isoformat()
    worker.append(verdict)
    runner = start(
        "scheduled-model.yml",
        {"event": "schedule", "vars": {"SCHEDULED_MODEL_MERGE": merge}},
    )
    assert runner.succeeded is (verdict is Verdict.PASSED), runner.output
    assert github.pull_requests[1]["state"] == "closed"
    proposed = github.pull_requests[2]
    assert (proposed["state"], proposed.get("merged", False)) == (state, merged)
    [build] = rows(registry, "SELECT version, branch FROM builds")
    assert (build.version, build.branch) == ("0.1.1", "scheduled-model/0.1.1")
    config = github.git("show", "main:search-config.toml") + "\n"
    assert config == CONFIG.format("0.1.1" if merged else "0.1.0")
    branches = github.git("branch", "--list", "scheduled-model/*").split()
    assert branches == (["scheduled-model/0.1.1"] if state == "open" else [])
