"""What can go wrong for a caller: one class for each situation that the caller can act on.

A class's docstring is its default message, and its fields are the facts. These classes know nothing of HTTP:
`app/api/common/errors.py` says which status, type and title each of them has in an answer.
"""

import inspect
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Literal
from uuid import UUID

from app.words import BuildState, Irreproducible, ModelState, Pinned, RetryRefusal, Scope, Stage
from training.config import ConfigProblem, Difference


@dataclass(eq=False, repr=False)
class RegistryError(Exception):
    """The registry cannot do this."""

    message: str = ""

    def __post_init__(self) -> None:
        self.message = self.message or inspect.cleandoc(type(self).__doc__ or "")
        super().__init__(self.message)

    @property
    def facts(self) -> dict[str, object]:
        """The values that a program can act on, by name; those that are not set are left out."""
        found = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "message"}
        return {name: value for name, value in found.items() if value is not None}


class NotFound(RegistryError):
    """The thing that the request names does not exist."""


class NothingPromoted(NotFound):
    """No model was ever promoted to this stage. Promote one with POST /models/{prefix}/promotions."""


class Conflict(RegistryError):
    """The request contradicts what is recorded. Send it again."""


@dataclass(eq=False, repr=False, kw_only=True)
class PrefixCollision(Conflict):
    """Another commit has this prefix. Raise the version in search-config.toml.

    `build` is not set for a model that this registry did not build.
    """

    prefix: str
    build: UUID | None = None


@dataclass(eq=False, repr=False, kw_only=True)
class ConfigDiffers(Conflict):
    """The prefix was built with another configuration. Raise the version in search-config.toml.

    `differences` has the values of the keys, without what may be secret. `build` is not set for a model that
    this registry did not build.
    """

    prefix: str
    build: UUID | None = None
    keys: tuple[str, ...]
    differences: tuple[Difference, ...]


@dataclass(eq=False, repr=False, kw_only=True)
class BuildEnded(Conflict):
    """The build has ended already, so this cannot be done any more."""

    build: UUID
    state: BuildState


@dataclass(eq=False, repr=False, kw_only=True)
class RetryRefused(Conflict):
    """This build cannot be retried.

    `build` is the build that was to be retried, and `held_by` the one that has its prefix, if there is one.
    """

    build: UUID
    prefix: str
    reason: RetryRefusal
    held_by: UUID | None = None


@dataclass(frozen=True)
class LostInput:
    """Something that a model was made from, and that cannot be had as it was recorded any more."""

    what: Pinned
    name: str
    reason: str


@dataclass(eq=False, repr=False, kw_only=True)
class NotReproducible(Conflict):
    """This model cannot be made again.

    `not_pinned` are the inputs that cannot be had as they were recorded any more, if that is the reason.
    """

    prefix: str
    reason: Irreproducible
    not_pinned: tuple[LostInput, ...] | None = None


@dataclass(eq=False, repr=False, kw_only=True)
class GateRefused(Conflict):
    """A promotion gate is closed. Send override with a note that says why."""

    gate: Literal["stage_order", "verdict", "artifacts", "signature"]
    required_stage: Stage | None = None
    artifacts: tuple[str, ...] | None = None


@dataclass(eq=False, repr=False, kw_only=True)
class StageChanged(Conflict):
    """The stage does not run the model that the request expects. Look at GET /stages, and decide again."""

    expected: str
    running: str | None


class NothingToRollBackTo(Conflict):
    """No other model ran in this stage before. Promote one with POST /models/{prefix}/promotions."""


@dataclass(eq=False, repr=False, kw_only=True)
class ArtifactsMissing(RegistryError):
    """The bucket lacks files of the model. Restore them, and have POST /mirror/reconcile look at them."""

    prefix: str
    artifacts: tuple[str, ...]


@dataclass(eq=False, repr=False, kw_only=True)
class NotKept(RegistryError):
    """Garbage collection has the model. GET /models/{prefix} shows how far it has got.

    `since` is when it was marked. `reason` is why: a code, with the words in the message.
    """

    prefix: str
    state: ModelState
    since: datetime
    reason: str


class ModelMarked(NotKept):
    """Garbage collection will delete the model. POST /models/{prefix}/restore keeps it."""


class ModelCollected(NotKept):
    """Garbage collection has deleted the model's files, or is deleting them. They cannot be restored."""


@dataclass(eq=False, repr=False, kw_only=True)
class PrefixCollected(Conflict):
    """The model of this prefix was collected, and its prefix is not used again. Raise the version."""

    prefix: str


@dataclass(eq=False, repr=False, kw_only=True)
class CollectionRefused(Conflict):
    """The model cannot be collected. GET /models/{prefix} shows what it is used for.

    `rule` is the rule of the database that refused it.
    """

    prefix: str
    rule: str


class CollectionOff(Conflict):
    """REGISTRY_GC is `off`, so garbage collection deletes nothing. Set it to `plan` or `on`."""


@dataclass(eq=False, repr=False, kw_only=True)
class PlanChanged(Conflict):
    """The plan has changed since it was shown. Look at the result of a new dry run.

    `digest` is that of the plan now.
    """

    digest: str


@dataclass(eq=False, repr=False, kw_only=True)
class CollectionTooLarge(Conflict):
    """The run would delete too large a share of all models. Look at the result of a dry run.

    It would mark or delete `models` of all models, which are `of`. `most` are allowed.
    """

    models: int
    of: int
    most: int


@dataclass(eq=False, repr=False, kw_only=True)
class NotAStray(Conflict):
    """What is under this prefix is not deleted, because the registry knows or may still need it."""

    prefix: str


class BucketUnavailable(RegistryError):
    """S3 cannot be asked at the moment. Send the request again."""


@dataclass(eq=False, repr=False, kw_only=True)
class RunActive(Conflict):
    """Another run of this kind is under way. Wait for it, or stop it."""

    run: UUID | None


@dataclass(eq=False, repr=False, kw_only=True)
class TokenNameTaken(Conflict):
    """Another token has this name. Choose another name, or revoke that token first."""

    name: str


class TokensUnavailable(RegistryError):
    """The database did not say whether it knows the token. Send the request again."""


class Invalid(RegistryError):
    """The content of the request is not valid."""


@dataclass(eq=False, repr=False, kw_only=True)
class InvalidConfig(Invalid):
    """The search configuration is not valid. `field` is where it stands in the request."""

    field: Literal["search_config", "base_search_config"] = "search_config"
    problems: tuple[ConfigProblem, ...] = ()


@dataclass(eq=False, repr=False, kw_only=True)
class InvalidThresholds(Invalid):
    """The thresholds are not valid. Correct the file."""

    problems: tuple[ConfigProblem, ...] = ()


class Unauthorized(RegistryError):
    """This call needs a token that the registry knows."""


class IdentityRefused(Unauthorized):
    """The identity token of this workflow is not accepted."""


class IdentityUnavailable(RegistryError):
    """The issuer of the identity tokens does not answer. Send the request again."""


class SignInOff(Conflict):
    """No workflow can sign in here: the operator has not set REGISTRY_GITHUB_AUDIENCE."""


@dataclass(eq=False, repr=False, kw_only=True)
class Forbidden(RegistryError):
    """The caller may not do this."""

    required_scope: Scope | None = None
