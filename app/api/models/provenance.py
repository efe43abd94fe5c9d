"""The documents of a model that stay for ever, and the public keys that its signature is verified with."""

from datetime import datetime
from typing import Annotated, Self

from fastapi import APIRouter, Path, Response
from pydantic import BaseModel, ConfigDict, Field

from app.api.common import examples
from app.api.common.deps import BucketDep, DatabaseDep, Db, PrefixPath
from app.api.common.errors import problems
from app.api.common.strict import StrictRoute
from app.aws import CloudError
from app.db.tables import SigningKey
from app.registry.errors import ArtifactsMissing, ModelCollected, NotFound
from app.registry.models import documents, signatures
from app.storage.keys import CONTENT_TYPES
from app.words import Document

router = APIRouter(tags=["models"], route_class=StrictRoute)

_IN_TOTO = "application/vnd.in-toto+json"


class SigningKeyOut(BaseModel):
    """The public half of a key that models were signed with."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.SIGNING_KEY]})

    fingerprint: str = Field(
        description="The sha256 of the public key, by which a signature and a model name it."
    )
    public_key: str = Field(description="In PEM, as `model_signing verify key --public_key` reads it.")
    first_used_at: datetime

    @classmethod
    def of(cls, key: SigningKey) -> Self:
        return cls(fingerprint=key.fingerprint, public_key=key.public_key, first_used_at=key.first_used_at)


class SigningKeys(BaseModel):
    """The keys that models were signed with, newest first."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"items": [examples.SIGNING_KEY]}]})

    items: list[SigningKeyOut]


@router.get(
    "/signing-keys",
    operation_id="models:keys",
    summary="The public keys of the models' signatures",
    response_description="The keys",
    responses=problems(),
)
def signing_keys(db: Db) -> SigningKeys:
    """Every key that models were signed with. Empty if none was signed.

    Whoever does not trust the registry itself gets the key once in another way, and keeps it.
    """
    return SigningKeys(items=[SigningKeyOut.of(key) for key in signatures.keys(db)])


@router.get(
    "/models/{prefix}/provenance",
    operation_id="models:provenance",
    summary="What a model was made from",
    response_class=Response,
    responses={
        200: {
            "description": "An in-toto Statement v1 with SLSA Provenance v1, as it was published",
            "content": {_IN_TOTO: {"schema": {"type": "object"}, "example": examples.PROVENANCE}},
        },
        **problems(NotFound, ModelCollected, ArtifactsMissing, CloudError),
    },
)
def provenance(prefix: PrefixPath, database: DatabaseDep, bucket: BucketDep) -> Response:
    """The model's `provenance.json`, which its signature covers.

    It has every file that the build made, every input that it used, and when it ran. An imported model has
    none, because nobody recorded what it was made from.
    """
    statement = documents.read(database, bucket, prefix, Document.PROVENANCE)
    return Response(statement, media_type=_IN_TOTO)


@router.get(
    "/models/{prefix}/documents/{name}",
    operation_id="models:document",
    summary="A document of a model that outlives its files",
    response_class=Response,
    responses={
        200: {
            "description": "The document as it was published",
            "content": {
                CONTENT_TYPES[Document.PROVENANCE]: {
                    "schema": {"type": "object"},
                    "example": examples.PROVENANCE,
                },
                CONTENT_TYPES[Document.SIGNATURE]: {
                    "schema": {"type": "object"},
                    "example": examples.SIGNATURE_BUNDLE,
                },
            },
        },
        **problems(NotFound, ModelCollected, ArtifactsMissing, CloudError),
    },
)
def document(
    prefix: PrefixPath,
    name: Annotated[Document, Path(description="The document's name.", examples=[Document.PROVENANCE])],
    database: DatabaseDep,
    bucket: BucketDep,
) -> Response:
    """The same bytes before and after the model is collected.

    With `model.sig`, a copy of a collected model's files can still be verified. `check_result.json` is there
    for imported models; what the validation of others found is in GET /models/{prefix}/validation.
    """
    content = documents.read(database, bucket, prefix, name)
    return Response(content, media_type=CONTENT_TYPES[name])
