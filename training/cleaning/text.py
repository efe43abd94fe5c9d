"""Cleaners of descriptions: lower case, white space, noise, phrases, plurals and negations."""

import re
from collections.abc import Iterable

import polars as pl

from training.cleaning.cleaner import DESCRIPTION, Cleaner

# Written out, because \s means different characters in Python and in polars.
_SPACE = r"[\t-\r\x1c-\x20\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}]"
_SPACES = f"{_SPACE}+"
_PYTHON_SPACES = re.compile(re.sub(r"\\x\{([0-9a-f]+)\}", lambda m: f"\\u{m[1]:0>4}", _SPACES))
# A private-use character that temporarily replaces text that a replacement must not touch.
_MARK = "\ue000"


def lowered(text: pl.Expr) -> pl.Expr:
    return text.str.to_lowercase()


def stripped(text: pl.Expr) -> pl.Expr:
    """Collapse white space; remove spaces at both ends, and full stops and commas at the end."""
    return text.str.replace_all(_SPACES, " ").str.strip_chars_start(" ").str.strip_chars_end(" .,")


def normalised(text: str) -> str:
    """Apply `lower` and `strip` to one text, as is done before vague terms and references are looked up."""
    return _PYTHON_SPACES.sub(" ", text.lower()).lstrip(" ").rstrip(" .,")


LOWER = Cleaner("lower", description=lowered(DESCRIPTION))
STRIP = Cleaner("strip", description=stripped(DESCRIPTION))
DROP_EMPTY = Cleaner(
    "drop_empty",
    reason=pl.when(DESCRIPTION.str.strip_chars() == "").then(pl.lit("empty description")),
)


def drop_short(at_most: int) -> Cleaner:
    """Drop descriptions that have at most this many characters."""
    return Cleaner(
        "drop_short",
        reason=pl.when(DESCRIPTION.str.len_chars() <= at_most).then(pl.lit("short description")),
    )


DROP_NOISE = Cleaner(
    "drop_noise",
    reason=pl.when(DESCRIPTION.str.contains(r"^(?:[0-9 ,*-]+|[./]+|[-+]?[0-9]+(?:\.[0-9]+)?)$")).then(
        pl.lit("only digits or punctuation")
    ),
)


def remove_phrases(phrases: Iterable[str]) -> Cleaner:
    """Remove the phrases. Longer phrases are removed before the shorter phrases that they contain."""
    wanted = sorted({phrase.lower() for phrase in phrases if phrase.strip()}, key=lambda p: (-len(p), p))
    if not wanted:
        return Cleaner("remove_phrases")
    pattern = "|".join(_escaped(phrase) for phrase in wanted)
    return Cleaner("remove_phrases", description=DESCRIPTION.str.replace_all(pattern, ""))


def _escaped(text: str) -> str:
    """Like `re.escape`, but for polars, whose regular expressions do not allow escaped letters or spaces."""
    return re.sub(r"([\\.+*?()|\[\]{}^$#&\-~])", r"\\\1", text)


# "women s" has lost its apostrophe and becomes "womens". An s beside a size or after a plural is a size.
_SIZES = r"(?:xxs|xs|s|m|l|xl|xxl|xxxl|small|medium|large)"
_PLURALS = (
    DESCRIPTION.str.replace_all(rf"\b(sizes?|{_SIZES}|\w*s)(\W+)s\b", f"$1$2{_MARK}")
    .str.replace_all(rf"\bs(\W+{_SIZES}\b)", f"{_MARK}$1")
    .str.replace_all(rf"\b(\w+){_SPACES}s\b", "${1}s")
    .str.replace_all(_MARK, "s", literal=True)
)
PLURALS = Cleaner("plurals", description=_PLURALS)

# "tomatoes, other than cherry tomatoes" → "tomatoes". A hyphen ends a clause, unless it joins two words.
_NEGATION = r"(?:neither\b|other than\b|excluding\b|excl\.|not\b|except\b)"
_NEGATIONS = (
    DESCRIPTION.str.replace_all("\u00a0", " ", literal=True)
    # "whether or not" does not negate anything.
    .str.replace_all(r"\b(whether or )not\b", f"${{1}}{_MARK}")
    .str.replace_all(rf"\({_SPACE}*{_NEGATION}(?:[^()]|\([^()]*\))*\)", " ")
    .str.replace_all(rf"[\s,;(]*\b{_NEGATION}(?:[^-]|\b-\b)*", " ")
    .str.replace_all(_MARK, "not", literal=True)
)
NEGATION = Cleaner("negation", description=_NEGATIONS)
