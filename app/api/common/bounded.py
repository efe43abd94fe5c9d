"""Keeps answers about bad input small: 100,000 problems in a request must not become a document of 78 MB."""

import re
from collections.abc import Sequence
from dataclasses import asdict, is_dataclass

MAX_ITEMS = 50
MAX_TEXT = 2_000

_SURROGATE = re.compile("[\ud800-\udfff]")
# SQLAlchemy adds the statement and its parameters to the message of an error.
_SQL = re.compile(r"\s*\[SQL: .*", re.DOTALL)


def text(value: str, limit: int = MAX_TEXT) -> str:
    """The text, cut to its first `limit` characters, with surrogates escaped so that it is valid UTF-8."""
    kept = value[:limit]
    if len(value) > limit:
        kept += f"… ({len(value) - limit:,} more characters)"
    return _SURROGATE.sub(lambda found: f"\\u{ord(found[0]):04x}", kept)


def without_sql(value: str) -> str:
    """An error's message without the statement that failed, which would show tables and values."""
    return _SQL.sub("", value)


def joined(items: Sequence[object]) -> str:
    """A text with as many of the first items as fit, and the number of items that were left out."""
    shown: list[str] = []
    room = MAX_TEXT - 100
    for item in items[:MAX_ITEMS]:
        shown.append(text(str(item), MAX_TEXT // 5))
        room -= len(shown[-1]) + 2
        if room < MAX_TEXT // 5:
            break
    if len(items) > len(shown):
        shown.append(f"and {len(items) - len(shown):,} more")
    return "; ".join(shown)


def facts(values: dict[str, object]) -> dict[str, object]:
    """The facts of a problem, with long texts and lists cut. `<name>_left_out` counts what was cut."""
    found: dict[str, object] = {}
    for name, value in values.items():
        found[name] = _value(value)
        if isinstance(value, list | tuple) and len(value) > MAX_ITEMS:
            found[f"{name}_left_out"] = len(value) - MAX_ITEMS
    return found


def _value(value: object) -> object:
    match value:
        case str():
            return text(value)
        case list() | tuple():
            return [_value(item) for item in value[:MAX_ITEMS]]
        case dict():
            return {text(str(key)): _value(of) for key, of in list(value.items())[:MAX_ITEMS]}
        case _ if is_dataclass(value) and not isinstance(value, type):
            return _value(asdict(value))
        case _:
            return value
