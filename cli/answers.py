"""The API's answers, as far as the command line shows them.

Registry and command line are upgraded at different times, so an answer may hold more than is read here, and
words that are not known here. If something is missing that must be there, ApiError is raised.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self, TypeVar

T = TypeVar("T")

ENDED = ("succeeded", "failed", "cancelled")


class ApiError(Exception):
    """The registry refused, could not be reached, or gave an answer that cannot be read.

    The message says what to do.
    """

    def __init__(self, message: str, status: int | None = None, *, passes: bool = False) -> None:
        """`passes`: the same call may succeed later, as when the registry is away."""
        super().__init__(message)
        self.status = status
        self.passes = passes


def read(document: Mapping[str, Any], of: Callable[[Mapping[str, Any]], T]) -> T:
    """Read an answer. Raises ApiError."""
    try:
        return of(document)
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        message = (
            f"The registry's answer cannot be read ({type(exc).__name__}: {exc}). "
            "Check that the URL is that of the registry, and install the command line of its version."
        )
        raise ApiError(message) from exc


def _optional_text(value: object) -> str | None:
    return None if value is None else str(value)


@dataclass(frozen=True)
class Step:
    """One step of a build."""

    name: str
    state: str
    seconds: float | None
    output: Mapping[str, Any]
    message: str | None
    taken_over_from: str | None

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        started, finished = document.get("started_at"), document.get("finished_at")
        seconds = None
        if started and finished:
            took = datetime.fromisoformat(finished) - datetime.fromisoformat(started)
            seconds = took.total_seconds()
        return cls(
            str(document["name"]),
            str(document["state"]),
            seconds,
            document.get("output") or {},
            _optional_text(document.get("message")),
            _optional_text(document.get("taken_over_from")),
        )


@dataclass(frozen=True)
class Progress:
    """How far the running job is."""

    phase: str
    percent: float
    eta_seconds: float | None

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        eta = document.get("eta_seconds")
        return cls(str(document["phase"]), float(document["percent"]), None if eta is None else float(eta))


@dataclass(frozen=True)
class Build:
    """One attempt to produce a model."""

    id: str
    prefix: str
    state: str
    steps: tuple[Step, ...]
    progress: Progress | None
    failure: Mapping[str, Any]
    # A registry of an earlier release does not say how a build can be retried, and cannot do it.
    retry_with: str | None
    # What came of a build that makes a model again. Empty for others, and before the models were compared.
    outcome: Mapping[str, Any]
    reproduces: bool

    @property
    def verdict(self) -> str:
        """How the model that was made again compares with the original."""
        return str(self.outcome.get("verdict", ""))

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        progress = document.get("progress")
        reproduction = document.get("reproduction") or {}
        return cls(
            id=str(document["id"]),
            prefix=str(document["prefix"]),
            state=str(document["state"]),
            steps=tuple(Step.of(step) for step in document.get("steps", ())),
            progress=None if progress is None else Progress.of(progress),
            failure=document.get("failure") or {},
            retry_with=_optional_text(document.get("retry_with")),
            outcome=reproduction.get("outcome") or {},
            reproduces=bool(reproduction),
        )

    @property
    def ended(self) -> bool:
        return self.state in ENDED

    @property
    def running_step(self) -> str:
        return next((step.name for step in self.steps if step.state == "running"), "")


@dataclass(frozen=True)
class LogPart:
    """A piece of a build's log, and the byte at which the next one begins.

    Without a next offset, the answer does not say how the log goes on.
    """

    text: str
    next_offset: int | None
    is_last: bool


@dataclass(frozen=True)
class Requested:
    """The answer to a request for a build.

    A registry of an earlier release does not send the last four.
    """

    outcome: str
    prefix: str
    reason: str | None
    build: Build | None
    base_problem: str | None
    changed_keys: tuple[str, ...]
    other_models: tuple[str, ...]
    warnings: tuple[str, ...]

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        build = document.get("build")
        return cls(
            outcome=str(document["outcome"]),
            prefix=str(document["prefix"]),
            reason=document.get("reason"),
            build=None if build is None else Build.of(build),
            base_problem=document.get("base_problem"),
            changed_keys=tuple(map(str, document.get("changed_keys", ()))),
            other_models=tuple(map(str, document.get("other_models_of_this_version", ()))),
            warnings=tuple(map(str, document.get("warnings", ()))),
        )


@dataclass(frozen=True)
class Model:
    """What a build published."""

    metrics: Mapping[str, Mapping[str, Any]]
    verdict: str
    verdict_reason: str
    warnings: tuple[str, ...] = ()

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        return cls(
            dict(document["metrics"]),
            str(document["verdict"]),
            str(document["verdict_reason"]),
            # A registry of an earlier release does not tell them.
            tuple(map(str, document.get("warnings", ()))),
        )


@dataclass(frozen=True)
class Artifact:
    """One file of a model, and where to get it."""

    name: str
    url: str
    # The digest of an imported file is computed some time after the import.
    sha256: str | None
    size_bytes: int


@dataclass(frozen=True)
class Latest:
    """The model that a stage runs."""

    prefix: str
    promoted_at: str
    artifacts: tuple[Artifact, ...]

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        artifacts = (
            Artifact(
                name, str(of["url"]), None if of["sha256"] is None else str(of["sha256"]), int(of["size"])
            )
            for name, of in document["artifacts"].items()
        )
        return cls(
            str(document["prefix"]),
            str(document["promoted_at"]),
            tuple(sorted(artifacts, key=lambda artifact: artifact.name)),
        )


@dataclass(frozen=True)
class Promotion:
    """The record that a model runs in a stage."""

    prefix: str
    stage: str
    promoted_at: str
    promoted_by: str

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        return cls(*(str(document[name]) for name in ("prefix", "stage", "promoted_at", "promoted_by")))


@dataclass(frozen=True)
class Run:
    """An import, a reconciliation or a collection."""

    id: str
    kind: str
    state: str
    requested_by: str
    created_at: str
    stopped_by: str | None
    progress: Mapping[str, Any]
    result: Mapping[str, Any]
    waits_for: str | None
    failure: str | None

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        return cls(
            id=str(document["id"]),
            kind=str(document["kind"]),
            state=str(document["state"]),
            requested_by=str(document["requested_by"]),
            created_at=str(document["created_at"]),
            stopped_by=_optional_text(document.get("stopped_by")),
            progress=document.get("progress") or {},
            result=document.get("result") or {},
            waits_for=_optional_text(document.get("waits_for")),
            failure=_optional_text(document.get("failure")),
        )

    @property
    def ended(self) -> bool:
        return self.state in ("succeeded", "failed", "stopped")


@dataclass(frozen=True)
class IssuedToken:
    """A token, without its secret."""

    id: str
    name: str
    state: str
    starts_with: str
    scopes: tuple[str, ...]
    expires_at: str
    last_used_at: str | None

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        return cls(
            id=str(document["id"]),
            name=str(document["name"]),
            state=str(document["state"]),
            starts_with=str(document["starts_with"]),
            scopes=tuple(str(scope) for scope in document["scopes"]),
            expires_at=str(document["expires_at"]),
            last_used_at=_optional_text(document.get("last_used_at")),
        )


@dataclass(frozen=True)
class Stages:
    """What runs where: each stage with its newest promotion, or with None."""

    running: Mapping[str, Promotion | None]

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        return cls(
            {
                str(item["stage"]): None
                if item["current"] is None
                else Promotion.of(item["current"]["promotion"])
                for item in document["items"]
            }
        )
