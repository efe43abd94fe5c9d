"""The inputs that a job reports in `result.json`. What a machine says is checked and bounded."""

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from pydantic import BaseModel, Field, ValidationError, field_validator

from app.registry.inputs import InputRecord, Part
from app.registry.public import public_text, public_uri
from app.words import InputKind, known

SHA256 = r"[0-9a-f]{64}"
_MOST_DETAILS = 50
_LONGEST_NAME = 100
_MOST_PARTS = 10_000
_LONGEST_DETAIL = 500


class JobPart(BaseModel):
    """One of the files that an input consists of."""

    path: str = Field(min_length=1, max_length=200)
    sha256: str = Field(pattern=f"^{SHA256}$")
    size_bytes: int = Field(ge=0)


class JobInput(BaseModel):
    """An input of the model that only the machine knows about.

    A snapshot of an additional source has the `url` that it was taken from, and is a `file` of the output.
    `content` is the file of the output that holds another input. The two have separate names because workers
    of earlier releases record everything that has a `file` as an additional source.
    """

    kind: str
    name: str
    sha256: str = Field(pattern=f"^{SHA256}$")
    url: str | None = None
    file: str | None = None
    content: str | None = None
    size_bytes: int | None = Field(default=None, ge=0)
    details: dict[str, str | int | bool] = Field(default_factory=dict)
    parts: tuple[JobPart, ...] = ()

    @field_validator("file", "content")
    @classmethod
    def _within_the_output(cls, file: str | None) -> str | None:
        """A file outside the output folder was not made by the job, and must not be fetched."""
        if file is None:
            return None
        path = PurePosixPath(file)
        if not path.parts or path.is_absolute() or ".." in path.parts or not file.isprintable():
            message = f"{file!r} does not name a file inside the output folder"
            raise ValueError(message)
        return file

    @field_validator("url")
    @classmethod
    def _public(cls, url: str | None) -> str | None:
        return None if url is None else public_uri(url)

    @field_validator("details", mode="before")
    @classmethod
    def _few(cls, details: object) -> dict[str, str | int | bool]:
        """Drop what is not a short fact, because a model is not lost over how it is described."""
        if not isinstance(details, Mapping):
            return {}
        facts = {
            name: public_text(value)[:_LONGEST_DETAIL] if isinstance(value, str) else value
            for name, value in details.items()
            if isinstance(name, str) and len(name) <= _LONGEST_NAME and isinstance(value, str | int | bool)
        }
        return dict(list(facts.items())[:_MOST_DETAILS])

    @field_validator("parts", mode="before")
    @classmethod
    def _readable(cls, parts: object) -> tuple[JobPart, ...]:
        """All of the files, or none, so that nobody takes some of them for all."""
        if not isinstance(parts, list | tuple) or len(parts) > _MOST_PARTS:
            return ()
        try:
            found = tuple(JobPart.model_validate(part, from_attributes=True) for part in parts)
        except ValidationError:
            return ()
        return found if len({part.path for part in found}) == len(found) else ()

    def as_record(self) -> InputRecord | None:
        """None for a kind that this release does not know."""
        kind = known(InputKind, self.kind)
        if kind is None:
            return None
        return InputRecord(kind, self.name, self.sha256, self.size_bytes, self.url, self.details)

    def as_parts(self) -> tuple[Part, ...]:
        return tuple(Part(one.path, one.sha256, one.size_bytes) for one in self.parts)


def rows_by_source(data: Mapping[str, Any]) -> dict[str, int]:
    """How many rows were read of each source, from what a training says of its data."""
    found = {}
    for source, said in data.items():
        rows = said.get("rows") if isinstance(said, Mapping) else None
        if isinstance(rows, int) and not isinstance(rows, bool):
            found[source[:_LONGEST_DETAIL]] = rows
    return dict(list(found.items())[:_MOST_DETAILS])
