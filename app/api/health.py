"""Health checks: whether the process is alive, and whether it can serve requests."""

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from app.api.common import examples
from app.api.common.deps import AdmissionDep, DatabaseDep
from app.api.common.strict import PublicRoute
from app.api.probe import BucketProbe
from app.db import migrate
from app.registry.access import tokens

router = APIRouter(tags=["health"], route_class=PublicRoute)


class Health(BaseModel):
    """The answer of a process that is alive."""

    status: Literal["ok"] = Field(examples=["ok"])


class Readiness(BaseModel):
    """For each part, `ok` or what is wrong. The service is ready if the database and its schema are."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.READY, examples.NOT_READY]})

    ready: bool
    database: str = Field(examples=["ok"])
    migrations: str = Field(examples=["ok"])
    bucket: str = Field(
        description="Only for information: what S3 answered when it was last asked.", examples=["ok"]
    )
    access: str = Field(
        description="Only for information: who may call, with a consequence that may be surprising.",
        examples=["reads: reading is open, and writing needs a token"],
    )


async def get_probe(request: Request) -> BucketProbe:
    probe: BucketProbe = request.app.state.bucket_probe
    return probe


@router.get(
    "/healthz",
    operation_id="health:live",
    summary="Whether the process is alive",
    response_description="The process is alive",
)
async def healthz() -> Health:
    """Checks only the process itself: it must not be killed because the database cannot be reached."""
    return Health(status="ok")


@router.get(
    "/readyz",
    operation_id="health:ready",
    summary="Whether the service is ready",
    response_description="Ready",
    responses={503: {"model": Readiness, "description": "Not ready"}},
)
def readyz(
    database: DatabaseDep,
    probe: Annotated[BucketProbe, Depends(get_probe)],
    admission: AdmissionDep,
    response: Response,
) -> Readiness:
    """Checks that the database answers, and compares its schema with the code's.

    A schema that is newer than the code is fine, because a deployment may be under way. The bucket does not
    count, because deployments, builds and promotions go on while S3 is not available.
    """
    database_status = migrations = "ok"
    created: bool | None = None
    try:
        with database.engine.connect() as connection:
            connection.execute(select(1))
            at = migrate.current(connection)
        if migrate.compare(at) == "behind":
            wanted, at = migrate.head(), at or "nothing"
            migrations = f"the schema is at {at}, the code at {wanted}: run `tariff-registry migrate`"
        else:
            created = database.read(tokens.may_somebody_write)
    except SQLAlchemyError as exc:
        database_status, migrations = f"unreachable ({type(exc).__name__})", "unknown"
    ready = database_status == migrations == "ok"
    if not ready:
        response.status_code = 503
    return Readiness(
        ready=ready,
        database=database_status,
        migrations=migrations,
        bucket=probe.status(),
        access=admission.policy.summary(created=created),
    )
