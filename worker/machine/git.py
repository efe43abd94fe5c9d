"""Git, on this machine or on the training machine. A commit is looked up among objects, never among names.

To git, `aff1242` is first of all a branch or tag of that name. A build means the commit.
"""

import os
import re
import shlex
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from worker.machine.remote import CommandFailed, Remote, RemoteFault, RemoteLost

_FULL = re.compile(r"[0-9a-f]{40}")
_SHORT = re.compile(r"[0-9a-f]{7,39}")

# C: git's messages are read below. No prompts: nobody is there to answer. No replacements: a build gets the
# commit that it names, not the one that `git replace` puts in its place.
ENVIRONMENT = {"LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0", "GIT_NO_REPLACE_OBJECTS": "1"}

# What a git host answers when it is asked for something that it does not have.
_ABSENT = ("not our ref", "couldn't find remote ref", "no such remote ref")
# The host may have the commit, but hands out only what a branch or tag points to.
_UNADVERTISED = "unadvertised object"
# What Linux says of the instance's own disk.
_DISK = ("No space left on device", "Read-only file system", "Disk quota exceeded")


class UnknownCommit(Exception):
    """The repository does not have the commit. The text says so, and names the commit."""


class GitFailed(Exception):
    """A git command failed. The text is what git said."""


class GitUnavailable(RemoteLost):
    """A git host or repository cannot be asked now. As with any lost connection, it is worth another try."""


class Git(Protocol):
    """A repository's git."""

    def run(self, *arguments: str, stdin: str = "") -> str:
        """The command's standard output, without white space around it. Raises GitFailed."""


@dataclass(frozen=True)
class LocalGit:
    """A repository on the worker's machine, which may be somebody's checkout.

    A command that takes longer than `timeout_s` fails. `environment` is added to that of the worker.
    """

    folder: Path
    timeout_s: float | None = None
    environment: Mapping[str, str] = field(default_factory=dict)

    def run(self, *arguments: str, stdin: str = "") -> str:
        return self.read(*arguments, stdin=stdin).decode(errors="replace").strip()

    def read(self, *arguments: str, stdin: str = "") -> bytes:
        """The command's standard output as it is. Raises GitFailed."""
        # Whoever started the worker may have set GIT_DIR and the like for another repository.
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        try:
            process = subprocess.Popen(
                # safe.directory: in a container the checkout may belong to another user than the worker.
                ["git", "-c", "safe.directory=*", "-C", self.folder, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={**inherited, **ENVIRONMENT, **self.environment},
                # git starts further processes, which would outlive it and hold its pipes.
                start_new_session=True,
            )
        except OSError as exc:
            raise GitFailed(str(exc)) from exc
        with process:
            try:
                output, errors = process.communicate(stdin.encode(), self.timeout_s)
            except subprocess.TimeoutExpired as exc:
                message = f"git {arguments[0]} took longer than {self.timeout_s:g} s"
                raise GitFailed(message) from exc
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
        if process.returncode != 0:
            raise GitFailed(errors.decode(errors="replace").strip())
        return output


@dataclass(frozen=True)
class RemoteGit:
    """A repository on the training machine."""

    remote: Remote
    folder: str

    def run(self, *arguments: str, stdin: str = "") -> str:
        try:
            return self.remote.value(
                self.command(*arguments), r"[^\0]*", timeout_s=120, stdin=stdin.encode()
            ).strip()
        except CommandFailed as exc:
            raise GitFailed(exc.output.strip()[-2000:]) from exc

    def command(self, *arguments: str) -> str:
        """The git command as a shell takes it, with each argument quoted."""
        words = ["env", *(f"{name}={value}" for name, value in ENVIRONMENT.items()), "git"]
        # A repack in the background would hold locks, and still run when the next command starts.
        words += ["-c", "gc.auto=0", "-c", "maintenance.auto=false", "-C", self.folder, *arguments]
        return shlex.join(words)


def resolve(git: Git, sha: str) -> str:
    """All 40 digits of the commit that the digits name. Raises UnknownCommit, GitFailed."""
    if _FULL.fullmatch(sha):
        candidates = [sha]
    elif _SHORT.fullmatch(sha):
        candidates = git.run("rev-parse", f"--disambiguate={sha}").split()
    else:
        message = f"{sha!r} is not a git commit. Post all 40 hex digits of one (git rev-parse HEAD)."
        raise UnknownCommit(message)
    lines = git.run(
        "cat-file",
        "--batch-check=%(objecttype) %(objectname)",
        stdin="".join(f"{one}\n" for one in candidates),
    ).splitlines()
    types = [line.partition(" ") for line in lines]
    commits = [name for kind, _, name in types if kind == "commit" and name.startswith(sha)]
    match commits:
        case [commit] if _FULL.fullmatch(commit):
            return commit
        case []:
            message = f"There is no commit {sha}"
        case _:
            message = f"Several commits begin with {sha} ({', '.join(commits)}). Post all 40 digits of one"
    raise UnknownCommit(message)


def file_at(git: Git, commit: str, path: str) -> str | None:
    """A text file of the commit; None when the commit has no such file. Raises GitFailed."""
    listed = git.run("ls-tree", "--full-tree", commit, "--", path)
    # `100644 blob <object>	<path>`; a link is a blob too, and its content is only a path.
    mode, _, rest = listed.partition(" ")
    kind, _, named = rest.partition(" ")
    if kind != "blob" or mode == "120000":
        return None
    return git.run("cat-file", "blob", named.partition("\t")[0])


def fetch_error(output: str) -> Exception:
    """What a failed fetch means, by what git printed: UnknownCommit, RemoteFault, or GitUnavailable.

    Only what the host plainly does not have is final. A host that is down, overloaded or out of reach has
    many ways to say so, and each may pass.
    """
    if any(words in output for words in _ABSENT):
        return UnknownCommit("The git host does not have it")
    if any(words in output for words in _DISK):
        return RemoteFault(f"git cannot write what it fetches: {output.strip()[-1000:]}")
    return GitUnavailable(f"the git host cannot be fetched from: {output.strip()[-1000:]}")


def is_unadvertised(output: str) -> bool:
    """Whether the host refuses to look a commit up by its digits, so that branches must be fetched."""
    return _UNADVERTISED in output


# With one thread, the same git makes the same pack of the same objects again, so that it is kept once.
PACK_OBJECTS = ("pack-objects", "--quiet", "--threads=1", "--stdout")


def make_pack(repository: LocalGit, commit: str, pack: Path) -> None:
    """Write one commit with its files, without its history, as a pack. Raises GitFailed.

    Works from shallow clones too. Nothing is written into the repository.
    """
    beside = LocalGit(pack.parent / "code.git")
    repository.run("init", "--quiet", "--bare", "--", str(beside.folder))
    common = Path(repository.run("rev-parse", "--path-format=absolute", "--git-common-dir"))
    # Borrowed objects: making the pack reads the repository, and copies nothing.
    (beside.folder / "objects" / "info" / "alternates").write_text(f"{common / 'objects'}\n")
    (beside.folder / "shallow").write_text(f"{commit}\n")
    pack.write_bytes(beside.read(*PACK_OBJECTS, "--revs", stdin=f"{commit}\n"))
