"""Brings the instance's clone of the training repository to the build's commit."""

import shlex
import subprocess
from datetime import timedelta
from pathlib import Path
from typing import ClassVar

from app.registry import inputs
from app.registry.builds.steps import BuildView
from app.registry.inputs import InputRecord
from app.words import FailureCode, InputKind, StepName
from worker.errors import StepFailed
from worker.remote import CommandFailed, Remote
from worker.steps.connection import ValidateConnection, connect
from worker.steps.machine import Machine
from worker.steps.step import Output, Step, output_of
from worker.workbench import Workbench

_GIT_S = 600


class Code(Output):
    """`commit` has all 40 digits. `origin` is the repository that the commit came from."""

    commit: str
    origin: str


class BringCode(Step[Code]):
    """Fetch the commit into the image's clone, and check it out into the build's own worktree."""

    name: ClassVar = StepName.BRING_CODE
    deadline: ClassVar = timedelta(minutes=20)
    output: ClassVar = Code

    def act(self, build: BuildView, work: Workbench) -> Code:
        remote = connect(build, work)
        machine = Machine(output_of(build, ValidateConnection).home)
        folder = machine.build(build.id)
        if not remote.is_folder(machine.clone):
            message = (
                f"The image has no clone of the training repository at {machine.clone}; "
                "see docs/training-machine.md."
            )
            raise StepFailed(FailureCode.INVALID_IMAGE, message)
        git = f"git -C {shlex.quote(machine.clone)}"
        remote.run(f"mkdir -p {shlex.quote(folder.path)}/inputs {shlex.quote(folder.output)}", timeout_s=60)
        origin = self._fetch(build, work, remote, git, folder.path)
        try:
            commit = remote.run(f"{git} rev-parse --verify {build.sha}^{{commit}}", timeout_s=60).strip()
        except CommandFailed as exc:
            message = f"The commit {build.sha} is not in {origin}. Push it, then post the build again."
            raise StepFailed(FailureCode.UNKNOWN_COMMIT, message) from exc
        worktree = shlex.quote(folder.repository)
        # A try that died halfway leaves a worktree that git knows only in part. Remove it and start again.
        remote.run(
            f"{git} worktree remove --force {worktree} 2>/dev/null; rm -rf {worktree}; "
            f"{git} worktree prune && {git} worktree add --force --detach {worktree} {commit}",
            timeout_s=_GIT_S,
        )
        with work.transaction() as session:
            code = InputRecord(InputKind.CODE, "training repository", origin=f"git+{origin}@{commit}")
            inputs.record(session, build.lease, [code])
        return Code(commit=commit, origin=origin)

    def _fetch(self, build: BuildView, work: Workbench, remote: Remote, git: str, folder: str) -> str:
        repository = work.settings.code_repository
        if repository is None:
            origin = remote.run(f"{git} remote get-url origin", timeout_s=60).strip()
            # A single commit can be fetched only by its full name. For a short one, fetch all branches.
            what = build.sha if len(build.sha) == 40 else "'+refs/heads/*:refs/remotes/origin/*'"
            try:
                remote.run(f"{git} fetch --quiet --no-tags origin {what}", timeout_s=_GIT_S)
            except CommandFailed as exc:
                message = f"The instance could not fetch {build.sha} from {origin}: {exc}"
                raise StepFailed(FailureCode.UNKNOWN_COMMIT, message) from exc
            return origin
        local = Path(repository)
        pack = work.scratch / "code.pack"
        commit = make_pack(local, build.sha, pack)
        target = f"{folder}/code.pack"
        remote.put_file(pack, target)
        # Mark the commit as the end of a shallow history. Otherwise git would look for its parents.
        remote.run(
            f"{git} index-pack --stdin <{shlex.quote(target)} && "
            f'shallow="$({git} rev-parse --path-format=absolute --git-path shallow)" && '
            f'{{ grep -qx {commit} "$shallow" 2>/dev/null || echo {commit} >>"$shallow"; }}',
            timeout_s=_GIT_S,
        )
        return local.resolve().as_uri()


def make_pack(repository: Path, sha: str, target: Path) -> str:
    """One commit with its files, without its history, as a pack; returns the whole commit. Raises StepFailed.

    Works from shallow clones too. Nothing is written into the repository: it may be somebody's checkout.
    """
    try:
        commit = _git(repository, "rev-parse", "--verify", f"{sha}^{{commit}}")
    except subprocess.CalledProcessError as exc:
        message = f"The commit {sha} is not in {repository}. Bring it there, then post the build again."
        raise StepFailed(FailureCode.UNKNOWN_COMMIT, message) from exc
    beside = target.with_suffix(".git")
    _git(repository, "init", "--quiet", "--bare", str(beside))
    common = Path(_git(repository, "rev-parse", "--path-format=absolute", "--git-common-dir"))
    # The new repository borrows the objects of the old one, so nothing is copied.
    (beside / "objects" / "info" / "alternates").write_text(f"{common / 'objects'}\n")
    (beside / "shallow").write_text(f"{commit}\n")
    with target.open("wb") as pack:
        subprocess.run(
            ["git", "-C", beside, "pack-objects", "--quiet", "--revs", "--stdout"],
            check=True,
            input=f"{commit}\n".encode(),
            stdout=pack,
            stderr=subprocess.PIPE,
        )
    return commit


def _git(folder: Path, *arguments: str) -> str:
    # safe.directory: in a container the checkout may belong to another user than the worker.
    done = subprocess.run(
        ["git", "-c", "safe.directory=*", "-C", folder, *arguments], check=True, capture_output=True
    )
    return done.stdout.decode().strip()
