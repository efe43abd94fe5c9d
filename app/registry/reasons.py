"""The reasons that people give for what they do."""

import unicodedata

# Letters and symbols that are shown blank, although Unicode does not count them as spaces.
_BLANK = frozenset("\u115f\u1160\u2800\u3164\uffa0")
# Separators, controls and other invisible characters, and marks that need a character to stand on.
_INVISIBLE = ("Z", "C", "M")


def is_reason(text: str | None) -> bool:
    """Whether the text has at least one visible character."""
    return any(
        character not in _BLANK and not unicodedata.category(character).startswith(_INVISIBLE)
        for character in text or ""
    )
