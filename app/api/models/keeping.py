"""Whether a model is kept: what people decide against garbage collection, and for it."""

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from app.api.common import examples
from app.api.common.deps import CanAdminister, CanCollect, DatabaseDep, PrefixPath
from app.api.common.errors import problems
from app.api.common.strict import StrictRoute
from app.api.common.text import Lines
from app.api.models.reading import ModelOut, model_out
from app.api.stages.kept import KeptDep
from app.registry.errors import ModelCollected, NotFound
from app.registry.keeping import decisions, marks

router = APIRouter(tags=["models"], route_class=StrictRoute)


class PinCreate(BaseModel):
    """What the model is kept for."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [examples.PIN_CREATE]})

    note: Lines = Field(min_length=1, max_length=2000, description="What for. It is kept, and shown.")


class ReleaseCreate(BaseModel):
    """Why the model may be collected."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [examples.RELEASE_CREATE]})

    reason: Lines = Field(min_length=1, max_length=2000, description="Why. It is kept, and shown.")


@router.post(
    "/models/{prefix}/restore",
    operation_id="models:restore",
    summary="Keep a model that is marked for garbage collection",
    response_description="The model is kept",
    responses=problems(NotFound, ModelCollected),
)
def restore(prefix: PrefixPath, who: CanCollect, database: DatabaseDep, kept: KeptDep) -> ModelOut:
    """Take the mark off the model, so that its files are handed out again. A kept model stays as it is.

    It is too late once its files are being deleted. To keep the model from being marked again, pin it.
    """
    with database.transaction() as session:
        marks.restore(session, prefix, who.name, who.kind)
        answer = model_out(session, prefix)
    kept.forget()
    return answer


@router.post(
    "/models/{prefix}/pin",
    operation_id="models:pin",
    summary="Pin a model, so that it is never collected",
    response_description="The model is pinned",
    responses=problems(NotFound, ModelCollected),
)
def pin(
    prefix: PrefixPath, body: PinCreate, who: CanCollect, database: DatabaseDep, kept: KeptDep
) -> ModelOut:
    """Keep the model, whatever the policy says. A model that is marked is restored.

    A model that is pinned already stays as it is, with its first note.
    """
    with database.transaction() as session:
        decisions.pin(session, prefix, who.name, who.kind, body.note)
        answer = model_out(session, prefix)
    kept.forget()
    return answer


@router.delete(
    "/models/{prefix}/pin",
    operation_id="models:unpin",
    summary="Take the pin off a model",
    response_description="The model is not pinned",
    responses=problems(NotFound),
)
def unpin(prefix: PrefixPath, who: CanCollect, database: DatabaseDep) -> ModelOut:
    """The policy decides about the model again. A model that is not pinned stays as it is."""
    with database.transaction() as session:
        decisions.unpin(session, prefix, who.name, who.kind)
        return model_out(session, prefix)


@router.post(
    "/models/{prefix}/release",
    operation_id="models:release",
    summary="Allow a model to be collected that was in staging or production",
    response_description="The model is released",
    responses=problems(NotFound, ModelCollected),
)
def release(prefix: PrefixPath, body: ReleaseCreate, who: CanAdminister, database: DatabaseDep) -> ModelOut:
    """Without a release, the database refuses to mark a model that was ever in staging or production.

    It covers only promotions that are older than it, and no model is collected while a stage runs it. A
    model that is released already stays as it is, with its first reason.
    """
    with database.transaction() as session:
        decisions.release(session, prefix, who.name, who.kind, body.reason)
        return model_out(session, prefix)


@router.delete(
    "/models/{prefix}/release",
    operation_id="models:withdraw",
    summary="Withdraw the release of a model",
    response_description="The model is not released",
    responses=problems(NotFound, ModelCollected),
)
def withdraw_release(
    prefix: PrefixPath, who: CanAdminister, database: DatabaseDep, kept: KeptDep
) -> ModelOut:
    """A model that was in staging or production is restored if it is marked. It can be released again."""
    with database.transaction() as session:
        decisions.withdraw_release(session, prefix, who.name, who.kind)
        answer = model_out(session, prefix)
    kept.forget()
    return answer
