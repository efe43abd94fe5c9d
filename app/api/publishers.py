"""Signing in from CI without a secret: trusted publishers, and the short-lived tokens that they get."""

from datetime import datetime
from typing import Annotated, Self
from uuid import UUID

from fastapi import APIRouter, Path, Request
from pydantic import BaseModel, ConfigDict, Field

from app.api.common import examples
from app.api.common.deps import CanAdminister, DatabaseDep, Db, Limit, NextCursor, PageCursor
from app.api.common.errors import problems
from app.api.common.shown import ShownActor
from app.api.common.strict import PublicRoute, StrictRoute
from app.api.common.text import Line
from app.db.tables import TrustedPublisher
from app.identity import Issuer, IssuerUnavailable, NotGenuine
from app.registry.access import publishers
from app.registry.access.publishers import PublisherRequest
from app.registry.errors import IdentityRefused, IdentityUnavailable, NotFound, SignInOff
from app.words import Scope

router = APIRouter(tags=["tokens"], route_class=StrictRoute)
public_router = APIRouter(tags=["tokens"], route_class=PublicRoute)

# The largest number that the database keeps.
_LARGEST_ID = (1 << 63) - 1


class GithubSignIn(BaseModel):
    """The identity token of a job of GitHub Actions."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [examples.GITHUB_SIGN_IN]})

    token: Line = Field(
        min_length=1,
        max_length=16_384,
        description="What GitHub answers at `ACTIONS_ID_TOKEN_REQUEST_URL`, with the audience that this "
        "registry's operator has set (REGISTRY_GITHUB_AUDIENCE). It can be used once.",
    )


class SignedInOut(BaseModel):
    """A short-lived token."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.SIGNED_IN]})

    token: str = Field(
        description="What the job sends as `Authorization: Bearer <token>`. It is shown only in this answer."
    )
    name: str = Field(
        description="Under this name, everything that is done with the token is recorded.",
        examples=[examples.SIGNED_IN["name"]],
    )
    scopes: list[str]
    expires_at: datetime


class PublisherCreate(BaseModel):
    """A workflow that may sign in, and what it may do then."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [examples.PUBLISHER_CREATE]})

    name: Line = Field(min_length=1, max_length=100, description="What people call this rule.")
    repository_id: int = Field(
        ge=1,
        le=_LARGEST_ID,
        strict=True,
        description="The id of the workflow's repository: `gh api repos/OWNER/NAME --jq .id`. Ids are used "
        "because somebody else can take a name that was given up.",
    )
    repository_owner_id: int = Field(
        ge=1,
        le=_LARGEST_ID,
        strict=True,
        description="The id of the repository's owner: `gh api repos/OWNER/NAME --jq .owner.id`.",
    )
    workflow: Line = Field(
        min_length=1,
        max_length=200,
        pattern=r"^[^/@]+\.ya?ml$",
        description="The name of the workflow's file in `.github/workflows/`.",
    )
    ref: Line | None = Field(
        default=None,
        min_length=1,
        max_length=500,
        description="The ref that the workflow runs for. `*` stands for anything: `refs/heads/main`, "
        "`refs/pull/*/merge`. A rule needs a ref or an environment; if it has both, both must match.",
    )
    environment: Line | None = Field(
        default=None, min_length=1, max_length=300, description="The GitHub environment of the job."
    )
    scopes: list[Scope] = Field(
        min_length=1,
        max_length=len(Scope),
        description="What the workflow may do: only what the rule's creator may do, and never `admin`.",
    )


class PublisherOut(BaseModel):
    """A workflow that may sign in."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.PUBLISHER]})

    id: UUID
    name: str
    repository_id: int
    repository_owner_id: int
    workflow: str
    ref: str | None
    environment: str | None
    scopes: list[str]
    created_at: datetime
    created_by: str
    created_by_kind: ShownActor

    @classmethod
    def of(cls, rule: TrustedPublisher) -> Self:
        return cls(
            id=rule.id,
            name=rule.name,
            repository_id=rule.repository_id,
            repository_owner_id=rule.repository_owner_id,
            workflow=rule.workflow,
            ref=rule.ref,
            environment=rule.environment,
            scopes=rule.scopes,
            created_at=rule.created_at,
            created_by=rule.created_by,
            created_by_kind=rule.created_by_kind,
        )


class PublisherPage(BaseModel):
    """Trusted publishers, newest first."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"items": [examples.PUBLISHER], "next": None}]})

    items: list[PublisherOut]
    next: NextCursor


@public_router.post(
    "/auth/github",
    operation_id="tokens:exchange",
    summary="Sign in from GitHub Actions",
    status_code=201,
    response_description="A token that is valid for 15 minutes",
    responses=problems(IdentityRefused, IdentityUnavailable, SignInOff),
)
def sign_in(body: GithubSignIn, request: Request, database: DatabaseDep) -> SignedInOut:
    """Give the identity token of a job, and get a token with what its trusted publishers may do.

    The job needs the permission `id-token: write`. The command line does this by itself.
    """
    issuer: Issuer | None = request.app.state.issuer
    if issuer is None:
        raise SignInOff
    # The issuer is asked for its keys here, so there must be no transaction yet.
    try:
        claims = issuer.claims(body.token)
    except NotGenuine as exc:
        message = f"The identity token is not accepted: {exc}."
        raise IdentityRefused(message) from exc
    except IssuerUnavailable as exc:
        message = f"Nobody can sign in at the moment, because {exc}. Send the request again."
        raise IdentityUnavailable(message) from exc
    with database.transaction() as session:
        signed_in = publishers.sign_in(session, claims)
        token = signed_in.token
        return SignedInOut(
            token=signed_in.secret, name=token.name, scopes=token.scopes, expires_at=token.expires_at
        )


@router.post(
    "/trusted-publishers",
    operation_id="tokens:trust",
    summary="Trust a CI workflow",
    status_code=201,
    response_description="The trusted publisher",
    responses=problems(),
)
def create(body: PublisherCreate, who: CanAdminister, db: Db) -> PublisherOut:
    """Let a workflow of GitHub Actions sign in with `POST /auth/github`. Needs the scope `admin`.

    Workflows that run for events from forks, such as `pull_request_target`, cannot sign in.
    """
    wanted = PublisherRequest(
        name=body.name,
        repository_id=body.repository_id,
        repository_owner_id=body.repository_owner_id,
        workflow=body.workflow,
        scopes=frozenset(body.scopes),
        ref=body.ref,
        environment=body.environment,
    )
    return PublisherOut.of(publishers.trust(db, who, wanted))


@router.get(
    "/trusted-publishers",
    operation_id="tokens:trusted",
    summary="The CI workflows that may sign in",
    response_description="A page of trusted publishers",
    responses=problems(),
)
def list_publishers(_who: CanAdminister, db: Db, cursor: PageCursor, limit: Limit = 50) -> PublisherPage:
    """The trusted publishers, newest first. Needs the scope `admin`."""
    page = publishers.find(db, limit=limit, cursor=cursor)
    return PublisherPage(items=[PublisherOut.of(rule) for rule in page.items], next=page.next_cursor)


@router.delete(
    "/trusted-publishers/{id}",
    operation_id="tokens:distrust",
    summary="Trust a CI workflow no longer",
    response_description="The trusted publisher that was removed",
    responses=problems(NotFound),
)
def remove(
    id: Annotated[UUID, Path(description="The trusted publisher's id.")],  # noqa: A002 - the contract's name
    who: CanAdminister,
    db: Db,
) -> PublisherOut:
    """The workflow cannot sign in any more. Needs the scope `admin`.

    Tokens that it has got already are valid for up to 15 minutes more; `DELETE /tokens/{id}` revokes them.
    """
    return PublisherOut.of(publishers.remove(db, who, id))


ROUTERS = (public_router, router)
