"""Prefixes and the decision whether a commit needs a model."""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

import tomli
from semver import Version

from app.registry.errors import Invalid
from training.config import SEMANTIC_VERSION

# A prefix is also part of S3 keys, the key of an index and the value of an EC2 tag, which all have a limit.
MAX_VERSION = 100

_SHA = re.compile(r"[0-9a-f]{40}")
_SHA7 = re.compile(r"[0-9a-f]{7}")
# What git and its web hooks send in place of a commit that does not exist.
_NO_COMMIT = "0" * 40


class NotNeeded(StrEnum):
    """Why a commit gets no build."""

    VERSION_UNCHANGED = "version_unchanged"
    VERSION_ROLLED_BACK = "version_rolled_back"


@dataclass(frozen=True)
class Prefix:
    """`{version}-{sha7}`: it names a model for ever."""

    version: str
    sha7: str

    def __str__(self) -> str:
        return f"{self.version}-{self.sha7}"

    @classmethod
    def of(cls, version: str, sha: str) -> Self:
        """The prefix of a version at a commit.

        Raises Invalid when the version is not a semantic version, or the sha is not that of a git commit.
        """
        parse_version(version)
        return cls(version, parse_sha(sha)[:7])

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises Invalid when the text is not of the form `0.0.2-aff1242`."""
        version, dash, sha7 = text.rpartition("-")
        if dash and _SHA7.fullmatch(sha7) and _is_version(version):
            return cls(version, sha7)
        message = (
            f"{text!r} is not a prefix. "
            "Write a version and the first 7 hex digits of a commit, such as 0.0.2-aff1242."
        )
        raise Invalid(message)


def parse_sha(text: str) -> str:
    """A git commit in lower case.

    Raises Invalid unless it has 40 hex digits. The registry has no repository in which it could look up a
    shorter sha, and two commits that share their first digits must not be taken for one.
    """
    sha = text.strip().lower()
    if not _SHA.fullmatch(sha):
        message = (
            f"sha {text!r} is not a whole git commit. "
            "Send all 40 hex digits, as `git rev-parse HEAD` prints them."
        )
        raise Invalid(message)
    if sha == _NO_COMMIT:
        message = (
            "sha is forty zeros, which git uses for a commit that does not exist, such as that of a deleted "
            "branch. Send a commit."
        )
        raise Invalid(message)
    return sha


def parse_version(text: str) -> Version:
    """Raises Invalid unless the text is a semantic version without build metadata, and not too long."""
    if _is_version(text):
        return Version.parse(text)
    if len(text) > MAX_VERSION:
        message = f"version has {len(text)} characters. Write no more than {MAX_VERSION}, such as 0.0.2."
    else:
        message = f"version {text!r} is not a semantic version. Write MAJOR.MINOR.PATCH, such as 0.0.2."
    raise Invalid(message)


def _is_version(text: str) -> bool:
    # Semantic versions may have build metadata ("+…"). A prefix may not, because it is also part of a URL.
    return len(text) <= MAX_VERSION and SEMANTIC_VERSION.fullmatch(text) is not None


def decide(version: str, base_config: str | None) -> NotNeeded | None:
    """Decide whether a commit needs a model, which it does if its version is higher than the base branch's.

    `base_config` is the text of the base branch's search-config.toml. None, or a text without a readable
    version, compares as lower than anything, because a broken base must not keep a repair from being built.
    Returns None when a model is needed. Versions are ordered as semver.org 2.0.0 says in section 11.
    """
    base = _version_of(base_config) if base_config is not None else None
    if base is None:
        return None
    order = parse_version(version).compare(base)
    if order == 0:
        return NotNeeded.VERSION_UNCHANGED
    return NotNeeded.VERSION_ROLLED_BACK if order < 0 else None


def _version_of(config: str) -> Version | None:
    try:
        version = tomli.loads(config).get("version")
    except (ValueError, RecursionError):
        # The text is not TOML, or the parser cannot handle it, such as a thousand nested arrays.
        return None
    if not isinstance(version, str) or len(version) > MAX_VERSION or not Version.is_valid(version):
        return None
    return Version.parse(version)
