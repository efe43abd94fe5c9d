"""For machines: whether the process lives, and whether it can serve."""

from typing import Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from app.api.deps import BucketDep, DatabaseDep
from app.aws import CloudError
from app.db import migrate

router = APIRouter(tags=["health"])


class Health(BaseModel):
    status: Literal["ok"]


class Readiness(BaseModel):
    """`ok`, or what is wrong with each part."""

    ready: bool
    database: str = Field(examples=["ok"])
    migrations: str = Field(examples=["ok"])
    bucket: str = Field(examples=["ok"])


@router.get("/healthz", operation_id="health:live", summary="Whether the process lives")
def healthz() -> Health:
    return Health(status="ok")


@router.get(
    "/readyz",
    operation_id="health:ready",
    summary="Whether it can serve",
    responses={503: {"model": Readiness, "description": "Not ready"}},
)
def readyz(database: DatabaseDep, bucket: BucketDep, response: Response) -> Readiness:
    """Asks the database, compares its schema with the code's, and asks for the bucket."""
    database_status = migrations = bucket_status = "ok"
    try:
        with database.engine.connect() as connection:
            connection.execute(select(1))
            at, wanted = migrate.current(connection), migrate.head(database)
        if at != wanted:
            migrations = (
                f"the schema is at {at or 'nothing'}, the code at {wanted}: run `tariff-registry migrate`"
            )
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
