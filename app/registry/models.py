"""Published models: listed, looked up, and the latest of a stage."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ARRAY, BigInteger, Connection, Text, bindparam, exists, select, text
from sqlalchemy.orm import Session, selectinload
from sqlalchemy.types import TypeEngine

from app.db.tables import Artifact, Model, Promotion
from app.registry.errors import NotFound
from app.registry.pages import Cursor, Page, paginate
from app.words import Stage


@dataclass(frozen=True)
class ArtifactRef:
    """Where one file of a model lies, and what it must be."""

    name: str
    key: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class Latest:
    """The model that runs in a stage, as the deploy job needs it."""

    promotion_id: int
    prefix: str
    version: str
    sha: str
    verdict: str
    promoted_at: datetime
    promoted_by: str
    artifacts: tuple[ArtifactRef, ...]


def get(session: Session, prefix: str) -> Model:
    """The model with its artifacts and promotions. Raises NotFound."""
    model = session.scalar(
        select(Model)
        .where(Model.prefix == prefix)
        .options(selectinload(Model.artifacts), selectinload(Model.promotions))
    )
    if model is None:
        msg = (
            f"There is no model {prefix}. GET /models lists them; "
            f"GET /builds?prefix={prefix} shows its builds."
        )
        raise NotFound(msg)
    return model


def get_artifact(session: Session, prefix: str, name: str) -> Artifact:
    """One file of a model. Raises NotFound, naming the files that there are."""
    model = get(session, prefix)
    for artifact in model.artifacts:
        if artifact.name == name:
            return artifact
    names = ", ".join(artifact.name for artifact in model.artifacts)
    msg = f"Model {prefix} has no artifact {name!r}. It has: {names}."
    raise NotFound(msg)


def find(
    session: Session,
    *,
    limit: int,
    cursor: Cursor | None = None,
    version: str | None = None,
    branch: str | None = None,
    stage: Stage | None = None,
) -> Page[Model]:
    """Models, newest first. `stage` keeps those that were ever promoted to it."""
    query = select(Model).options(selectinload(Model.artifacts), selectinload(Model.promotions))
    if version is not None:
        query = query.where(Model.version == version)
    if branch is not None:
        query = query.where(Model.branch == branch)
    if stage is not None:
        query = query.where(exists().where(Promotion.model_id == Model.id, Promotion.stage == stage))
    return paginate(session, query, Model.published_at, Model.id, limit=limit, cursor=cursor)


# Walks one index backwards to its first row; the artifacts come along as arrays.
_LATEST = """
    SELECT p.id, m.prefix, m.version, m.sha, m.verdict, p.promoted_at, p.promoted_by,
           a.names, a.keys, a.digests, a.sizes
      FROM promotions p
      JOIN models m ON m.id = p.model_id
     CROSS JOIN LATERAL (
           SELECT array_agg(name ORDER BY name) AS names, array_agg(key ORDER BY name) AS keys,
                  array_agg(sha256 ORDER BY name) AS digests, array_agg(size_bytes ORDER BY name) AS sizes
             FROM artifacts WHERE model_id = m.id) a
     WHERE p.stage = :stage {version}
     ORDER BY p.id DESC
     LIMIT 1
"""
_COLUMNS: dict[str, TypeEngine[Any]] = {
    "names": ARRAY(Text),
    "keys": ARRAY(Text),
    "digests": ARRAY(Text),
    "sizes": ARRAY(BigInteger),
}
LATEST = text(_LATEST.format(version="")).bindparams(bindparam("stage", type_=Text)).columns(**_COLUMNS)
LATEST_OF_VERSION = (
    text(_LATEST.format(version="AND p.version = :version"))
    .bindparams(bindparam("stage", type_=Text), bindparam("version", type_=Text))
    .columns(**_COLUMNS)
)


def latest(session: Session | Connection, stage: Stage, version: str | None = None) -> Latest:
    """The model most recently promoted to the stage, of one version if given; one indexed query.

    Raises NotFound when there is none.
    """
    if version is None:
        row = session.execute(LATEST, {"stage": stage.value}).one_or_none()
    else:
        row = session.execute(LATEST_OF_VERSION, {"stage": stage.value, "version": version}).one_or_none()
    if row is None:
        which = f"No model of version {version}" if version is not None else "No model"
        msg = f"{which} was ever promoted to {stage}. Promote one with POST /models/{{prefix}}/promotions."
        raise NotFound(msg)
    artifacts = tuple(
        ArtifactRef(*of)
        for of in zip(row.names or [], row.keys or [], row.digests or [], row.sizes or [], strict=True)
    )
    return Latest(
        row.id, row.prefix, row.version, row.sha, row.verdict, row.promoted_at, row.promoted_by, artifacts
    )


def in_production(session: Session) -> Model | None:
    """The model that production runs: what a new one is validated against."""
    return session.scalar(
        select(Model)
        .join(Promotion, Promotion.model_id == Model.id)
        .where(Promotion.stage == Stage.PRODUCTION)
        .order_by(Promotion.id.desc())
        .limit(1)
    )
