"""The problems of a configuration, each with its key and line."""

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails


@dataclass(frozen=True)
class ConfigProblem:
    """One problem. `key` is written like `sources[0].weight`; `line` counts from 1, and may be unknown."""

    key: str
    line: int | None
    message: str

    def __str__(self) -> str:
        place = f"line {self.line}: " if self.line else ""
        return f"{place}{self.key}: {self.message}" if self.key else f"{place}{self.message}"


class ConfigError(ValueError):
    """The configuration cannot be used. `problems` are in the order of the lines."""

    def __init__(self, problems: tuple[ConfigProblem, ...]) -> None:
        self.problems = problems
        super().__init__("; ".join(map(str, problems)))


def problems_of(
    error: ValidationError, model: type[BaseModel], prefix: str, lines: Mapping[str, int]
) -> Iterator[ConfigProblem]:
    for detail in error.errors(include_url=False):
        location = [part for part in detail["loc"] if part != "[key]"]
        key = ".".join(filter(None, [prefix, *_named(location)]))
        yield ConfigProblem(key, _line(key, lines), _message(detail, model))


def _named(location: list[int | str]) -> Iterator[str]:
    """("detected_languages", 2) → "detected_languages[2]"."""
    name = ""
    for part in location:
        if isinstance(part, int):
            name += f"[{part}]"
        else:
            if name:
                yield name
            name = part
    yield name


def _message(detail: ErrorDetails, model: type[BaseModel]) -> str:
    value = detail["input"]
    match detail["type"]:
        case "extra_forbidden":
            unknown = str(detail["loc"][-1])
            near = difflib.get_close_matches(unknown, model.model_fields, n=1, cutoff=0.6)
            return (
                f"is not a known key. Did you mean {near[0]!r}?" if near else "is not a known key. Remove it."
            )
        case "missing":
            return "is missing"
        case "literal_error":
            expected = detail.get("ctx", {}).get("expected", "")
            return f"is {shown(value)}, but must be one of {expected}"
        case "value_error":
            return str(detail["msg"]).removeprefix("Value error, ")
        case "string_pattern_mismatch":
            return f"is {shown(value)}, but must match {detail.get('ctx', {}).get('pattern')}"
        case _:
            message = str(detail["msg"]).replace("Input should be", "must be").replace("Tuple should", "must")
            return f"{message}, but is {shown(value)}"


def shown(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 80 else f"{shown[:77]}..."


def _line(key: str, lines: Mapping[str, int]) -> int | None:
    """The line of the key, or of the nearest enclosing key or table that has one."""
    while key:
        if key in lines:
            return lines[key]
        shorter = re.sub(r"(\.[^.\[\]]+|\[\d+\])$", "", key)
        key = "" if shorter == key else shorter
    return None
