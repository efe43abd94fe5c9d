"""Reads codes as people and spreadsheets write them, where the digits that were meant are certain.

What the digits were is decided here from the text of one code alone. Whether a zero has been lost, or which
code was rounded, is decided in `training/cleaning/codes.py`, which knows the nomenclature.
"""

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

LONGEST: Final = 10
SHORTEST: Final = 5
"""The digits of a subheading that has lost its leading zero."""

NO_CODE: Final = "code is missing"
NOT_DIGITS: Final = "code has other characters than digits"
TOO_LONG: Final = f"code has more than {LONGEST} digits"
LOST_END: Final = "code has lost digits at its end"
NO_CHAPTER: Final = "code begins with 00, which is not a chapter"

MISSING_VALUES: Final = frozenset(
    {"null", "none", "nan", "n/a", "#n/a", "<na>", "undefined",
     "#value!", "#ref!", "#name?", "#div/0!", "#null!", "#num!"}
)  # fmt: skip
"""What programs write where a value is missing, in lower case. "Na" is sodium."""

# Full-width forms (U+FF01 to U+FF5E) of ASCII characters, and other dashes and quotes.
_ASCII: Final[dict[int, int | str]] = {
    **{0xFEE0 + code: code for code in range(0x21, 0x7F)},
    **dict.fromkeys(map(ord, "‐‑‒–—−"), "-"),
    **dict.fromkeys(map(ord, "‘’‚‛`´ʹʼ"), "'"),
    **dict.fromkeys(map(ord, "“”„"), '"'),
}
_FORMULA: Final = re.compile(r'=\s*"([^"]*)"')
_DIGITS: Final = re.compile(r"[0-9]+")
# A number of a spreadsheet column that holds numbers: 1012100.0
_FLOAT: Final = re.compile(r"([1-9][0-9]{4,9})(?:[.,]0+)")
_SCIENTIFIC: Final = re.compile(r"([1-9])(?:[.,]([0-9]+))?E\+?0*([4-9])", re.IGNORECASE)
# 1,012,100 and its like. One separator alone may stand before decimals.
_THOUSANDS: Final = re.compile(r"[1-9][0-9]{0,2}([ .,'])[0-9]{3}(?:\1[0-9]{3})+")
_GROUPS: Final = re.compile(r"[0-9]+(?: ?[ .\-/_] ?[0-9]+)+")


@dataclass(frozen=True)
class Printed:
    """What a text says about a code: its digits, a number that was rounded to `step`, or a problem.

    The digits may lack a leading zero. A rounded number stands for all numbers that round to it.
    """

    digits: str = ""
    problem: str = ""
    number: int = 0
    step: int = 0


@lru_cache(maxsize=1 << 16)
def printed(text: str) -> Printed:
    """Read one code. A code with few digits is not a problem here: the caller knows how many are needed."""
    plain = _plain(text)
    if not plain.strip("-") or plain.lower() in MISSING_VALUES:
        return Printed(problem=NO_CODE)
    if found := _SCIENTIFIC.fullmatch(plain):
        return _of_scientific(found[1], found[2] or "", int(found[3]))
    digits = _digits(plain)
    if digits is None:
        lost = _GROUPS.fullmatch(plain)
        return Printed(problem=LOST_END if lost else NOT_DIGITS)
    return _checked(digits)


def looks_like_a_code(text: str) -> bool:
    """Whether the text can be read as the code of a subheading, also without its leading zero."""
    read = printed(text)
    return len(read.digits) >= SHORTEST or read.step > 0


def _plain(text: str) -> str:
    """Without invisible characters, a formula around the code, and quotes that keep a zero as text."""
    visible = "".join(
        " " if character.isspace() else character
        for character in text
        if character.isspace() or unicodedata.category(character) not in {"Cf", "Cc"}
    )
    plain = " ".join(visible.translate(_ASCII).split())
    if found := _FORMULA.fullmatch(plain):
        plain = found[1]
    return plain.strip("'\" ")


def _digits(plain: str) -> str | None:
    if _DIGITS.fullmatch(plain):
        return plain
    if found := _FLOAT.fullmatch(plain):
        # 847130.00 may also be a printed code of 8 digits. Both readings begin with the same digits.
        is_printed = plain.endswith(".00") and len(found[1]) % 2 == 0 and len(found[1]) < LONGEST
        return found[1] + ("00" if is_printed else "")
    if _THOUSANDS.fullmatch(plain):
        return "".join(_DIGITS.findall(plain))
    if _GROUPS.fullmatch(plain):
        groups = _DIGITS.findall(plain)
        # Digits come in pairs, so a group with an odd number of them has lost one, as in 8471.3. In the first
        # group this may be a leading zero.
        if all(len(group) % 2 == 0 for group in groups[1:]):
            return "".join(groups)
    return None


def _of_scientific(first: str, fraction: str, exponent: int) -> Printed:
    """`1.0121E+06` may stand for any number that rounds to it. With all of its digits it is exact."""
    digits = first + fraction
    places = exponent + 1
    if len(digits) >= places:
        whole = digits[:places]
        return _checked(whole) if not digits[places:].strip("0") else Printed(problem=NOT_DIGITS)
    step = 10 ** (places - len(digits))
    return Printed(number=int(digits) * step, step=step)


def _checked(digits: str) -> Printed:
    if len(digits) > LONGEST:
        return Printed(problem=TOO_LONG)
    if digits.startswith("00"):
        return Printed(problem=NO_CHAPTER)
    return Printed(digits=digits)
