"""A clone of the git repository that has its commits, but no files.

It is in the scratch folder of this process, so no other process works in it, and a new worker makes its own.
The address, which may hold a password, is handed to git in its environment: it is neither an argument, which
other users of the machine could see, nor in a file.
"""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from worker.branches.history import History
from worker.machine.git import GitFailed, LocalGit

# What a git server may take at most, for one command. A first fetch brings every commit.
_TIMEOUT_S = 900.0

# After so many fetches the clone is made anew, so that the packs do not become too many.
_MAX_PACKS = 50

# The branches; and what else shows that the repository has, or had, a commit: tags, and the commits of pull
# requests and merge requests, which hosts keep after the branch is squashed and deleted.
_REFS = (
    "+refs/heads/*:refs/heads/*",
    "+refs/tags/*:refs/known/tags/*",
    "+refs/pull/*/head:refs/known/pull/*",
    "+refs/merge-requests/*/head:refs/known/merge-requests/*",
)
# What an operator may have set so that git gets through to its host.
_ACCESS = (
    "GIT_SSH",
    "GIT_SSH_COMMAND",
    "GIT_ASKPASS",
    "GIT_SSL_CAINFO",
    "GIT_SSL_CAPATH",
    "GIT_PROXY_COMMAND",
)


@dataclass(frozen=True)
class Advertised:
    """What the remote says of itself: the commit of each branch, and the branch that its HEAD names."""

    heads: Mapping[str, str]
    head: str | None


def folder_of(address: str) -> Path | None:
    """The folder that the address names. None for a repository on another machine, such as `host:path`."""
    if address.startswith("file://"):
        return Path(unquote(address.removeprefix("file://")))
    # Git decides by the same rule.
    return None if ":" in address.partition("/")[0] else Path(address)


class Clone:
    def __init__(self, folder: Path, address: str) -> None:
        self._folder = folder
        self._address = address
        access = {name: os.environ[name] for name in _ACCESS if name in os.environ}
        configured = {
            "remote.origin.url": address,
            "gc.auto": "0",
            "maintenance.auto": "false",
            "http.lowSpeedLimit": "1",
            "http.lowSpeedTime": "60",
        }
        environment = {"GIT_CONFIG_COUNT": str(len(configured))}
        for number, (name, value) in enumerate(configured.items()):
            environment |= {f"GIT_CONFIG_KEY_{number}": name, f"GIT_CONFIG_VALUE_{number}": value}
        self._git = LocalGit(folder, timeout_s=_TIMEOUT_S, environment=access | environment)

    def advertised(self) -> Advertised:
        """Ask the remote. Raises GitFailed."""
        self._make()
        folder = folder_of(self._address)
        # Of a shallow clone, git would ask for the commits that it lacks again and again, without an end.
        if folder is not None and LocalGit(folder).run("rev-parse", "--is-shallow-repository") == "true":
            message = "it is a shallow clone, which lacks commits. Name a whole one in REGISTRY_GIT_REMOTE"
            raise GitFailed(message)
        heads, head = {}, None
        for line in self._git.run("ls-remote", "--symref", "origin", "HEAD", "refs/heads/*").splitlines():
            what, _, name = line.partition("\t")
            if name.startswith("refs/heads/"):
                heads[name.removeprefix("refs/heads/")] = what
            elif name == "HEAD" and what.startswith("ref: refs/heads/"):
                head = what.removeprefix("ref: refs/heads/")
        return Advertised(heads, head)

    def fetch(self) -> None:
        """Bring the remote's commits. Raises GitFailed."""
        self._make()
        filtered = ("--filter=blob:none", "--no-tags", "--prune", "--force", "--no-write-fetch-head")
        self._git.run("fetch", "--quiet", *filtered, "origin", *_REFS)

    def heads(self) -> dict[str, str]:
        """The commit of each branch that was fetched. Raises GitFailed."""
        listed = self._git.run("for-each-ref", "--format=%(objectname) %(refname:lstrip=2)", "refs/heads")
        found = (line.partition(" ") for line in listed.splitlines())
        return {name: commit for commit, _, name in found}

    def history(self, main: str) -> History:
        """Everything that was fetched. Raises GitFailed."""
        parents = {}
        for line in self._git.run("rev-list", "--parents", "--all").splitlines():
            commit, *others = line.split()
            parents[commit] = tuple(others)
        return History(parents, self.heads(), main)

    def _make(self) -> None:
        packs = self._folder / "objects" / "pack"
        if len(list(packs.glob("*.pack"))) > _MAX_PACKS:
            shutil.rmtree(self._folder)
        # A git that was cut off leaves its locks. Only this process works here, and only one git at a time.
        for left in self._folder.rglob("*.lock"):
            left.unlink(missing_ok=True)
        if not (self._folder / "HEAD").exists():
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder.mkdir(parents=True)
            self._git.run("init", "--quiet", "--bare")
