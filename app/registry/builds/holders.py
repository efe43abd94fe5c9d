"""What has a prefix already: its model or, while there is none, the build that makes it."""

from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.db.tables import HOLDS_PREFIX, Build, Model
from app.registry.errors import ModelCollected, PrefixCollected
from app.registry.keeping import marks
from app.words import Actor, ModelState


@dataclass(frozen=True)
class Holder:
    """The model of a prefix or, while there is none, its build that is active or has succeeded.

    `build` is None for a model that was not built here, and `search_config` is None if it has no known one.
    `state` is that of a model, and None for a build.
    """

    what: Literal["model", "build"]
    sha: str
    build: UUID | None
    search_config: str | None
    state: str | None = None


def holder_of(session: Session, prefix: str) -> Holder | None:
    """What has the prefix. Models come first: a model may have been imported, and then it has no build.

    Raises PrefixCollected for the prefix of a model that was collected, or is being deleted.
    """
    model = session.execute(
        select(
            Model.sha, Model.build_id, func.coalesce(Build.search_config, Model.search_config), Model.state
        )
        .outerjoin(Build, Build.id == Model.build_id)
        .where(Model.prefix == prefix)
    ).one_or_none()
    if model is not None:
        if ModelState(model.state).gone:
            raise _collected(prefix)
        return Holder("model", *model)
    build = session.execute(
        select(Build.sha, Build.id, Build.search_config).where(Build.prefix == prefix, HOLDS_PREFIX)
    ).one_or_none()
    return None if build is None else Holder("build", *build)


def restore(session: Session, prefix: str, who: str, kind: Actor) -> None:
    """Keep the model of a prefix that is wanted again. Raises PrefixCollected if it is too late for that."""
    try:
        marks.restore(session, prefix, who, kind)
    except ModelCollected as exc:
        raise _collected(prefix) from exc


def _collected(prefix: str) -> PrefixCollected:
    message = (
        f"The model {prefix} was collected, and a prefix is never used again. Raise the version in "
        "search-config.toml."
    )
    return PrefixCollected(message, prefix=prefix)
