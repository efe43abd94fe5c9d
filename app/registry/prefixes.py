"""Prefixes and the decision whether a commit needs a model."""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from semver import Version

from app.registry.errors import Invalid, InvalidConfig
from training.config import SEMANTIC_VERSION, ConfigError, ConfigProblem, SearchConfig, parse_toml, shown

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


@dataclass(frozen=True)
class Base:
    """The version of the base branch. It is None, with the problem, where a configuration has none."""

    version: Version | None
    problem: str | None = None

    @classmethod
    def read(cls, config: str | None) -> Self:
        """Read the text of the base branch's search-config.toml; None stands for no such file.

        A configuration without a version that can be compared has a problem, because a broken base must not
        keep a repair from being built. Raises InvalidConfig for what is not a configuration at all, such as
        the message of a command that failed: to build whenever CI sends one would cost a GPU hour each time.
        """
        if config is None:
            return cls(None)
        try:
            values = parse_toml(config)
        except ConfigError as exc:
            raise _not_a_base(str(exc), exc.problems) from exc
        if not values.keys() & SearchConfig.model_fields.keys():
            raise _not_a_base("it has no key of a search-config.toml", ())
        version = values.get("version")
        if isinstance(version, str) and len(version) <= MAX_VERSION and Version.is_valid(version):
            return cls(Version.parse(version))
        found = "has no version" if version is None else f"has the version {shown(version)}"
        problem = (
            f"base_search_config {found}, which cannot be compared, so a model is built whatever the version "
            "is. Write MAJOR.MINOR.PATCH, such as 0.0.2, on the base branch."
        )
        return cls(None, problem)


def _not_a_base(why: str, problems: tuple[ConfigProblem, ...]) -> InvalidConfig:
    message = (
        f"base_search_config is not a search-config.toml: {why}. Send the base branch's file. To build "
        "whatever the version is, leave base_search_config out or send force."
    )
    return InvalidConfig(message, field="base_search_config", problems=problems)


def decide(version: str, base: Version | None) -> NotNeeded | None:
    """Decide whether a commit needs a model, which it does if its version is higher than the base branch's.

    Without a base a model is always needed. Returns None when a model is needed. Versions are ordered as
    semver.org 2.0.0 says in section 11.
    """
    if base is None:
        return None
    order = parse_version(version).compare(base)
    if order == 0:
        return NotNeeded.VERSION_UNCHANGED
    return NotNeeded.VERSION_ROLLED_BACK if order < 0 else None
