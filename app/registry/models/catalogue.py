"""Looks up and lists published models and their artifacts."""

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Select, exists, select
from sqlalchemy.orm import Session, selectinload

from app.db.tables import Artifact, Model, Promotion
from app.registry.errors import NotFound
from app.registry.models import states
from app.registry.pages import EVERYTHING, Cursor, Page, Search, paginate
from app.words import ModelState, Origin, Stage, Verdict


@dataclass(frozen=True)
class ArtifactRef:
    """The name of one file of a model, its key in the bucket, and the size and digest that it must have.

    The digest of an imported file is None until it has been computed.
    """

    name: str
    key: str
    sha256: str | None
    size_bytes: int


def get(session: Session, prefix: str) -> Model:
    """The model with its artifacts and promotions. Raises NotFound."""
    query = select(Model).options(selectinload(Model.artifacts), selectinload(Model.promotions))
    return _one(session, prefix, query)


def get_with_artifacts(session: Session, prefix: str, *, as_it_stays: bool = False) -> Model:
    """The model with its artifacts, without its promotions. Raises NotFound.

    `as_it_stays` keeps others from changing its row, such as its verdict, until the transaction's end.
    """
    query = select(Model).options(selectinload(Model.artifacts))
    return _one(session, prefix, query.with_for_update(read=True) if as_it_stays else query)


def get_locked(session: Session, which: str | UUID) -> Model:
    """The model of a prefix or id, for a change of its row. Others can read it and refer to it meanwhile.

    Raises NotFound.
    """
    query = select(Model).with_for_update(key_share=True).execution_options(populate_existing=True)
    if isinstance(which, str):
        return _one(session, which, query)
    model = session.scalar(query.where(Model.id == which))
    if model is None:
        message = f"There is no model with the id {which}."
        raise NotFound(message)
    return model


def _one(session: Session, prefix: str, query: Select[Model]) -> Model:
    model = session.scalar(query.where(Model.prefix == prefix))
    if model is None:
        message = (
            f"There is no model {prefix}. GET /models lists the models; "
            f"GET /builds?prefix={prefix} lists the builds of this prefix."
        )
        raise NotFound(message)
    return model


def get_artifact(session: Session, prefix: str, name: str) -> Artifact:
    """One file of a model, to hand it out.

    Raises NotFound, which names the files that the model has, ModelMarked and ModelCollected.
    """
    model = get_with_artifacts(session, prefix)
    for artifact in model.artifacts:
        if artifact.name == name:
            states.refuse_unless_kept(model)
            return artifact
    names = ", ".join(artifact.name for artifact in model.artifacts)
    message = f"Model {prefix} has no artifact {name!r}. It has: {names}."
    raise NotFound(message)


def find(
    session: Session,
    *,
    limit: int,
    cursor: Cursor | None = None,
    version: str | None = None,
    branch: str | None = None,
    stage: Stage | None = None,
    verdict: Verdict | None = None,
    origin: Origin | None = None,
    state: ModelState | None = None,
    search: Search = EVERYTHING,
) -> Page[Model]:
    """Models, newest first. `stage` keeps those that were ever promoted to it."""
    query = select(Model).options(selectinload(Model.artifacts), selectinload(Model.promotions))
    if version is not None:
        query = query.where(Model.version == version)
    if branch is not None:
        query = query.where(Model.branch == branch)
    if verdict is not None:
        query = query.where(Model.verdict == verdict)
    if origin is not None:
        query = query.where(Model.origin == origin)
    if state is not None:
        query = query.where(Model.state == state)
    query = search.narrow(query, Model.published_at, Model.prefix, Model.branch)
    if stage is not None:
        query = query.where(exists().where(Promotion.model_id == Model.id, Promotion.stage == stage))
    return paginate(
        session,
        query,
        Model.published_at,
        Model.id,
        limit=limit,
        cursor=cursor,
        by_text=search.text is not None,
    )
