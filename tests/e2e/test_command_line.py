"""`tariff-registry` as CI and the deploy job type it."""

import os
import subprocess
import sys
from pathlib import Path

import httpx

from local.stack import free_port
from tests.e2e.service import ROOT, Service, small_config


def repository(folder: Path, config: str) -> Path:
    (folder / "search-config.toml").write_text(config)
    subprocess.run(["git", "-C", folder, "init", "--quiet", "--initial-branch", "main"], check=True)
    commit(folder)
    return folder


def commit(folder: Path) -> None:
    subprocess.run(["git", "-C", folder, "add", "."], check=True)
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run(["git", "-C", folder, *identity, "commit", "--quiet", "-m", "a commit"], check=True)


def test_ci_is_told_that_no_model_is_needed(service: Service, tmp_path: Path) -> None:
    folder = repository(tmp_path, small_config())
    (folder / "README").write_text("no new version")
    commit(folder)
    needless = service.run("build", "--base", "HEAD~1", cwd=folder)
    assert needless.returncode == 0, needless.stderr
    assert "version_unchanged" in needless.stdout
    # With the commit itself as its base, no model would ever be built.
    mistaken = service.run("build", "--base", "main", cwd=folder)
    assert mistaken.returncode == 2
    assert "is the commit that is being built" in mistaken.stderr


def test_ci_is_told_that_the_version_should_have_been_raised(service: Service, tmp_path: Path) -> None:
    folder = repository(tmp_path, small_config())
    (folder / "search-config.toml").write_text(f"# A comment.\n{small_config()}seed = 1234\n")
    commit(folder)
    for arguments in (["--dry-run"], []):
        forgotten = service.run("build", "--base", "HEAD~1", *arguments, cwd=folder)
        assert forgotten.returncode == 2, forgotten.stderr
        assert "the version did not rise: seed." in forgotten.stderr
    allowed = service.run("build", "--base", "HEAD~1", "--allow-unchanged-version", cwd=folder)
    assert allowed.returncode == 0, allowed.stderr
    needed = service.run("build", "--dry-run", cwd=folder)
    assert "A model is needed" in needed.stdout
    assert httpx.get(f"{service.url}/builds").json()["items"] == []


def test_a_failed_build_fails_ci_and_shows_why(service: Service, tmp_path: Path) -> None:
    service.start_worker()
    folder = repository(tmp_path, small_config())
    failed = service.run("build", cwd=folder)
    assert failed.returncode == 1
    assert "unknown_commit" in failed.stdout
    assert "then post the build again" in failed.stdout
    # The end of its log.
    assert "[needs_model] started" in failed.stdout
    # The commit was looked up before anything was launched.
    assert service.cloud.instances(ended=True) == []


def test_the_exit_status_tells_a_fault_of_the_checkout_from_a_refusal(
    service: Service, tmp_path: Path
) -> None:
    outside = service.run("build", cwd=Path("/"))
    assert outside.returncode == 2
    assert "git checkout" in outside.stderr
    folder = repository(tmp_path, 'name = "x"\nversion = "one"\n')
    refused = service.run("build", cwd=folder)
    assert refused.returncode == 3
    assert "semantic version" in refused.stderr
    away = service.run("latest", "staging", REGISTRY_URL=f"http://127.0.0.1:{free_port()}")
    assert away.returncode == 3
    assert "does not answer" in away.stderr
    none = service.run("latest", "staging")
    assert none.returncode == 3
    assert "No model was ever promoted to staging" in none.stderr


def test_a_service_without_settings_says_which_it_needs() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"}
    for command in ("worker", "migrate"):
        done = subprocess.run(
            [sys.executable, "-m", "cli", command], cwd=ROOT, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 2
        assert "DATABASE_URL" in done.stderr
