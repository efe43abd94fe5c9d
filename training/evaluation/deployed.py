"""What the deployed service refuses before it asks the network.

It cleans a description first, and refuses one that the cleaning drops. So a model is measured, and classifies
by hand, in the same way. The texts here are in lower case and stripped already.
"""

from collections.abc import Sequence
from typing import Final

import polars as pl

from training.cleaning.cleaner import Cleaner, clean
from training.cleaning.language import LanguageRules, drop_other_languages
from training.cleaning.text import DROP_EMPTY, DROP_NOISE, drop_short

SHORTEST_REFUSED: Final = 1


def deployed_cleaners(language: LanguageRules) -> tuple[Cleaner, ...]:
    """The cleaners that drop a description: too short, nothing but digits, or in another language."""
    return (DROP_EMPTY, drop_short(SHORTEST_REFUSED), DROP_NOISE, drop_other_languages(language))


def refused(texts: Sequence[str], cleaners: Sequence[Cleaner]) -> frozenset[str]:
    """The texts that one of the cleaners drops."""
    frame = pl.DataFrame({"description": texts}, schema={"description": pl.String})
    dropped = clean(frame.with_columns(code=pl.lit("")), cleaners).dropped
    return frozenset(dropped["description"])
