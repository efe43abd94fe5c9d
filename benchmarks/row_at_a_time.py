"""A straightforward way to clean tradesets, for comparison: each row in turn, through every check.

It was written from the description of what the team runs, with the same checks in the same order. Lingua is
asked about each row.
"""

import re
from collections.abc import Callable, Iterable

from lingua import Language, LanguageDetectorBuilder

from training.cleaning.language import LanguageRules
from training.cleaning.pairs import IncorrectPair
from training.cleaning.pipelines import CleaningLists

SPACES = re.compile(r"\s+")
NOISE = re.compile(r"[0-9 ,*-]+|[./]+|[-+]?[0-9]+(?:\.[0-9]+)?")
SIZES = r"(?:sizes?|xxs|xs|s|m|l|xl|xxl|xxxl|small|medium|large)\b"
# "women s", but neither "boys s" nor "size s" nor "shirt s m l".
PLURAL = re.compile(rf"\b(?!{SIZES})(\w*[^\Ws])\s+s\b(?!\W+{SIZES})")


def clean(rows: Iterable[tuple[str, str]], lists: CleaningLists, digits: int) -> list[tuple[str, str]]:
    longest_first = sorted(lists.phrases, key=len, reverse=True)
    phrases = re.compile("|".join(map(re.escape, longest_first)))
    is_foreign = foreign(lists.language)
    is_wrong = wrong(lists.pairs)
    kept = []
    for code, description in rows:
        text = SPACES.sub(" ", phrases.sub("", description.lower())).lstrip(" ").rstrip(" .,")
        if not text or len(text) == 1:
            continue
        if not (len(code) >= digits and code[:digits].isdecimal()):
            continue
        if NOISE.fullmatch(text) or is_foreign(text) or is_wrong(code, text):
            continue
        kept.append((code[:digits], PLURAL.sub(r"\1s", text)))
    return kept


def foreign(rules: LanguageRules) -> Callable[[str], bool]:
    builder = LanguageDetectorBuilder.from_languages(*(getattr(Language, name) for name in rules.detected))
    detector = builder.with_minimum_relative_distance(rules.minimum_relative_distance).build()
    preferred = {None, *(getattr(Language, name) for name in rules.preferred)}

    def is_foreign(text: str) -> bool:
        if text in rules.exact_keeps or any(term in text for term in rules.partial_keeps):
            return False
        if any(term in text for term in rules.partial_skips):
            return True
        return detector.detect_language_of(text) not in preferred

    return is_foreign


def wrong(pairs: Iterable[IncorrectPair]) -> Callable[[str, str], bool]:
    by_description: dict[str, list[IncorrectPair]] = {}
    for pair in pairs:
        by_description.setdefault(pair.description, []).append(pair)

    def is_wrong(code: str, text: str) -> bool:
        known = by_description.get(text, [])
        chapters = {pair.chapter for pair in known if pair.chapter}
        codes = {pair.code for pair in known if pair.code}
        return bool(chapters and code[:2] not in chapters) or any(
            code[: len(seen)] == seen[: len(code)] for seen in codes
        )

    return is_wrong
