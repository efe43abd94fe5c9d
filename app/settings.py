"""The settings of the service, which are read from the environment once, at the start."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import time, timedelta
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from app.webhooks import SigningSecret
from app.words import Access, CollectionMode, NotificationKind, Scope, known


def _split(value: object) -> object:
    return (
        tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value
    )


CommaSeparated = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]

_TOKEN = re.compile(r"(?P<name>[^=:\s]+)=(?P<digest>[0-9a-fA-F]{64})(?::(?P<scopes>\S+))?")


@dataclass(frozen=True)
class Token:
    """A token: the name of its owner, its sha256 in lower case, and what it may do."""

    name: str
    digest: str
    scopes: frozenset[Scope]

    @classmethod
    def parse(cls, entry: str) -> Self:
        """An entry of REGISTRY_API_TOKENS: `name=sha256` or `name=sha256:scope+scope`. Raises ValueError."""
        found = _TOKEN.fullmatch(entry)
        if found is None:
            # The message does not quote the entry, because it may contain a token by mistake.
            message = (
                "is not name=sha256 or name=sha256:scope+scope. "
                "Get the sha256 with: printf %s TOKEN | sha256sum"
            )
            raise ValueError(message)
        scopes = frozenset(Scope) - {Scope.ADMIN}
        if found["scopes"] is not None:
            named = found["scopes"].split("+")
            if unknown := [word for word in named if known(Scope, word) is None]:
                message = (
                    f"names the scopes {unknown}, which do not exist. The scopes are: {', '.join(Scope)}"
                )
                raise ValueError(message)
            scopes = frozenset(Scope(word) for word in named)
        return cls(found["name"], found["digest"].lower(), scopes)


def _entries(variable: str, parse: Callable[[str], object]) -> BeforeValidator:
    """Reads entries that are separated by commas. A message names the position of an entry, not its text."""

    def read(value: object) -> object:
        if not isinstance(value, str):
            return value
        found = []
        for position, entry in enumerate(filter(None, (part.strip() for part in value.split(","))), start=1):
            try:
                found.append(parse(entry))
            except ValueError as exc:
                message = f"{variable}: entry {position} {exc}"
                raise ValueError(message) from None
        return tuple(found)

    return BeforeValidator(read)


# A test message goes to every target, whatever kinds are chosen.
_KINDS = tuple(kind for kind in NotificationKind if kind is not NotificationKind.TEST)


def _chosen(kinds: tuple[NotificationKind, ...]) -> tuple[NotificationKind, ...]:
    if not kinds or set(kinds) - set(_KINDS):
        message = f"name at least one of: {', '.join(_KINDS)}"
        raise ValueError(message)
    return kinds


# A collection can mark thousands of models, and people want to read one message about it.
_FOR_PROGRAMS = (
    NotificationKind.MODEL_MARKED,
    NotificationKind.MODEL_RESTORED,
    NotificationKind.MODEL_COLLECTED,
)

Kinds = Annotated[tuple[NotificationKind, ...], NoDecode, BeforeValidator(_split), AfterValidator(_chosen)]

_LOOPBACK = ("127.0.0.1", "::1", "localhost")


class SettingsError(Exception):
    """The environment variables are not valid settings. The text says which ones are wrong."""


class Settings(BaseSettings):
    """All settings as one frozen value, which is built at the start and passed down.

    The name of a setting in the environment is `REGISTRY_` and the field's name in capitals, except for the
    few that other tools use too (`DATABASE_URL`, `AWS_ENDPOINT_URL`, `AWS_REGION`).
    """

    model_config = SettingsConfigDict(
        env_prefix="REGISTRY_", frozen=True, extra="ignore", populate_by_name=True, hide_input_in_errors=True
    )

    database_url: SecretStr = Field(
        validation_alias="DATABASE_URL",
        description="Postgres 15 or newer: `postgresql://user:password@host/name`",
    )
    aws_endpoint_url: str | None = Field(
        default=None, validation_alias="AWS_ENDPOINT_URL", description="only for a simulated AWS"
    )
    region: str = Field(default="eu-west-2", validation_alias="AWS_REGION", description="the AWS region")

    bucket: str = Field(default="tariff-models", description="the registry's bucket")
    presigned_url_lifetime: timedelta = Field(
        default=timedelta(hours=1),
        ge=timedelta(minutes=1),
        le=timedelta(days=7),
        description="how long a download URL is valid, at most; "
        "it also ends with the credentials of the role that it is signed with",
    )
    latest_max_age: timedelta = Field(
        default=timedelta(milliseconds=100),
        ge=timedelta(0),
        le=timedelta(seconds=10),
        description="how old an answer of `GET /models/{stage}/latest` from memory may be; with 0, each "
        "answer comes from the database",
    )
    access: Access = Field(
        default=Access.READS,
        description="who may call: `open` (everyone may do everything), `reads` (reading is open, writing "
        "needs a token) or `tokens` (everything needs a token)",
    )
    open_to_network: bool = Field(
        default=False,
        description="lets `open` access listen on addresses that others can reach",
    )
    api_tokens: Annotated[tuple[Token, ...], NoDecode, _entries("REGISTRY_API_TOKENS", Token.parse)] = Field(
        default=(),
        description="tokens to start with: `name=sha256` or `name=sha256:scope+scope`, comma-separated; "
        "without scopes a token may do everything but `admin`",
    )

    github_issuer: str = Field(
        default="https://token.actions.githubusercontent.com",
        pattern=r"^https?://\S+$",
        description="who issues the identity tokens of CI workflows; on GitHub Enterprise Server it is "
        "`https://HOST/_services/token`",
    )
    github_audience: str | None = Field(
        default=None,
        min_length=1,
        description="the audience (`aud`) that CI workflows ask GitHub for to sign in here, such as this "
        "registry's address; without it, none can sign in",
    )

    public_url: str | None = Field(
        default=None,
        pattern=r"^https?://\S+$",
        description="this registry's own address, such as `https://registry.example`, for the links in "
        "notifications",
    )
    webhook_url: SecretStr | None = Field(
        default=None, description="where the worker posts what happens, as JSON; without it, nowhere"
    )
    webhook_secret: Annotated[
        tuple[SigningSecret, ...], NoDecode, _entries("REGISTRY_WEBHOOK_SECRET", SigningSecret.parse)
    ] = Field(
        default=(),
        description="what these messages are signed with: `whsec_…`; during a rotation the new and the old "
        "secret, separated by a comma",
    )
    webhook_events: Kinds = Field(
        default=_KINDS, description="the kinds of messages that are posted there, comma-separated"
    )
    slack_webhook_url: SecretStr | None = Field(
        default=None,
        description="the address of an incoming webhook of Slack, to which the worker sends messages",
    )
    slack_events: Kinds = Field(
        default=tuple(kind for kind in _KINDS if kind not in _FOR_PROGRAMS),
        description="the kinds of messages that are sent to Slack, comma-separated",
    )

    image_name_pattern: str = Field(
        default="FPO Training *",
        description="the name of the machine images; the newest available image is used",
    )
    image_owners: CommaSeparated = Field(default=("self",), description="the owners of the machine images")
    subnet_cidr: str = Field(default="10.0.1.0/24", description="the subnet that instances are launched in")
    security_group: str = Field(default="fpo-training", description="the instances' security group, by name")
    instance_type: str = Field(default="g5.xlarge", description="the type of the instances")
    key_name: str = Field(
        default="fpo-training", description="the EC2 key pair that instances are launched with"
    )
    ssh_key_secret: str = Field(
        default="fpo-training-ssh-key", description="the Secrets Manager secret that holds its private key"
    )
    ssh_user: str = Field(default="ubuntu", description="the images' login user")
    ssh_port: int = Field(default=22, ge=1, le=65535, description="the instances' SSH port")
    instance_address: Literal["private", "public"] = Field(
        default="private", description="which address of an instance the worker connects to"
    )
    instance_lifetime: timedelta = Field(
        default=timedelta(hours=36),
        ge=timedelta(hours=1),
        description="an instance shuts itself down, and is thereby terminated, this long after its launch. "
        "This must be longer than the deadlines of all steps that use the instance together; they include "
        "a day in which the bucket cannot be reached",
    )
    signing_key: SecretStr | None = Field(
        default=None,
        description="the private key that the worker signs models with: ECDSA on the curve P-256, in PEM",
    )
    signing_key_secret: str | None = Field(
        default=None,
        min_length=1,
        description="the Secrets Manager secret that holds this key, instead of `REGISTRY_SIGNING_KEY`",
    )
    code_repository: str | None = Field(
        default=None,
        description="a git checkout on the worker's machine from which it sends the code; "
        "if this is not set, the instance fetches the code from the origin of its own clone",
    )

    job_silence: timedelta = Field(
        default=timedelta(hours=1),
        ge=timedelta(minutes=1),
        description="a training that writes neither log lines nor progress for this long has failed",
    )

    checkpoint_copy_every: timedelta = Field(
        default=timedelta(minutes=10),
        gt=timedelta(0),
        description="how often the checkpoints of a running training are copied to the bucket, for the case "
        "that its instance ends; large ones are copied less often, so that this takes at most a tenth of the "
        "time",
    )

    worker_concurrency: int = Field(
        default=20, ge=1, description="how many builds one worker process works on at the same time"
    )
    lease: timedelta = Field(
        default=timedelta(seconds=9),
        description="how long a worker holds a build without renewing its lease",
    )
    heartbeat: timedelta = Field(
        default=timedelta(seconds=2), description="how often a worker tells the queue that it is alive"
    )
    stalled_after: timedelta = Field(
        default=timedelta(seconds=6),
        description="how long a worker may be silent before other workers get its jobs",
    )
    upkeep_every_s: int = Field(
        default=15, ge=1, le=59, description="how many seconds pass between two runs of the janitor"
    )
    orphan_grace: timedelta = Field(
        default=timedelta(minutes=10),
        description="how old an instance that no active build owns must be before it is terminated",
    )
    retry_window: timedelta = Field(
        default=timedelta(hours=24),
        ge=timedelta(0),
        description="how long the files that a failed or cancelled build has collected are kept, so that a "
        "retry can take them over",
    )
    allow_prereleases: bool = Field(
        default=True,
        description="whether models of pre-release versions, such as 0.1.0-rc.1, may be requested; existing "
        "tools that look for 0.1.0 also find those",
    )
    reconcile_at: time = Field(
        default=time(3, 0),
        description="when, each night in UTC, the bucket is compared with the database",
    )
    git_remote: SecretStr | None = Field(
        default=None,
        description="the address of the git repository whose branches decide which models garbage "
        "collection may delete; if this is not set, the origin of `REGISTRY_CODE_REPOSITORY`",
    )
    gc_main_branch: str | None = Field(
        default=None,
        min_length=1,
        description="the main branch; if this is not set, the one that the remote's HEAD names",
    )
    gc_bot_branches: CommaSeparated = Field(
        default=("dependabot/*", "renovate/*"),
        description="branches that keep no model, as patterns in which `*` also stands for slashes",
    )
    gc_branches_every_min: int = Field(
        default=5, ge=1, le=59, description="how many minutes pass between two looks at the branches"
    )
    gc_branches_max_age: timedelta = Field(
        default=timedelta(hours=1),
        ge=timedelta(minutes=1),
        description="what is known of the branches counts for this long; then nothing may be deleted until "
        "the git repository has been read again",
    )
    gc_minimum_age: timedelta = Field(
        default=timedelta(days=14),
        ge=timedelta(0),
        description="garbage collection keeps models that were published more recently than this",
    )
    gc_keep_newest_passed: int = Field(
        default=10,
        ge=0,
        le=10_000,
        description="garbage collection keeps so many of the newest models that passed their validation",
    )
    gc_keep_branches: CommaSeparated = Field(
        default=(),
        description="branches whose models are always kept, as patterns such as `release/*`",
    )
    gc_keep_versions: CommaSeparated = Field(
        default=(), description="versions whose models are always kept, as patterns such as `1.0.*`"
    )
    gc_retire_after: timedelta | None = Field(
        default=None,
        ge=timedelta(days=1),
        description="models that reached staging or production may go this long after other models have "
        "taken their place there, if an administrator has released them; if this is not set, they never go",
    )
    gc_rollback_targets: int = Field(
        default=5,
        ge=1,
        le=1000,
        description="of each stage, so many of the last models stay whatever `REGISTRY_GC_RETIRE_AFTER` says",
    )
    gc: CollectionMode = Field(
        default=CollectionMode.PLAN,
        description="garbage collection: `off` (nothing is deleted, whoever asks), `plan` (each night a run "
        "shows what would be deleted; people can have it deleted) or `on` (each night it is deleted)",
    )
    gc_at: time = Field(default=time(4, 0), description="when that is, in UTC")
    gc_grace: timedelta = Field(
        default=timedelta(days=7),
        ge=timedelta(0),
        description="how long a model stays marked, and can be restored, before its files are deleted",
    )
    gc_most_at_once: float = Field(
        default=0.2,
        ge=0,
        le=1,
        description="a run that would mark or delete a larger share of all models is refused unless the "
        "request allows it",
    )
    gc_delete_versions: bool = Field(
        default=False,
        description="in a bucket that keeps versions, whether every version of what garbage collection "
        "deletes is deleted",
    )
    thresholds_file: Path | None = Field(
        default=None,
        description="a file of thresholds for builds that are posted without one; the API reads it at its "
        "start",
    )
    accuracy_tolerance: float = Field(
        default=0.02,
        ge=0,
        le=1,
        description="how far the share of right answers in a benchmark may fall below the baseline's before "
        "the verdict is `failed`, where no thresholds are given",
    )

    reproduction_tolerance: float = Field(
        default=0.005,
        ge=0,
        le=1,
        description="how far each share in a benchmark may differ from the original's for a reproduction to "
        "count as `equivalent`",
    )

    @classmethod
    def from_environment(cls) -> Self:
        """The settings of this process. Raises SettingsError."""
        try:
            return cls()
        except ValidationError as exc:
            lines = [
                f"{'.'.join(str(part) for part in error['loc'])}: {error['msg']}" for error in exc.errors()
            ]
            message = "\n  ".join(["The environment does not configure the service:", *lines])
            message += "\nThe README lists the settings; `tariff-registry up` needs none."
            raise SettingsError(message) from exc

    @model_validator(mode="after")
    def _check(self) -> Self:
        try:
            postgres = make_url(self.database_url.get_secret_value()).drivername.startswith("postgres")
        except ArgumentError:
            postgres = False
        if not postgres:
            msg = "DATABASE_URL must look like postgresql://user:password@host/name"
            raise ValueError(msg)
        if self.lease < timedelta(seconds=1):
            msg = "REGISTRY_LEASE must be at least one second"
            raise ValueError(msg)
        if self.signing_key is not None and self.signing_key_secret is not None:
            msg = "REGISTRY_SIGNING_KEY and REGISTRY_SIGNING_KEY_SECRET both name a key. Set one of them"
            raise ValueError(msg)
        self._check_notifications()
        issuer = urlsplit(self.github_issuer)
        if issuer.scheme == "http" and issuer.hostname not in _LOOPBACK:
            msg = "REGISTRY_GITHUB_ISSUER must begin with https://: its keys decide who may sign in"
            raise ValueError(msg)
        if self.stalled_after <= self.heartbeat:
            msg = "REGISTRY_STALLED_AFTER must be longer than REGISTRY_HEARTBEAT, best three times as long"
            raise ValueError(msg)
        return self

    def _check_notifications(self) -> None:
        for name, secret in (
            ("REGISTRY_WEBHOOK_URL", self.webhook_url),
            ("REGISTRY_SLACK_WEBHOOK_URL", self.slack_webhook_url),
        ):
            if secret is not None and not _is_https_address(secret.get_secret_value()):
                msg = f"{name} must be an address that begins with https:// (http:// only for this machine)"
                raise ValueError(msg)
        if (self.webhook_url is None) != (not self.webhook_secret):
            msg = (
                "REGISTRY_WEBHOOK_URL and REGISTRY_WEBHOOK_SECRET belong together: receivers check by the "
                "signature that a message comes from this registry. Set both, or neither"
            )
            raise ValueError(msg)


def _is_https_address(address: str) -> bool:
    try:
        parts = urlsplit(address)
        parts.port  # noqa: B018 - raises for a port that is not one
    except ValueError:
        return False
    usable = bool(parts.hostname) and not re.search(r"\s", address)
    return usable and (parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK))
