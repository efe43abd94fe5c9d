"""The build's commit, and whether its own search-config.toml is the one that was posted."""

from app.failures import FailureCode
from app.registry.builds.steps import BuildView
from app.storage import keys
from training.config import differences
from worker.errors import StepFailed
from worker.machine import git
from worker.machine.git import Git, GitFailed, GitUnavailable, LocalGit, UnknownCommit
from worker.workbench import Workbench


def no_such_commit(sha: str, place: str, reason: str) -> StepFailed:
    code = FailureCode.UNKNOWN_COMMIT
    return StepFailed(code, f"The commit {sha} is not in {place}: {reason}. {code.advice}")


def found_commit(repository: LocalGit, sha: str) -> str:
    """The build's commit in the worker's own repository. Raises StepFailed, GitUnavailable."""
    try:
        return git.resolve(repository, sha)
    except UnknownCommit as exc:
        raise no_such_commit(sha, str(repository.folder), str(exc)) from exc
    except GitFailed as exc:
        message = f"git cannot read {repository.folder} (REGISTRY_CODE_REPOSITORY): {exc}"
        raise GitUnavailable(message) from exc


def differing_keys(build: BuildView, work: Workbench, repository: Git, commit: str) -> tuple[str, ...]:
    """The keys whose values at the commit are not those that were posted, for a build that was forced.

    A commit without the file says nothing about any key, so nothing differs. Raises StepFailed where values
    differ and the build was not forced, and GitUnavailable.
    """
    try:
        committed = git.file_at(repository, commit, keys.SEARCH_CONFIG)
    except GitFailed as exc:
        message = f"git cannot read {keys.SEARCH_CONFIG} at {commit}: {exc}"
        raise GitUnavailable(message) from exc
    if committed is None:
        work.log(f"The commit {commit} has no {keys.SEARCH_CONFIG}. The posted one is used.")
        return ()
    differing = tuple(one.key for one in differences(committed, build.search_config))
    if not differing:
        return ()
    what = f"The posted {keys.SEARCH_CONFIG} has other values than the file at {commit}: {_listed(differing)}"
    if not build.forced:
        code = FailureCode.CONFIG_DIFFERS_FROM_COMMIT
        raise StepFailed(code, f"{what}. {code.advice}")
    work.note(f"{what}. The build goes on because it was forced.")
    return differing


def _listed(names: tuple[str, ...]) -> str:
    shown = ", ".join(name[:100] for name in names[:20])
    return shown if len(names) <= 20 else f"{shown} and {len(names) - 20} more"
