"""Signing a model that was published or imported without a signature."""

from typing import Self

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from app.api.common import examples
from app.api.common.deps import CanAdminister, Db, PrefixPath
from app.api.common.errors import problems
from app.api.common.strict import StrictRoute
from app.api.models.reading import SignatureOut, signature_of
from app.api.runs import RunOut
from app.registry.errors import ModelCollected, ModelMarked, NotFound, RunActive
from app.registry.runs import signing
from app.registry.runs.signing import Asked

router = APIRouter(tags=["models"], route_class=StrictRoute)


class SigningOut(BaseModel):
    """The signature that a model has, or the run that makes it."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.SIGNING]})

    prefix: str = Field(examples=["0.0.2-aff1242"])
    signature: SignatureOut | None = Field(description="Null for a model that is not signed yet.")
    run: RunOut | None = Field(description="The run that signs it. Null for a model that is signed already.")

    @classmethod
    def of(cls, asked: Asked) -> Self:
        return cls(
            prefix=asked.model.prefix,
            signature=signature_of(asked.model),
            run=None if asked.run is None else RunOut.of(asked.run),
        )


@router.post(
    "/models/{prefix}/sign",
    operation_id="models:sign",
    summary="Sign a model that has no signature",
    status_code=202,
    response_description="The run that signs it",
    responses={
        200: {"model": SigningOut, "description": "It is signed, or being signed, already; nothing changed"},
        **problems(NotFound, ModelMarked, ModelCollected, RunActive),
    },
)
def sign(prefix: PrefixPath, who: CanAdminister, db: Db, response: Response) -> SigningOut:
    """Have a worker sign a model that was published without a signature, or imported.

    The worker compares every file in the bucket with the recorded digest before it signs. The run fails, and
    says why, if a file is missing or different, or if the worker has no key to sign with. The digests of
    imported files that are not known yet are recorded first.
    """
    asked = signing.ask(db, prefix, who.name, who.kind)
    if not asked.new:
        response.status_code = 200
    return SigningOut.of(asked)
