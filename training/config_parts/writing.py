"""Writes values as TOML that existing tools read as well.

They find a configuration's version with `grep version`. So no other line may contain that word: elsewhere its
first letter is written as an escape, which TOML reads as the same text.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Final

_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")
_SEARCHED: Final = re.compile(r"v(?=ersion)", re.IGNORECASE)
_VERSION: Final = "version"


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
    """The values line by line, then each mapping and each sequence of mappings as tables."""
    lines: list[str] = []
    tables: list[str] = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            tables += _tables(_key(key), value)
        elif isinstance(value, Sequence) and value and all(isinstance(item, Mapping) for item in value):
            tables += [line for item in value for line in ("", f"[[{_key(key)}]]", *_lines(item))]
        else:
            name = key if key == _VERSION else _key(key)
            # A version cannot contain the word, and its line is the one that must be found.
            lines.append(f"{name} = {toml_value(value)}")
    return "\n".join([*lines, *tables]) + "\n"


def _tables(name: str, value: Mapping[str, object]) -> list[str]:
    """The tables of a mapping whose values are mappings."""
    lines: list[str] = []
    for key, of in value.items():
        if not isinstance(of, Mapping):
            raise TypeError(f"{name}.{key} is not a mapping")
        lines += ["", f"[{name}.{_key(key)}]", *_lines(of)]
    return lines


def _lines(table: Mapping[str, object]) -> list[str]:
    return [f"{_key(str(key))} = {toml_value(of)}" for key, of in table.items() if of is not None]


def _key(key: str) -> str:
    return key if _BARE_KEY.fullmatch(key) and not _SEARCHED.search(key) else _string(key)


def _string(text: str) -> str:
    # TOML has the escapes of JSON, and does not allow the character DEL either.
    quoted = json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
    return _SEARCHED.sub(lambda found: f"\\u{ord(found[0]):04x}", quoted)
