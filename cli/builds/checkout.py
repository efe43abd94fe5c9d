"""What a build request takes from the git checkout that it is made in."""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

CONFIG = "search-config.toml"
THRESHOLDS = "benchmark-thresholds.toml"
_SHA = re.compile(r"[0-9a-f]{40}")


class CheckoutError(Exception):
    """The checkout does not have what a build needs. The message says what to do."""


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
            root = Path(git(folder, "rev-parse", "--show-toplevel").rstrip("\n"))
        except _GitError as exc:
            message = (
                f"{folder} is not in a git checkout ({exc}). Change into a checkout of the commit to build."
            )
            raise CheckoutError(message) from exc
        sha = commit_of(root, "HEAD")
        # In CI the checkout is of a commit, not of a branch, and git answers HEAD.
        named = branch or git(root, "rev-parse", "--abbrev-ref", "HEAD").strip()
        changed = bool(git(root, "status", "--porcelain", "--untracked-files=no").strip())
        return cls(root, sha, named, config_at(root, sha), changed)

    def config_of_base(self, revision: str) -> str:
        """search-config.toml at the base that the build is compared with. Raises CheckoutError."""
        base = commit_of(self.folder, revision)
        if base == self.sha:
            message = (
                f"The base {revision!r} is the commit that is being built, {base}, so its version cannot be "
                "higher. Name the commit before the push, such as HEAD~1, or leave --base out to build."
            )
            raise CheckoutError(message)
        return config_at(self.folder, base)

    def thresholds(self) -> str | None:
        """benchmark-thresholds.toml at the commit; None if there is none. Raises CheckoutError."""
        listed = _run(self.folder, "ls-tree", "--full-tree", "--name-only", self.sha, "--", THRESHOLDS)
        return file_at(self.folder, self.sha, THRESHOLDS) if listed else None


def commit_of(folder: Path, revision: str) -> str:
    """All 40 digits of the commit that a revision names. Raises CheckoutError."""
    try:
        # A revision comes from a shell: even one that begins with a dash must not become an option.
        found = git(folder, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    except _GitError as exc:
        advice = "Check its name, and that it has been fetched."
        if _is_shallow(folder):
            advice = "This clone is shallow: fetch the revision first, or clone with the whole history."
        message = f"There is no commit {revision!r} in {folder}. {advice}"
        raise CheckoutError(message) from exc
    sha = found.strip()
    if not _SHA.fullmatch(sha):
        message = (
            f"git names the commit of {revision!r} {sha!r}, which does not have 40 digits. Use SHA-1 ids."
        )
        raise CheckoutError(message)
    return sha


def config_at(folder: Path, sha: str) -> str:
    """search-config.toml at a commit, to the letter. Raises CheckoutError."""
    return file_at(folder, sha, CONFIG)


def file_at(folder: Path, sha: str, name: str) -> str:
    """A text file at the top of a commit, to the letter. Raises CheckoutError."""
    try:
        content = _run(folder, "cat-file", "blob", f"{sha}:{name}")
    except _GitError as exc:
        message = f"There is no {name} at {sha} ({exc}). Commit it at the top of the repository."
        raise CheckoutError(message) from exc
    return _text(content, f"{name} at {sha}", "Save it as UTF-8 and commit it again.")


def thresholds_in(file: Path) -> str:
    """The text of another file of thresholds. Raises CheckoutError."""
    try:
        content = file.read_bytes()
    except OSError as exc:
        message = f"The thresholds in {file} cannot be read ({exc}). Name a file, or leave --thresholds out."
        raise CheckoutError(message) from exc
    return _text(content, str(file), "Save it as UTF-8.")


def _text(content: bytes, what: str, advice: str) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as exc:
        message = f"{what} is not UTF-8 (byte {exc.start + 1} is 0x{content[exc.start]:02x}). {advice}"
        raise CheckoutError(message) from exc


class _GitError(CheckoutError):
    """git refused. The message is what it said."""


def _is_shallow(folder: Path) -> bool:
    try:
        return git(folder, "rev-parse", "--is-shallow-repository").strip() == "true"
    except _GitError:
        return False


def git(folder: Path, *arguments: str) -> str:
    """What git says. Raises CheckoutError, with what it said."""
    return _run(folder, *arguments).decode(errors="replace")


def _run(folder: Path, *arguments: str) -> bytes:
    try:
        done = subprocess.run(["git", "-C", folder, *arguments], check=True, capture_output=True)
    except subprocess.CalledProcessError as exc:
        said = exc.stderr.decode(errors="replace").strip()
        raise _GitError(said or f"git {arguments[0]} ended with status {exc.returncode}") from exc
    except FileNotFoundError as exc:
        message = "git is not installed. Install it, because the commit to build is read with it."
        raise CheckoutError(message) from exc
    return done.stdout
