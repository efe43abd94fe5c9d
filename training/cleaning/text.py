"""Cleaners of descriptions: lower case, white space, noise, phrases, plurals, negations."""

import re
from collections.abc import Iterable

import polars as pl

from training.cleaning.cleaner import DESCRIPTION, Cleaner

# Spelt out, because Python's \s and that of polars' regular expressions differ.
_SPACE = r"[\t-\r\x1c-\x20\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}]"
_SPACES = f"{_SPACE}+"
_PYTHON_SPACES = re.compile(re.sub(r"\\x\{([0-9a-f]+)\}", lambda m: f"\\u{m[1]:0>4}", _SPACES))
# A private-use character that stands in for something that must survive a replacement.
_MARK = "\ue000"


def lowered(text: pl.Expr) -> pl.Expr:
    return text.str.to_lowercase()


def stripped(text: pl.Expr) -> pl.Expr:
    """Runs of white space become one space; spaces around and full stops and commas at the end go."""
    return text.str.replace_all(_SPACES, " ").str.strip_chars_start(" ").str.strip_chars_end(" .,")


def normalised(text: str) -> str:
    """What `lower` and `strip` make of one text: how vague terms and references are looked up."""
    return _PYTHON_SPACES.sub(" ", text.lower()).lstrip(" ").rstrip(" .,")


LOWER = Cleaner("lower", description=lowered(DESCRIPTION))
STRIP = Cleaner("strip", description=stripped(DESCRIPTION))
DROP_EMPTY = Cleaner(
    "drop_empty",
    reason=pl.when(DESCRIPTION.str.strip_chars() == "").then(pl.lit("empty description")),
)


def drop_short(at_most: int) -> Cleaner:
    """Drop descriptions of at most so many characters."""
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
    """Cut the phrases out; a longer one goes before a shorter one that it contains."""
    wanted = sorted({phrase.lower() for phrase in phrases if phrase.strip()}, key=lambda p: (-len(p), p))
    if not wanted:
        return Cleaner("remove_phrases")
    pattern = "|".join(_escaped(phrase) for phrase in wanted)
    return Cleaner("remove_phrases", description=DESCRIPTION.str.replace_all(pattern, ""))


def _escaped(text: str) -> str:
    """Like `re.escape`, for polars' regular expressions, which know no escaped letters or spaces."""
    return re.sub(r"([\\.+*?()|\[\]{}^$#&\-~])", r"\\\1", text)


# "women s" lost its apostrophe and is "womens"; but an s beside a size, or after a plural, is a size.
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
    # "whether or not" negates nothing.
    .str.replace_all(r"\b(whether or )not\b", f"${{1}}{_MARK}")
    .str.replace_all(rf"\({_SPACE}*{_NEGATION}(?:[^()]|\([^()]*\))*\)", " ")
    .str.replace_all(rf"[\s,;(]*\b{_NEGATION}(?:[^-]|\b-\b)*", " ")
    .str.replace_all(_MARK, "not", literal=True)
)
NEGATION = Cleaner("negation", description=_NEGATIONS)
