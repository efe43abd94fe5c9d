"""What a job reports in `result.json`. What a machine says is checked and bounded."""

import json
import re
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, Field, field_validator

from app.registry.public import public_text
from worker.steps.reported import SHA256, JobInput

# A configuration has tables, lists of tables, and lists in those.
_DEPTH = 6
_CONFIG_LENGTH = 64 << 10
# They are stored with the build and loaded with it, so they must stay small.
_DATA_LENGTH = 32 << 10
_MOST_EPOCHS = 500
_MOST_PHASES = 100
_MOST_FIGURES = 20
_MOST_WARNINGS = 50
_LONGEST_WARNING = 500
_LONGEST_NAME = 100


class FileRef(BaseModel):
    """A file that a job made."""

    sha256: str = Field(pattern=f"^{SHA256}$")
    size_bytes: int = Field(ge=0)


class JobResult(BaseModel):
    """The content of `result.json`, which docs/training-machine.md describes."""

    outcome: str
    files: dict[str, FileRef] = Field(default_factory=dict)
    inputs: list[JobInput] = Field(default_factory=list)
    metrics: dict[str, Any] = Field(default_factory=dict)
    counts: dict[str, Any] = Field(default_factory=dict)
    config: dict[str, Any] = Field(default_factory=dict)
    epochs: list[dict[str, int | float]] = Field(default_factory=list)
    phases: list[dict[str, str | int | float]] = Field(default_factory=list)
    data: dict[str, Any] = Field(default_factory=dict)
    warnings: list[str] = Field(default_factory=list)
    code: str = ""
    message: str = ""

    @field_validator("config")
    @classmethod
    def _small(cls, config: dict[str, Any]) -> dict[str, Any]:
        """Drop what is too deep or too large: it is loaded with every build, and can be done without."""
        return config if _is_small(config, _CONFIG_LENGTH) else {}

    @field_validator("epochs", mode="before")
    @classmethod
    def _last_epochs(cls, epochs: object) -> list[dict[str, int | float]]:
        """The figures of the last epochs. A model is not lost over what describes it."""
        return [_figures(epoch) for epoch in _items(epochs)][-_MOST_EPOCHS:]

    @field_validator("phases", mode="before")
    @classmethod
    def _first_phases(cls, phases: object) -> list[dict[str, str | int | float]]:
        found: list[dict[str, str | int | float]] = []
        for phase in _items(phases):
            name, seconds = phase.get("phase"), _figures(phase).get("seconds")
            if isinstance(name, str) and seconds is not None:
                found.append({"phase": name[:_LONGEST_NAME], "seconds": seconds})
        return found[:_MOST_PHASES]

    @field_validator("data", mode="before")
    @classmethod
    def _small_data(cls, data: object) -> dict[str, Any]:
        return data if isinstance(data, dict) and _is_small(data, _DATA_LENGTH) else {}

    @field_validator("warnings", mode="before")
    @classmethod
    def _first_warnings(cls, warnings: object) -> list[str]:
        texts = [text for text in warnings if isinstance(text, str)] if isinstance(warnings, list) else []
        shown = [public_text(text)[:_LONGEST_WARNING] for text in texts[:_MOST_WARNINGS]]
        if len(texts) > len(shown):
            shown.append(f"There are {len(texts) - len(shown):,} more warnings in the log of the training.")
        return shown

    @field_validator("code")
    @classmethod
    def _word(cls, code: str) -> str:
        """Drop a code that is not a plain word, because programs could not branch on it."""
        return code if re.fullmatch(r"[a-z][a-z0-9_]{0,49}", code) else ""


def _items(values: object) -> Iterator[dict[str, Any]]:
    if isinstance(values, list):
        yield from (value for value in values if isinstance(value, dict))


def _figures(values: dict[str, Any]) -> dict[str, int | float]:
    found = {name[:_LONGEST_NAME]: value for name, value in values.items() if _is_figure(value)}
    return dict(list(found.items())[:_MOST_FIGURES])


def _is_figure(value: object) -> bool:
    # Not NaN or infinity, nor an integer that no number of a database could hold.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300


def _is_small(value: dict[str, Any], length: int) -> bool:
    return _is_shallow(value, _DEPTH) and len(json.dumps(value)) <= length


def _is_shallow(value: object, depth: int) -> bool:
    if not isinstance(value, dict | list):
        return True
    return depth > 0 and all(
        _is_shallow(item, depth - 1) for item in (value.values() if isinstance(value, dict) else value)
    )
