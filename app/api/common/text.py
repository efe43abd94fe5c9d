"""The types of the texts and times in requests.

The texts are stored, shown in terminals and written into logs. So no text may contain control characters, or
half of a surrogate pair, which is not a character and cannot be stored.
"""

import re
from datetime import datetime
from typing import Annotated

from pydantic import BeforeValidator

# C0 and C1 controls, the separators that some programs treat as a line break, the marks that reverse the
# direction of text, and surrogates.
_REFUSED = "\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff"
_REFUSED_IN_A_LINE = re.compile(f"[{_REFUSED}]")
_REFUSED_IN_LINES = re.compile(f"(?![\t\n\r])[{_REFUSED}]")
_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)")


def _line(text: object) -> object:
    return _checked(_REFUSED_IN_A_LINE, text)


def _lines(text: object) -> object:
    return _checked(_REFUSED_IN_LINES, text)


def _checked(refused: re.Pattern[str], text: object) -> object:
    """Check the text before pydantic does, because pydantic's message about surrogates does not help."""
    if isinstance(text, str) and (found := refused.search(text)):
        code = ord(found[0])
        name = "half of a surrogate pair" if 0xD800 <= code <= 0xDFFF else "a control character"
        message = f"must not contain U+{code:04X} ({name}, at position {found.start()}). Remove it"
        raise ValueError(message)
    return text


def _moment(text: object) -> object:
    # A `+` in a query that was not escaped arrives as a space.
    if isinstance(text, str) and not _RFC_3339.fullmatch(text):
        message = "is not a time with its offset from UTC. Write one such as 2026-11-23T10:12:44Z"
        raise ValueError(message)
    return text


Line = Annotated[str, BeforeValidator(_line)]
"""A text without line breaks: a name, a version, a branch."""

Lines = Annotated[str, BeforeValidator(_lines)]
"""A text that may have several lines and tabs: a configuration, a note."""

Moment = Annotated[datetime, BeforeValidator(_moment)]
"""A time with its offset from UTC, as RFC 3339 writes it."""
