"""Writes values as TOML that existing tools read as well.

They find a configuration's version with `grep version`. So no other line may contain that word: elsewhere its
first letter is written as an escape, which TOML reads as the same text.
"""

import json
import re
from collections.abc import Mapping
from typing import Final

_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")
_SEARCHED: Final = re.compile(r"v(?=ersion)", re.IGNORECASE)


def toml_value(value: object) -> str:
    """A value as it stands behind the = in TOML."""
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return _string(value)
        case Mapping():
            inside = ", ".join(_lines(value))
            return f"{{ {inside} }}" if inside else "{}"
        case list() | tuple():
            return f"[{', '.join(map(toml_value, value))}]"
        case _:
            # Numbers and times are written alike in Python and TOML.
            return str(value)


def toml_document(values: Mapping[str, object]) -> str:
    """A text with these values. What is None is left out, because TOML cannot say it."""
    return "\n".join(_table((), values)) + "\n"


def _table(path: tuple[str, ...], values: Mapping[str, object]) -> list[str]:
    """The lines of a table: first its own values, then the tables in it."""
    lines: list[str] = []
    tables: list[str] = []
    for key, value in values.items():
        inside = (*path, key)
        if isinstance(value, Mapping):
            tables += ["", f"[{_path(inside)}]", *_table(inside, value)]
        elif isinstance(value, list | tuple) and value and all(isinstance(item, Mapping) for item in value):
            tables += [line for item in value for line in ("", f"[[{_path(inside)}]]", *_lines(item))]
        elif value is not None:
            # This is the one line that must be found.
            name = key if inside == ("version",) else _key(key)
            lines.append(f"{name} = {toml_value(value)}")
    return lines + tables


def _path(path: tuple[str, ...]) -> str:
    return ".".join(map(_key, path))


def _lines(table: Mapping[str, object]) -> list[str]:
    return [f"{_key(str(key))} = {toml_value(of)}" for key, of in table.items() if of is not None]


def _key(key: str) -> str:
    return key if _BARE_KEY.fullmatch(key) and not _SEARCHED.search(key) else _string(key)


def _string(text: str) -> str:
    # TOML has the escapes of JSON, and does not allow the character DEL either.
    quoted = json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
    return _SEARCHED.sub(lambda found: f"\\u{ord(found[0]):04x}", quoted)
