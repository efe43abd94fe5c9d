"""What a build request takes from the git checkout that it is made in."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

CONFIG = "search-config.toml"


class CheckoutError(Exception):
    """The checkout does not give what a build needs."""


@dataclass(frozen=True)
class Checkout:
    """The commit that a folder is at. Uncommitted changes are not part of it."""

    folder: Path
    sha: str
    branch: str
    search_config: str
    changed: bool

    @classmethod
    def at(cls, folder: Path, branch: str | None = None) -> "Checkout":
        """Raises CheckoutError."""
        try:
            root = Path(_git(folder, "rev-parse", "--show-toplevel").strip())
            sha = _git(root, "rev-parse", "HEAD").strip()
        except subprocess.CalledProcessError as exc:
            message = f"{folder} is in no git checkout with a commit ({exc.stderr.strip()})."
            raise CheckoutError(message) from exc
        # In CI the checkout is of a commit, not of a branch, and git answers HEAD.
        named = branch or _git(root, "rev-parse", "--abbrev-ref", "HEAD").strip()
        changed = bool(_git(root, "status", "--porcelain", "--untracked-files=no").strip())
        return cls(root, sha, named, config_at(root, sha), changed)


def config_at(folder: Path, revision: str) -> str:
    """search-config.toml at a revision, to the letter. Raises CheckoutError."""
    try:
        return _git(folder, "show", f"{revision}:{CONFIG}")
    except subprocess.CalledProcessError as exc:
        message = f"There is no {CONFIG} at {revision} ({exc.stderr.strip()})."
        raise CheckoutError(message) from exc


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", folder, *arguments], check=True, capture_output=True)
    return done.stdout.decode()
