"""For machines: whether the process lives, and whether it can serve."""

from typing import Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from app.api.deps import BucketDep, DatabaseDep
from app.api.strict import StrictRoute
from app.aws import CloudError
from app.db import migrate

router = APIRouter(tags=["health"], route_class=StrictRoute)


class Health(BaseModel):
    """The process answers."""

    status: Literal["ok"] = Field(examples=["ok"])


class Readiness(BaseModel):
    """`ok`, or what is wrong with each part."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"ready": True, "database": "ok", "migrations": "ok", "bucket": "ok"},
                {
                    "ready": False,
                    "database": "ok",
                    "migrations": "the schema is at 0003, the code at 0004: run `tariff-registry migrate`",
                    "bucket": "ok",
                },
            ]
        }
    )

    ready: bool
    database: str = Field(examples=["ok"])
    migrations: str = Field(examples=["ok"])
    bucket: str = Field(examples=["ok"])


@router.get("/healthz", operation_id="health:live", summary="Whether the process lives")
async def healthz() -> Health:
    """Asks nobody: a process that answers is not to be killed because the database is away."""
    return Health(status="ok")


@router.get(
    "/readyz",
    operation_id="health:ready",
    summary="Whether it can serve",
    responses={503: {"model": Readiness, "description": "Not ready"}},
)
def readyz(database: DatabaseDep, bucket: BucketDep, response: Response) -> Readiness:
    """Asks the database, compares its schema with the code's, and asks for the bucket.

    A schema that is newer than the code is fine: a deployment is under way.
    """
    database_status = migrations = bucket_status = "ok"
    try:
        with database.engine.connect() as connection:
            connection.execute(select(1))
            at = migrate.current(connection)
        if migrate.compare(at) == "behind":
            wanted, at = migrate.head(), at or "nothing"
            migrations = f"the schema is at {at}, the code at {wanted}: run `tariff-registry migrate`"
    except SQLAlchemyError as exc:
        database_status, migrations = f"unreachable ({type(exc).__name__})", "unknown"
    try:
        bucket.check()
    except CloudError as exc:
        bucket_status = str(exc)
    ready = database_status == migrations == bucket_status == "ok"
    if not ready:
        response.status_code = 503
    return Readiness(ready=ready, database=database_status, migrations=migrations, bucket=bucket_status)
