"""The Python environment that a model was trained in, as the training describes it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Self
from uuid import UUID

from pydantic import BaseModel, StringConstraints, ValidationError
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db.tables import BuildInput, Input
from app.words import InputKind

# Far more than any environment has.
MOST_PACKAGES = 5_000

_Short = Annotated[str, StringConstraints(max_length=200)]


class _Package(BaseModel):
    name: _Short
    version: _Short


class _Content(BaseModel):
    packages: list[_Package]


@dataclass(frozen=True)
class Environment:
    """Versions by the names of packages."""

    packages: Mapping[str, str]

    @classmethod
    def of_json(cls, text: bytes) -> Self | None:
        """None for a text that is not the description of an environment, or too long to be one."""
        try:
            found = _Content.model_validate_json(text)
        except ValidationError:
            return None
        if len(found.packages) > MOST_PACKAGES:
            return None
        return cls({one.name: one.version for one in found.packages})

    @classmethod
    def of_stored(cls, stored: Mapping[str, Any] | None) -> Self | None:
        """None where a release that did not store it has recorded the environment."""
        try:
            return None if stored is None else cls(_Stored.model_validate(stored).packages)
        except ValidationError:
            return None

    def to_stored(self) -> dict[str, Any]:
        return {"packages": dict(self.packages)}


class _Stored(BaseModel):
    packages: dict[str, str]


def of_build(session: Session, build_id: UUID) -> Environment | None:
    """The environment of the training. None if nobody recorded its packages."""
    stored = session.scalar(
        select(Input.content)
        .join(BuildInput, BuildInput.sha256 == Input.sha256)
        .where(BuildInput.build_id == build_id, BuildInput.kind == InputKind.PYTHON_ENVIRONMENT)
        # That of a benchmark in another environment is named after that of the training, and so comes later.
        .order_by(BuildInput.name)
        .limit(1)
    )
    return Environment.of_stored(stored)
