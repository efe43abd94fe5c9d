"""The words that a configuration may use where there is a fixed set of them."""

import re
from typing import Final, Literal

VAGUE_CODE: Final = "vvvvvvvvvv"
"""The class of descriptions that are too vague to classify."""

CleaningStep = Literal[
    "lower",
    "strip",
    "drop_empty",
    "drop_short",
    "code_shape",
    "code_changes",
    "drop_noise",
    "language",
    "incorrect_pairs",
    "plurals",
    "negation",
    "remove_phrases",
    "pad",
    # These two are names for several steps:
    "basic",
    "tradesets",
]
PatternsMatch = Literal["start", "anywhere"]
Figure = Literal["top_1", "top_2", "top_3", "top_4", "top_5", "no_result", "chapter", "heading", "subheading"]
Language = Literal[
    "ARABIC",
    "BULGARIAN",
    "CHINESE",
    "CZECH",
    "DANISH",
    "DUTCH",
    "ENGLISH",
    "ESTONIAN",
    "FINNISH",
    "FRENCH",
    "GERMAN",
    "GREEK",
    "HUNGARIAN",
    "IRISH",
    "ITALIAN",
    "JAPANESE",
    "KOREAN",
    "LATVIAN",
    "LITHUANIAN",
    "POLISH",
    "PORTUGUESE",
    "ROMANIAN",
    "SLOVAK",
    "SLOVENE",
    "SPANISH",
    "SWEDISH",
    "TURKISH",
    "UKRAINIAN",
    "WELSH",
]


def name_in_existing_tools(benchmark: str) -> str:
    """The name of a benchmark in existing tools, which call `good-goods-descriptions` `good_goods`."""
    name = re.sub(r"[^a-z0-9]+", "_", benchmark.lower()).strip("_").removesuffix("_descriptions")
    return name or "benchmark"
