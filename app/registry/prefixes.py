"""Prefixes and the decision whether a commit needs a model."""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

import tomli
from semver import Version

from app.registry.errors import Invalid
from training.config import SEMANTIC_VERSION

# A prefix is also an S3 key, an index's key and an EC2 tag's value, and none of them is endless.
MAX_VERSION = 100

_SHA = re.compile(r"[0-9a-f]{7,40}")


class NotNeeded(StrEnum):
    """Why a commit gets no build."""

    VERSION_UNCHANGED = "version_unchanged"
    VERSION_ROLLED_BACK = "version_rolled_back"


@dataclass(frozen=True)
class Prefix:
    """`{version}-{sha7}`: names a model for ever."""

    version: str
    sha7: str

    def __str__(self) -> str:
        return f"{self.version}-{self.sha7}"

    @classmethod
    def of(cls, version: str, sha: str) -> Self:
        """The prefix of a version at a commit.

        Raises Invalid when the version is no semantic version, or the sha no git commit.
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
            f"{text!r} is no prefix: expected a version and 7 hex digits of a commit, such as 0.0.2-aff1242."
        )
        raise Invalid(msg)


def parse_sha(text: str) -> str:
    """A git commit in lower case; raises Invalid unless it has 7 to 40 hex digits."""
    sha = text.strip().lower()
    if not _SHA.fullmatch(sha):
        msg = f"sha {text!r} is no git commit: send 7 to 40 hex digits, best all 40 (git rev-parse HEAD)."
        raise Invalid(msg)
    return sha


def parse_version(text: str) -> Version:
    """Raises Invalid unless the text is a semantic version without build metadata, and not too long."""
    if _is_version(text):
        return Version.parse(text)
    if len(text) > MAX_VERSION:
        msg = f"version has {len(text)} characters: write no more than {MAX_VERSION}, such as 0.0.2."
    else:
        msg = f"version {text!r} is no semantic version: write MAJOR.MINOR.PATCH, such as 0.0.2."
    raise Invalid(msg)


def _is_version(text: str) -> bool:
    # Build metadata is legal in semantic versions ("+…"), but not in a prefix: it is a URL segment, too.
    return len(text) <= MAX_VERSION and SEMANTIC_VERSION.fullmatch(text) is not None


def decide(version: str, base_config: str | None) -> NotNeeded | None:
    """Whether a commit gets a model: its version must be above the base branch's.

    `base_config` is the base branch's search-config.toml as text; None, or one without a readable
    version, compares as lower than anything: a base that is broken must not keep a repair from building.
    Returns None when a model is needed. Precedence of versions: semver.org 2.0.0, section 11.
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
        # No TOML, or TOML beyond what the parser takes: numbers without end, a thousand nested arrays.
        return None
    if not isinstance(version, str) or len(version) > MAX_VERSION or not Version.is_valid(version):
        return None
    return Version.parse(version)
