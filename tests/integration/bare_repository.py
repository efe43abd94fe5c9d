"""A git repository as a host has it, whose commits a test makes one by one."""

import os
import subprocess
from pathlib import Path


class Repository:
    """A bare repository, as a git host has it. A commit is made of nothing but its message and parents."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.folder.mkdir()
        self.git("init", "--quiet", "--bare", "--initial-branch=main")
        self.tree = self.git("hash-object", "-w", "-t", "tree", "--stdin")

    def git(self, *arguments: str) -> str:
        identity = {
            f"GIT_{who}_{what}": "someone" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
        }
        dates = {"GIT_AUTHOR_DATE": "@1700000000 +0000", "GIT_COMMITTER_DATE": "@1700000000 +0000"}
        done = subprocess.run(
            ["git", "-C", self.folder, *arguments],
            check=True,
            capture_output=True,
            text=True,
            input="",
            env={**os.environ, **identity, **dates},
        )
        return done.stdout.strip()

    def commit(self, branch: str, *others: str, on: str | None = None, message: str = "") -> str:
        """A commit on the branch. A new branch begins after the commit `on`, if one is given."""
        parents = [*([self.git("rev-parse", branch)] if self.has(branch) else [on] if on else []), *others]
        named = [word for parent in parents for word in ("-p", parent)]
        made = self.git("commit-tree", self.tree, "-m", message or f"{branch} {parents}", *named)
        self.git("update-ref", f"refs/heads/{branch}", made)
        return made

    def has(self, branch: str) -> bool:
        return bool(self.git("for-each-ref", f"refs/heads/{branch}"))

    def delete(self, *branches: str) -> None:
        for branch in branches:
            self.git("update-ref", "-d", f"refs/heads/{branch}")

    def rename_main(self, name: str, new: str) -> None:
        """Give the main branch another name."""
        self.git("update-ref", f"refs/heads/{new}", name)
        self.git("symbolic-ref", "HEAD", f"refs/heads/{new}")
        self.delete(name)

    @property
    def main(self) -> str:
        """The name of the main branch."""
        return self.git("symbolic-ref", "--short", "HEAD")
