"""What is valid in a configuration and will still surprise somebody."""

import re
from collections.abc import Iterator
from itertools import islice
from typing import Final

MOST_WARNINGS: Final = 10

_VERSION_LINE: Final = re.compile(r'version = "[^"]*"\s*')


def warnings_of(text: str, device: str) -> tuple[str, ...]:
    """The warnings about a text that can be used, the first of them if there are very many."""
    return tuple(islice(_warnings(text, device), MOST_WARNINGS))


def _warnings(text: str, device: str) -> Iterator[str]:
    if device == "mps":
        yield "device is mps, which only macOS has. Builds run on Linux and will fail. Write auto or cuda."
    for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), 1):
        if "version" not in line or _VERSION_LINE.fullmatch(line):
            continue
        if line.lstrip().startswith("version"):
            yield (
                f"line {number} gives the version in a form that existing tools do not find with grep. "
                'Write version = "1.0.0", alone in its line.'
            )
        else:
            yield (
                f"line {number} contains the word version, and existing tools find the version with grep. "
                "Use another word."
            )
