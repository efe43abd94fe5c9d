"""Text and numbers that every reader can store, show and publish.

Whatever the training reports may hold text from a configuration, a file or a library. Databases refuse NUL
and lone surrogates, JSON has no NaN, a line break can forge a line of a log, and no secret may be published.
"""

import math
import re
import unicodedata
from collections.abc import Mapping
from typing import Any, Final

LONGEST_NAME: Final = 200
LONGEST_MESSAGE: Final = 4000

# Control characters, lone surrogates, and the characters that start a new line.
_UNPRINTABLE: Final = frozenset({"Cc", "Cs", "Zl", "Zp"})
_NOT_IN_XML: Final = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_AFTER_SCHEME: Final = re.compile(r"://[^\s\"'<>]*+")
_END_OF_HOST: Final = re.compile(r"[/?#]")


def is_printable(text: str) -> bool:
    return not any(unicodedata.category(character) in _UNPRINTABLE for character in text)


def one_line(text: str, longest: int = LONGEST_NAME) -> str:
    """The text with ? for each control character and line break, and cut at `longest` characters."""
    return _printable(_cut(text, longest), kept="")


def several_lines(text: str, longest: int = LONGEST_MESSAGE) -> str:
    """Like `one_line`, but line breaks and tabs are kept."""
    return _printable(_cut(text.replace("\r\n", "\n"), longest), kept="\n\t")


def xml_text(text: str) -> str:
    """The text with ? for each character that XML 1.0 does not allow, not even as a reference."""
    return _NOT_IN_XML.sub("?", text)


def without_secrets(text: str) -> str:
    """Remove users, passwords and queries, which may be signatures, from all URLs in the text."""
    return _AFTER_SCHEME.sub(lambda found: f"://{_public(found[0][3:])}", text)


def storable(value: Any) -> Any:
    """JSON without NaN, infinity and unprintable text. Numbers that are not finite are left out, or null."""
    match value:
        case str():
            return one_line(value, LONGEST_MESSAGE)
        case Mapping():
            return {
                one_line(str(name)): storable(item) for name, item in value.items() if not _is_infinite(item)
            }
        case list() | tuple():
            return [None if _is_infinite(item) else storable(item) for item in value]
        case _:
            return None if _is_infinite(value) else value


def _is_infinite(value: object) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def _public(rest: str) -> str:
    """`user:password@host/path?query` → `host/path`."""
    end = _END_OF_HOST.search(rest)
    host, path = (rest[: end.start()], rest[end.start() :]) if end else (rest, "")
    return host.rpartition("@")[2] + re.split(r"[?#]", path, maxsplit=1)[0]


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def _printable(text: str, kept: str) -> str:
    return "".join(
        "?" if character not in kept and unicodedata.category(character) in _UNPRINTABLE else character
        for character in text
    )
