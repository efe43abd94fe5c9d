"""What a build request takes from a git checkout."""

import subprocess
from pathlib import Path

import pytest

from cli.builds.checkout import Checkout, CheckoutError, config_at


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "init.defaultBranch=main"]
    done = subprocess.run(
        ["git", "-C", folder, *identity, *arguments], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    git(tmp_path, "init")
    (tmp_path / "search-config.toml").write_text('version = "0.0.1"\n')
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "first")
    git(tmp_path, "checkout", "-b", "feature/x")
    (tmp_path / "search-config.toml").write_text('version = "0.0.2"\n')
    git(tmp_path, "commit", "-am", "second")
    return tmp_path


def test_the_configuration_comes_from_the_commit_not_from_the_working_tree(repository: Path) -> None:
    (repository / "search-config.toml").write_text('version = "9.9.9"\n')
    (repository / "below").mkdir()
    checkout = Checkout.at(repository / "below")
    assert checkout.sha == git(repository, "rev-parse", "HEAD")
    assert checkout.branch == "feature/x"
    assert checkout.search_config == 'version = "0.0.2"\n'
    assert checkout.changed
    assert config_at(repository, "main") == 'version = "0.0.1"\n'


def test_ci_can_name_the_branch_of_a_detached_checkout(repository: Path) -> None:
    git(repository, "checkout", "--detach")
    assert Checkout.at(repository).branch == "HEAD"
    assert Checkout.at(repository, "feature/x").branch == "feature/x"


def test_a_folder_without_a_checkout_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckoutError, match="not in a git checkout"):
        Checkout.at(tmp_path)


def test_a_commit_without_a_configuration_is_refused(repository: Path) -> None:
    git(repository, "rm", "search-config.toml")
    git(repository, "commit", "-m", "third")
    with pytest.raises(CheckoutError, match=r"no search-config\.toml"):
        Checkout.at(repository)


def test_a_base_that_is_not_there_is_refused(repository: Path) -> None:
    with pytest.raises(CheckoutError, match="origin/main"):
        config_at(repository, "origin/main")
