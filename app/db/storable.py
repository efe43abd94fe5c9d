"""Column types for text and JSON that replace whatever Postgres would refuse to store.

A build's failure quotes what a machine said, and a machine can say anything. Recording it must not fail
because of that: otherwise the build never ends, and its instance keeps running.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Dialect, Text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.types import TypeDecorator

# Messages quote logs and answers. A longer message helps nobody, and every list of builds would contain it.
MESSAGE_LIMIT = 4_000

# U+0000 and half of a surrogate pair: the characters that Postgres refuses.
_REFUSED = re.compile("[\x00\ud800-\udfff]")
_MAX_BITS = 2_000


def text_of(value: str, limit: int | None = None) -> str:
    """The text without the characters that Postgres refuses, cut to `limit` characters."""
    value = _REFUSED.sub("\N{REPLACEMENT CHARACTER}", value)
    if limit is not None and len(value) > limit:
        left_out = f" … ({len(value) - limit:,} more characters)"
        value = value[: limit - len(left_out)] + left_out
    return value


def json_of(value: Any) -> Any:
    """The value as Postgres can store it. NaN and the like become null, and `text_of` cleans texts."""
    found: Any
    match value:
        case None | bool():
            found = value
        case float():
            found = value if math.isfinite(value) else None
        case int():
            # Python refuses to write an integer with more digits.
            found = value if value.bit_length() <= _MAX_BITS else None
        case Mapping():
            found = {text_of(str(key)): json_of(item) for key, item in value.items()}
        case list() | tuple() | set() | frozenset():
            found = [json_of(item) for item in value]
        case _:
            found = text_of(str(value))
    return found


class StorableText(TypeDecorator[str]):
    """A text column that accepts every text, cut to `limit` characters if there is one."""

    impl = Text
    cache_ok = True

    def __init__(self, limit: int | None = None) -> None:
        super().__init__()
        self.limit = limit

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        del dialect
        # An enum's member is stored as its text.
        return None if value is None else text_of(str(value), self.limit)


class StorableJson(TypeDecorator[Any]):
    """A JSONB column that accepts every value."""

    impl = JSONB
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        del dialect
        return json_of(value)

    def coerce_compared_value(self, op: Any, value: Any) -> Any:
        """Let JSONB handle operators such as `->>`."""
        return self.impl_instance.coerce_compared_value(op, value)
