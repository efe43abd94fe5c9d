"""The training code: the instance's clone is brought to the build's commit."""

import shlex
from datetime import timedelta
from pathlib import Path
from typing import ClassVar

from app.failures import FailureCode
from app.registry import inputs
from app.registry.builds.steps import BuildView
from app.registry.inputs import InputRecord
from app.registry.public import public_text, public_uri
from app.storage import keys
from app.storage.bucket import digest_of
from app.words import BuildKind, InputKind, StepName
from worker.errors import StepFailed
from worker.machine import git
from worker.machine.folders import BuildFolder, Machine
from worker.machine.git import GitFailed, GitUnavailable, LocalGit, RemoteGit, UnknownCommit
from worker.machine.remote import CommandFailed
from worker.machine.workspace import Workspace
from worker.steps.commit import differing_keys, found_commit, no_such_commit
from worker.steps.connection import ValidateConnection, workspace
from worker.steps.inputs import LIMIT_BYTES, download_pinned, keep_input
from worker.steps.needed import Needed
from worker.steps.pins import PinnedCode, pins_of
from worker.steps.step import Output, Step, output_of
from worker.workbench import Workbench

_GIT_S = 600

# What a git command that was cut off has left: locks, which would stop the next one, and halves of packs.
_TIDY = """\
common=$({git} rev-parse --path-format=absolute --git-common-dir) || exit
rm -f "$common"/*.lock "$common"/objects/pack/tmp_*
find "$common/refs" "$common/worktrees" -name '*.lock' -delete 2>/dev/null
"""


class Code(Output):
    """`commit` has all 40 digits; `origin` is where the code came from, without any credentials.

    `config_differs` names the keys whose values at that commit are not those that were posted; None where
    this was not compared here.
    """

    commit: str
    origin: str
    config_differs: tuple[str, ...] | None = None


class BringCode(Step[Code]):
    """Fetch the commit into the image's clone, and check it out into the build's own worktree."""

    name: ClassVar = StepName.BRING_CODE
    deadline: ClassVar = timedelta(minutes=20)
    output: ClassVar = Code

    def act(self, build: BuildView, work: Workbench) -> Code:
        space = workspace(build, work)
        machine = Machine(output_of(build, ValidateConnection).home)
        folder = machine.build(build.id)
        if not space.remote.is_folder(machine.clone):
            message = (
                f"The image has no clone of the training repository at {machine.clone}; "
                "see docs/training-machine.md."
            )
            raise StepFailed(FailureCode.INVALID_IMAGE, message)
        clone = RemoteGit(space.remote, machine.clone)
        space.run(f"mkdir -p {shlex.quote(folder.path)}/inputs {shlex.quote(folder.output)}", timeout_s=60)
        repository, pins = work.settings.code_repository, pins_of(build)
        fetched = False
        if pins is not None and pins.code is not None:
            commit, origin = _bring_kept(work, space, clone, pins.code)
        elif repository is None:
            fetched = True
            commit, origin = _fetch(build, space, clone)
        else:
            commit, origin = _bring(build, work, space, clone, Path(repository))
        differs = None
        if not _compared(build):
            differs = differing_keys(build, work, clone, commit)
        _check_out(space, clone, folder, commit)
        with work.transaction() as session:
            code = InputRecord(InputKind.CODE, "training repository", origin=f"git+{origin}@{commit}")
            inputs.record(session, build.lease, [code])
        if fetched:
            _fetch_pack(space, clone, commit, _pack(work))
        _keep_code(build, work, commit, RemoteGit(space.remote, folder.repository))
        return Code(commit=commit, origin=origin, config_differs=differs)


def _compared(build: BuildView) -> bool:
    """Whether an earlier step has compared the configuration with the commit's, or nobody needs to.

    A reproduction uses the configuration that its model was made with, whatever the commit has.
    """
    if build.kind is BuildKind.REPRODUCE:
        return True
    stored = build.outputs.get(StepName.NEEDS_MODEL)
    return stored is not None and Needed.model_validate(stored).config_differs is not None


def _fetch(build: BuildView, space: Workspace, clone: RemoteGit) -> tuple[str, str]:
    """Let the instance fetch the commit from its clone's origin. Returns the commit and the origin.

    Raises StepFailed, GitUnavailable, RemoteFault.
    """
    try:
        address = clone.run("remote", "get-url", "origin")
    except GitFailed as exc:
        message = f"The clone at {clone.folder} has no origin to fetch from: {public_text(str(exc))}"
        raise StepFailed(FailureCode.INVALID_IMAGE, message) from exc
    # From here on only the public form is used, and git's messages, which quote the address, are cleaned.
    origin = public_uri(address)
    branches = "+refs/heads/*:refs/remotes/origin/*"
    # A single commit can only be asked for by all of its digits. The branches bring a short one along.
    wanted = build.sha if len(build.sha) == 40 else branches
    try:
        try:
            _change(space, clone, clone.command("fetch", "--quiet", "--no-tags", "origin", wanted))
        except CommandFailed as exc:
            if wanted == branches or not git.is_unadvertised(exc.output):
                raise
            _change(space, clone, clone.command("fetch", "--quiet", "--no-tags", "origin", branches))
        return git.resolve(clone, build.sha), origin
    except CommandFailed as exc:
        reason = git.fetch_error(exc.output)
        said = public_text(str(reason), address)
        if isinstance(reason, UnknownCommit):
            raise no_such_commit(build.sha, origin, said) from None
        # Without its cause, whose text quotes the address.
        raise type(reason)(said) from None
    except UnknownCommit as exc:
        raise no_such_commit(build.sha, origin, str(exc)) from exc
    except GitFailed as exc:
        raise GitUnavailable(public_text(str(exc), address)) from None


def _bring(
    build: BuildView, work: Workbench, space: Workspace, clone: RemoteGit, repository: Path
) -> tuple[str, str]:
    """Bring the commit from the worker's own repository. Returns the commit and the repository's address.

    Raises StepFailed, GitUnavailable.
    """
    local = LocalGit(repository)
    commit = found_commit(local, build.sha)
    git.make_pack(local, commit, _pack(work))
    _unpack(work, space, clone, commit)
    return git.resolve(clone, commit), repository.resolve().as_uri()


def _bring_kept(work: Workbench, space: Workspace, clone: RemoteGit, code: PinnedCode) -> tuple[str, str]:
    """Bring the commit as it was kept, whether or not the git host still has it.

    Returns the commit and where it came from at first. Raises StepFailed, CloudError, RemoteFault.
    """
    download_pinned(work, code.pack, _pack(work))
    _unpack(work, space, clone, code.commit)
    return git.resolve(clone, code.commit), code.origin


def _unpack(work: Workbench, space: Workspace, clone: RemoteGit, commit: str) -> None:
    """Put the objects of the worker's pack into the instance's clone. Raises CommandFailed, RemoteLost."""
    target = f"{space.path}/{keys.CODE_PACK}"
    space.put_file(_pack(work), target)
    # Marked as where the history ends: git would miss the commit's parents otherwise.
    _change(
        space,
        clone,
        f"{clone.command('index-pack', '--stdin')} <{shlex.quote(target)} && "
        f"shallow=$({clone.command('rev-parse', '--path-format=absolute', '--git-path', 'shallow')}) && "
        f'{{ grep -qx {commit} "$shallow" 2>/dev/null || echo {commit} >>"$shallow"; }}',
    )


def _pack(work: Workbench) -> Path:
    """Where the worker has the commit's pack meanwhile."""
    return work.scratch / keys.CODE_PACK


def _fetch_pack(space: Workspace, clone: RemoteGit, commit: str, pack: Path) -> None:
    """Have the instance make a pack of the commit that it has fetched, and fetch the pack from there.

    Raises RemoteFault, RemoteLost, LeaseLost.
    """
    target = f"{space.path}/{keys.CODE_PACK}"
    listed = clone.command("rev-list", "--objects", "--no-walk", "--no-object-names", commit)
    packed = clone.command(*git.PACK_OBJECTS)
    # Two commands, because the exit status of a pipe is only that of its end.
    script = f"{listed} >{shlex.quote(target)}.list && {packed} <{shlex.quote(target)}.list >"
    space.run(f"timeout {_GIT_S} sh -c {shlex.quote(script + shlex.quote(target))}", timeout_s=_GIT_S + 60)
    space.remote.get_file(target, pack, limit_bytes=LIMIT_BYTES)


def _keep_code(build: BuildView, work: Workbench, commit: str, worktree: RemoteGit) -> None:
    """Keep the commit with its files, because the git host may lose it: a branch is deleted or rewritten.

    Raises StepFailed, CloudError, RemoteLost.
    """
    pack = _pack(work)
    content = digest_of(pack)
    used = InputRecord(
        InputKind.CODE,
        keys.CODE_PACK,
        content.sha256,
        content.size_bytes,
        f"s3://{work.clouds.bucket.name}/{keys.input_key(content.sha256)}",
        {
            "commit": commit,
            "tree": worktree.run("rev-parse", "--verify", "HEAD^{tree}"),
            "clean": not worktree.run("status", "--porcelain"),
        },
    )
    work.check()
    keep_input(build, work, used, pack, content, content_type="application/octet-stream")
    pack.unlink()


def _check_out(space: Workspace, clone: RemoteGit, folder: BuildFolder, commit: str) -> None:
    """Make the build's worktree anew, with the commit's files: a try that died may have left a part."""
    worktree = shlex.quote(folder.repository)
    _change(
        space,
        clone,
        f"{clone.command('worktree', 'remove', '--force', '--', folder.repository)} 2>/dev/null\n"
        f"rm -rf {worktree}\n"
        f"{clone.command('worktree', 'prune')} && "
        f"{clone.command('worktree', 'add', '--force', '--detach', '--', folder.repository, commit)}",
    )
    checked_out = RemoteGit(space.remote, folder.repository).run("rev-parse", "--verify", "HEAD")
    if checked_out != commit:
        message = f"{folder.repository} is at {checked_out[:100]!r} instead of {commit}. Post again."
        raise StepFailed(FailureCode.INVALID_IMAGE, message)


def _change(space: Workspace, clone: RemoteGit, command: str) -> None:
    """Run a command that changes the clone. Raises CommandFailed, LeaseLost, RemoteLost."""
    script = f"{_TIDY.format(git=clone.command())}{command}\n"
    bounded = f"timeout --kill-after=10 {_GIT_S} sh -c {shlex.quote(script)}"
    space.run(bounded, timeout_s=_GIT_S + 60)
