"""The problems of a configuration, each with its key and line."""

import difflib
import json
import re
import reprlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from training.config_parts.lines import Path, line_of, lines_of_keys

MOST_PROBLEMS: Final = 20
"""How many problems are reported. A text with a hundred thousand of them must not make a long answer."""

_LONGEST_SHOWN: Final = 80
_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")

_short = reprlib.Repr()
_short.maxstring = _short.maxother = _short.maxlong = _LONGEST_SHOWN


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
    """The configuration cannot be used. `problems` are in the order of the lines, and not too many."""

    def __init__(self, problems: tuple[ConfigProblem, ...]) -> None:
        self.problems = problems
        super().__init__("; ".join(map(str, problems)))


@dataclass(frozen=True)
class Finding:
    """A problem. A message that takes time to write is a function, called only if it is reported.

    The line is that of the path, unless `shown_at` names a better place.
    """

    path: Path
    message: str | Callable[[], str]
    shown_at: Path | None = None

    def problem(self, line: int | None) -> ConfigProblem:
        message = self.message if isinstance(self.message, str) else self.message()
        return ConfigProblem(written(self.path), line, message)


def error_of(findings: Sequence[Finding], text: str) -> ConfigError:
    """The error that reports the first findings, in the order of their lines, and counts the others."""
    lines = lines_of_keys(text)
    found = [(line_of(finding.shown_at or finding.path, lines), finding) for finding in findings]
    found.sort(key=lambda one: one[0] or 0)
    problems = [finding.problem(line) for line, finding in found[:MOST_PROBLEMS]]
    if more := len(found) - len(problems):
        problems.append(ConfigProblem("", None, f"and {more:,} more problems"))
    return ConfigError(tuple(problems))


def unknown_keys(table: Mapping[str, Any], model: type[BaseModel], prefix: Path) -> Iterator[Finding]:
    """A finding for each key that the model does not know."""
    for key in table:
        if key in model.model_fields:
            continue
        yield Finding((*prefix, key), partial(_unknown, key, model))


# Keys that existing tools read and that have no equivalent, with what to do instead.
_INSTEAD: Final = {
    "limit": "To use only some rows of each source, set rows_per_source.",
    "embeddings_cache_enabled": "Remove it: embeddings are always cached.",
    "embedding_cache_checkpoint": "Remove it: embeddings are cached as they are made.",
    "transformer_cache_directory": "Remove it: the machine image has the transformers.",
}


def _unknown(key: str, model: type[BaseModel]) -> str:
    if key in _INSTEAD:
        return f"is not a known key. {_INSTEAD[key]}"
    near = difflib.get_close_matches(key[:_LONGEST_SHOWN], model.model_fields, n=1, cutoff=0.6)
    return f"is not a known key. Did you mean {near[0]!r}?" if near else "is not a known key. Remove it."


def findings_of(error: ValidationError, prefix: Path) -> Iterator[Finding]:
    for detail in error.errors(include_url=False):
        # pydantic marks an error in the key of a dictionary by this last part.
        location = detail["loc"][:-1] if detail["loc"][-1:] == ("[key]",) else detail["loc"]
        yield Finding((*prefix, *location), partial(_message, detail))


def written(path: Path) -> str:
    """("sources", 1, "weight") is written as `sources[1].weight`. Unusual keys are quoted and shortened."""
    key = ""
    for part in path:
        if isinstance(part, int):
            key += f"[{part}]"
            continue
        if _BARE_KEY.fullmatch(part) and len(part) <= _LONGEST_SHOWN:
            name = part
        else:
            name = json.dumps(part if len(part) <= _LONGEST_SHOWN else f"{part[: _LONGEST_SHOWN - 3]}...")
        key = f"{key}.{name}" if key else name
    return key


def _message(detail: ErrorDetails) -> str:
    value = detail["input"]
    match detail["type"]:
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
            message = re.sub(r"^(Input should be|\w+ should have)", _must, str(detail["msg"]))
            return f"{message}, but is {shown(value)}"


def _must(found: re.Match[str]) -> str:
    return "must be" if found[0].endswith("be") else "must have"


def shown(value: object) -> str:
    """The value for a message, shortened, with control characters escaped."""
    try:
        text = _short.repr(value)
    except ValueError:
        # Python does not write integers of more than 4,300 digits.
        return "a number with too many digits"
    return text if len(text) <= _LONGEST_SHOWN else f"{text[: _LONGEST_SHOWN - 3]}..."
