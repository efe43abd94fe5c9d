"""The branches of a real git repository, as the worker reads them, and what the plan makes of them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from app.db.session import Database
from app.registry.collection import plan
from app.settings import Settings
from app.words import Verdict
from tests.integration.app.registry import Registry, config_of
from tests.integration.bare_repository import Repository
from tests.integration.git_host import git_host
from worker.branches.look import look


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "classifier.git")


@pytest.fixture
def registry(database: Database) -> Registry:
    return Registry(database)


def settings_of(registry: Registry, remote: Repository | str | None, **more: Any) -> Settings:
    given = {
        "database_url": registry.database.conninfo,
        "git_remote": str(remote.folder) if isinstance(remote, Repository) else remote,
        "gc_minimum_age": "P0D",
        "gc_keep_newest_passed": 0,
        **more,
    }
    return Settings.model_validate(given)


def built(registry: Registry, branch: str, sha: str) -> str:
    return registry.publish(registry.queue("1.0.0", sha=sha, branch=branch), Verdict.FAILED)


def imported(registry: Registry, sha: str) -> str:
    prefix = f"0.9.0-{sha[:7]}"
    registry.execute(
        "INSERT INTO models (prefix, version, sha, origin, search_config, metrics, verdict, verdict_reason)"
        " VALUES (:p, '0.9.0', left(:s, 7), 'imported', :c, '{}', 'unknown', 'imported')",
        p=prefix,
        s=sha,
        c=config_of("0.9.0"),
    )
    return prefix


def reasons(registry: Registry, settings: Settings) -> Mapping[str, list[str]]:
    with registry.database.transaction() as session:
        found = plan.compute(session, settings)
    return {each.prefix: [str(reason) for reason in each.judgement.reasons] for each in found.models()}


def problem(registry: Registry) -> str:
    return str(registry.value("SELECT coalesce(problem, '') FROM git_repository"))


def test_a_branch_keeps_its_models_by_its_name_or_by_its_commits(
    registry: Registry, repository: Repository
) -> None:
    root = repository.commit("main")
    a = repository.commit("feature/a", on=root)
    b = repository.commit("feature/b", on=root)
    bot = repository.commit("dependabot/x", on=root)
    models = {
        "a": built(registry, "feature/a", a),
        "b": built(registry, "feature/b", b),
        "bot": built(registry, "dependabot/x", bot),
        "lost": built(registry, "feature/lost", "1" * 40),
        "a imported": imported(registry, a),
        "b imported": imported(registry, b),
        "main imported": imported(registry, root),
        "lost imported": imported(registry, "2" * 40),
    }
    settings = settings_of(registry, repository)

    def found() -> dict[str, list[str]]:
        look(registry.database, settings)
        assert problem(registry) == ""
        judged = reasons(registry, settings)
        return {name: judged[prefix] for name, prefix in models.items()}

    unseen = {"lost": ["commit_unknown"], "lost imported": ["commit_unknown"]}
    gone, on_none, held = ["branch_gone"], ["commit_on_no_branch"], ["commit_on_branch"]
    assert found() == {
        "a": ["branch_exists", "commit_on_branch"],
        "b": ["branch_exists", "commit_on_branch"],
        "bot": gone,
        "a imported": held,
        "b imported": held,
        "main imported": on_none,
        **unseen,
    }
    # One branch is renamed. The other one gets other commits by a force-push.
    repository.git("branch", "-m", "feature/a", "feature/renamed")
    repository.delete("feature/b")
    repository.commit("feature/b", on=root, message="rebased")
    assert found() == {
        "a": held,
        "b": ["branch_exists"],
        "bot": gone,
        "a imported": held,
        "b imported": on_none,
        "main imported": on_none,
        **unseen,
    }
    # One branch is merged and stays; the other one is squashed and deleted, and its commit is pruned.
    repository.commit("main", a)
    repository.delete("feature/b")
    repository.git("gc", "--quiet", "--prune=now")
    repository.commit("feature/later", on=repository.git("rev-parse", "main"))
    state = found()
    assert (state["a"], state["b"], state["a imported"], state["b imported"]) == (held, gone, held, on_none)
    # The merged one is deleted as well. The new branch has its commit only from the main branch.
    repository.delete("feature/renamed")
    state = found()
    assert (state["a"], state["a imported"]) == (gone, on_none)
    # The main branch gets another name, and its models do not lose their branch.
    models["main"] = built(registry, "main", repository.git("rev-parse", "main"))
    assert found()["main"] == ["branch_exists"]
    repository.git("branch", "-m", "main", "trunk")
    repository.git("symbolic-ref", "HEAD", "refs/heads/trunk")
    assert found()["main"] == ["former_main_branch"]
    # A branch of a deleted branch's name brings its models back to life.
    repository.commit("feature/b", on=root, message="another one")
    assert found()["b"] == ["branch_exists"]


def test_short_digits_that_fit_several_commits_name_none(registry: Registry, repository: Repository) -> None:
    root = repository.commit("main")
    prefix = imported(registry, root)
    settings = settings_of(registry, repository)
    look(registry.database, settings)
    assert reasons(registry, settings)[prefix] == ["commit_on_no_branch"]
    # Commits whose digits begin alike cannot be made here, so the model's digits are made shorter.
    first = repository.commit("main", message="0")
    number = 0
    while repository.git("rev-parse", "main")[0] != root[0]:
        number += 1
        repository.delete("main")
        repository.commit("main", on=first, message=str(number))
    repository.git("tag", "first", root)
    registry.execute("UPDATE models SET sha = left(sha, 1)")
    look(registry.database, settings)
    assert reasons(registry, settings)[prefix] == ["commit_unknown"]


def test_commits_that_hosts_keep_for_pull_requests_are_known(
    registry: Registry, repository: Repository
) -> None:
    root = repository.commit("main")
    squashed = repository.commit("feature/a", on=root)
    repository.git("update-ref", "refs/pull/7/head", squashed)
    repository.delete("feature/a")
    prefix = imported(registry, squashed)
    settings = settings_of(registry, repository)
    look(registry.database, settings)
    assert reasons(registry, settings)[prefix] == ["commit_on_no_branch"]


def test_a_repository_that_cannot_be_read_changes_nothing_and_in_time_dooms_nothing(
    registry: Registry, repository: Repository, tmp_path: Path
) -> None:
    root = repository.commit("main")
    sha = repository.commit("feature/a", on=root)
    prefix = built(registry, "feature/a", sha)
    settings = settings_of(registry, repository)
    look(registry.database, settings)
    repository.delete("feature/a")
    look(registry.database, settings)
    assert reasons(registry, settings)[prefix] == ["branch_gone"]
    before = registry.value("SELECT fetched_at FROM git_repository")

    empty = Repository(tmp_path / "empty.git")
    shallow = Repository(tmp_path / "shallow.git")
    repository.commit("main")
    shallow.git("fetch", "--quiet", "--depth=1", f"file://{repository.folder}", "main:main")
    no_head = Repository(tmp_path / "no-head.git")
    no_head.commit("trunk")
    for given, says in (
        (settings_of(registry, str(tmp_path / "nothing")), "git cannot read the repository"),
        (settings_of(registry, empty), "no branch at all"),
        (settings_of(registry, shallow), "shallow"),
        (settings_of(registry, no_head), "REGISTRY_GC_MAIN_BRANCH"),
        (settings_of(registry, repository, gc_main_branch="mian"), "no branch mian"),
        (settings_of(registry, None), "REGISTRY_GIT_REMOTE"),
        (settings_of(registry, None, code_repository=str(repository.folder)), "has no origin"),
    ):
        look(registry.database, given)
        assert says in problem(registry), problem(registry)
        assert registry.value("SELECT fetched_at FROM git_repository") == before
        assert registry.value("SELECT string_agg(name, ' ') FROM git_branches") == "main"
    assert reasons(registry, settings)[prefix] == ["branch_gone"]
    registry.execute("UPDATE git_repository SET fetched_at = fetched_at - interval '61 minutes'")
    assert reasons(registry, settings)[prefix] == ["branches_unknown"]
    look(registry.database, settings)
    assert problem(registry) == ""
    assert reasons(registry, settings)[prefix] == ["branch_gone"]


def test_what_was_seen_in_another_repository_says_nothing(
    registry: Registry, repository: Repository, tmp_path: Path
) -> None:
    root = repository.commit("main")
    sha = repository.commit("feature/a", on=root)
    prefix = built(registry, "feature/a", sha)
    settings = settings_of(registry, repository)
    look(registry.database, settings)
    other = Repository(tmp_path / "other.git")
    other.commit("main", message="something else")
    wrong = settings_of(registry, other)
    look(registry.database, wrong)
    assert reasons(registry, wrong)[prefix] == ["commit_unknown"]


def test_the_origin_of_the_code_repository_is_read_unless_another_one_is_named(
    registry: Registry, repository: Repository, tmp_path: Path
) -> None:
    repository.commit("main")
    checkout = Repository(tmp_path / "checkout.git")
    checkout.git("remote", "add", "origin", "../classifier.git")
    look(registry.database, settings_of(registry, None, code_repository=str(checkout.folder)))
    assert problem(registry) == ""
    assert registry.value("SELECT main_branch FROM git_repository") == "main"


def test_passwords_are_neither_stored_nor_logged(
    registry: Registry, repository: Repository, caplog: pytest.LogCaptureFixture
) -> None:
    sha = repository.commit("feature/a", on=repository.commit("main"))
    repository.git("config", "uploadpack.allowFilter", "true")
    prefix = built(registry, "feature/a", sha)
    lost = built(registry, "feature/a", "3" * 40)
    with git_host(repository.folder) as host:
        settings = settings_of(registry, host.url)
        look(registry.database, settings)
        assert problem(registry) == ""
        assert "commit_on_branch" in reasons(registry, settings)[prefix]
        assert "commit_unknown" in reasons(registry, settings)[lost]
        assert registry.value("SELECT remote FROM git_repository") == host.public_url
        # Nothing has changed, so the host is only asked for its branches.
        asked = host.requests
        look(registry.database, settings)
        assert host.requests - asked <= 4
        host.failures += [503] * 20
        look(registry.database, settings)
        assert "503" in problem(registry)
        wrong = settings_of(registry, host.url.replace(host.password, "hunter3-token"))
        host.failures.clear()
        look(registry.database, wrong)
        assert "git cannot read the repository" in problem(registry)
        stored = registry.value("SELECT git_repository::text FROM git_repository")
        assert "hunter" not in stored + caplog.text
