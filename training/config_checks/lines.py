"""Line numbers of the keys of a TOML text, for error messages. tomli does not keep them."""

import re

_TABLE = re.compile(r"^\s*\[(\[)?\s*(?P<name>[^\[\]]+?)\s*\](\])?\s*(#.*)?$")
_KEY = re.compile(r"""^\s*(?P<key>[A-Za-z0-9_\-."' ]+?)\s*=""")


def lines_of_keys(text: str) -> dict[str, int]:
    """Line numbers, counted from 1, by dotted key such as `sources[1].weight`."""
    found: dict[str, int] = {}
    counts: dict[str, int] = {}
    prefix = ""
    multiline: str | None = None
    for number, line in enumerate(text.splitlines(), start=1):
        if multiline:
            multiline = None if multiline in line else multiline
            continue
        if table := _TABLE.match(line):
            prefix = _plain(table["name"])
            if table[1]:
                counts[prefix] = counts.get(prefix, -1) + 1
                found.setdefault(prefix, number)
                prefix = f"{prefix}[{counts[prefix]}]"
            found.setdefault(prefix, number)
        elif key := _KEY.match(line):
            found.setdefault(".".join(filter(None, [prefix, _plain(key["key"])])), number)
            value = line[key.end() :]
            multiline = next((q for q in ('"""', "'''") if value.count(q) == 1), None)
    return found


def _plain(key: str) -> str:
    return ".".join(part.strip().strip("\"'") for part in key.split("."))
