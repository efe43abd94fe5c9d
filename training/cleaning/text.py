"""Cleaners of descriptions: lower case, white space, noise, phrases, plurals and negations."""

import re
import unicodedata
from collections.abc import Iterable

import polars as pl

from training.cleaning.cleaner import DESCRIPTION, Cleaner
from training.sources.codes import MISSING_VALUES

# Written out, because \s means different characters in Python and in polars.
_OTHER_SPACES = r"\t-\r\x1c-\x1f\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}"
_SPACE = rf"[\x20{_OTHER_SPACES}]"
_SPACES = f"{_SPACE}+"
# White space that is not a single space. Most texts have none, and replacing single spaces takes long.
_IRREGULAR_SPACES = rf"{_SPACE}{{2,}}|[{_OTHER_SPACES}]"
# A private-use character that temporarily replaces text that a replacement must not touch.
_MARK = "\ue000"


# Characters that nobody sees: soft hyphens, zero-width spaces, marks of direction. Joiners have a meaning in
# some scripts, and stay.
_INVISIBLE = r"[\x{ad}\x{180e}\x{200b}\x{200e}\x{200f}\x{202a}-\x{202e}\x{2060}\x{2066}-\x{2069}\x{feff}]"
_CONTROLS = r"[\x{00}-\x{08}\x{0e}-\x{1b}\x{7f}-\x{84}\x{86}-\x{9f}]"


def _for_python(pattern: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\\x\{([0-9a-f]+)\}", lambda m: f"\\u{m[1]:0>4}", pattern))


_PYTHON_SPACES, _PYTHON_INVISIBLE, _PYTHON_CONTROLS = map(_for_python, (_SPACES, _INVISIBLE, _CONTROLS))


def lowered(text: pl.Expr) -> pl.Expr:
    return text.str.to_lowercase()


def stripped(text: pl.Expr) -> pl.Expr:
    """Collapse white space; remove spaces at both ends, and full stops and commas at the end."""
    return text.str.replace_all(_IRREGULAR_SPACES, " ").str.strip_chars_start(" ").str.strip_chars_end(" .,")


def normalised(text: str) -> str:
    """Apply `unicode`, `lower` and `strip` to one text, as is done before it is looked up or classified."""
    plain = _PYTHON_CONTROLS.sub(" ", _PYTHON_INVISIBLE.sub("", text))
    return _PYTHON_SPACES.sub(" ", unicodedata.normalize("NFC", plain).lower()).lstrip(" ").rstrip(" .,")


# One text for what looks the same: é may be one character or two.
UNICODE = Cleaner(
    "unicode",
    description=DESCRIPTION.str.replace_all(_INVISIBLE, "")
    .str.replace_all(_CONTROLS, " ")
    .str.normalize("NFC"),
    concerns=DESCRIPTION.str.contains(r"[^\x{20}-\x{7e}]"),
)
DROP_MISSING = Cleaner(
    "drop_missing",
    reason=pl.when(DESCRIPTION.str.strip_chars().str.to_lowercase().is_in(sorted(MISSING_VALUES))).then(
        pl.lit("missing value")
    ),
)


LOWER = Cleaner("lower", description=lowered(DESCRIPTION))
STRIP = Cleaner("strip", description=stripped(DESCRIPTION))
DROP_EMPTY = Cleaner(
    "drop_empty",
    reason=pl.when(DESCRIPTION.str.strip_chars() == "").then(pl.lit("empty description")),
)


def drop_short(at_most: int, *, words_of_one_character: bool = False) -> Cleaner:
    """Drop descriptions that have at most this many characters.

    In Chinese and its relatives, one character can be a word, and such descriptions may stay.
    """
    is_short = DESCRIPTION.str.len_chars() <= at_most
    if words_of_one_character:
        is_short &= ~DESCRIPTION.str.contains(r"[\p{Han}\p{Hangul}]")
    return Cleaner(
        "drop_short",
        reason=pl.when(is_short).then(pl.lit("short description")),
        # A character has up to four bytes. Bytes are counted at once, and few texts have so few.
        concerns=DESCRIPTION.str.len_bytes() <= 4 * at_most,
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
PLURALS = Cleaner("plurals", description=_PLURALS, concerns=DESCRIPTION.str.contains(r"\bs\b"))

# "tomatoes, other than cherry tomatoes" → "tomatoes". A hyphen ends a clause, unless it joins two words.
_NEGATION = r"(?:neither\b|other than\b|excluding\b|excl\.|not\b|except\b)"
# A private-use character that stands where a clause was cut.
_CUT = "\ue001"
# What a clause that was cut leaves behind: "goods, which are", "graded, but", "projectors that do".
_DANGLING = (
    r"(?:which|that|who|it|they|this|these|those|is|are|was|were|be|been|being|has|have|having|had|do|does|did|"
    r"can|may|must|but|and|or|if|when|where|though|although|even|also|the|a|an|of|for|with|in|by|to|from|on|as)"
)
_NEGATIONS = (
    DESCRIPTION.str.replace_all("\u00a0", " ", literal=True)
    # "whether or not", "in shell or not" and "may or may not" do not negate anything.
    .str.replace_all(rf"\b(or{_SPACES}(?:may{_SPACES})?)not\b", f"${{1}}{_MARK}")
    .str.replace_all(rf"\({_SPACE}*{_NEGATION}(?:[^()]|\([^()]*\))*\)", " ")
    .str.replace_all(rf"\b{_NEGATION}(?:[^-]|\b-\b)*", _CUT)
    .str.replace_all(rf"(?:\b{_DANGLING}{_SPACES})+{_CUT}", _CUT)
    .str.replace_all(rf"[\s,;(]*{_CUT}", " ")
    .str.replace_all(rf"{_SPACE}*([,;])(?:{_SPACE}*[,;])*", "$1")
    .str.replace_all(_MARK, "not", literal=True)
)
NEGATION = Cleaner(
    "negation",
    description=_NEGATIONS,
    concerns=DESCRIPTION.str.contains(rf"\b{_NEGATION}|[,;][,;]|{_SPACE}[,;]|\x{{a0}}"),
)
