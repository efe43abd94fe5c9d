"""Prefixes and the decision whether a commit needs a model."""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

import tomli
from semver import Version

from app.registry.errors import Invalid
from training.config import SEMANTIC_VERSION

# A prefix is also used in S3 keys, in an index and as the value of an EC2 tag, whose lengths are limited.
MAX_VERSION = 100

_SHA = re.compile(r"[0-9a-f]{7,40}")


class NotNeeded(StrEnum):
    """Why a commit gets no build."""

    VERSION_UNCHANGED = "version_unchanged"
    VERSION_ROLLED_BACK = "version_rolled_back"


@dataclass(frozen=True)
class Prefix:
    """The permanent name of a model: `{version}-{sha7}`."""

    version: str
    sha7: str

    def __str__(self) -> str:
        return f"{self.version}-{self.sha7}"

    @classmethod
    def of(cls, version: str, sha: str) -> Self:
        """The prefix of a version at a commit.

        Raises Invalid when the version is not a semantic version, or the sha is not a git commit.
        """
        parse_version(version)
        return cls(version, parse_sha(sha)[:7])

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises Invalid when the text is not of the form `0.0.2-aff1242`."""
        version, dash, sha7 = text.rpartition("-")
        if dash and len(sha7) == 7 and _SHA.fullmatch(sha7) and _is_version(version):
            return cls(version, sha7)
        msg = (
            f"{text!r} is not a prefix. "
            "Write a version and the first 7 hex digits of a commit, such as 0.0.2-aff1242."
        )
        raise Invalid(msg)


def parse_sha(text: str) -> str:
    """A git commit in lower case; raises Invalid unless it has 7 to 40 hex digits."""
    sha = text.strip().lower()
    if not _SHA.fullmatch(sha):
        msg = (
            f"sha {text!r} is not a git commit. "
            "Send 7 to 40 hex digits, preferably all 40 (git rev-parse HEAD)."
        )
        raise Invalid(msg)
    return sha


def parse_version(text: str) -> Version:
    """Raises Invalid unless the text is a semantic version without build metadata, and not too long."""
    if _is_version(text):
        return Version.parse(text)
    if len(text) > MAX_VERSION:
        msg = f"version has {len(text)} characters. Write at most {MAX_VERSION}, such as 0.0.2."
    else:
        msg = f"version {text!r} is not a semantic version. Write MAJOR.MINOR.PATCH, such as 0.0.2."
    raise Invalid(msg)


def _is_version(text: str) -> bool:
    # A semantic version may contain build metadata ("+…"). A prefix may not, because it is part of URLs.
    return len(text) <= MAX_VERSION and SEMANTIC_VERSION.fullmatch(text) is not None


def decide(version: str, base_config: str | None) -> NotNeeded | None:
    """Whether a commit needs a model: its version must be higher than the base branch's.

    `base_config` is the base branch's search-config.toml as text. If it is None or has no readable version,
    every version counts as higher, because a broken base branch must not prevent a repair from building.
    Returns None when a model is needed. Versions are compared as in semver.org 2.0.0, section 11.
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
        # It is not TOML, or the parser cannot take it: endless numbers, or a thousand nested arrays.
        return None
    if not isinstance(version, str) or len(version) > MAX_VERSION or not Version.is_valid(version):
        return None
    return Version.parse(version)
