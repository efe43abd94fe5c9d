"""Raises the version in search-config.toml, and leaves everything else in it as it is."""

import re
import tomllib
from pathlib import Path

from cli.builds.checkout import CheckoutError

_LINE = re.compile(r"""(?P<before>version\s*=\s*(?P<quote>["']))[^"']*(?P<after>(?P=quote).*)""")
_RELEASE = re.compile(r"(\d+)\.(\d+)\.(\d+)")


def next_patch(version: str) -> str:
    """0.1.3 for 0.1.2. Raises CheckoutError for what is not a release."""
    found = _RELEASE.fullmatch(version)
    if found is None:
        message = f"The version {version!r} is not MAJOR.MINOR.PATCH, so its next patch is not known."
        raise CheckoutError(message)
    major, minor, patch = found.groups()
    return f"{major}.{minor}.{int(patch) + 1}"


def raised(text: str) -> tuple[str, str]:
    """The configuration with the next patch version, and that version. Raises CheckoutError."""
    try:
        before = tomllib.loads(text)
        version = str(before["version"])
    except (tomllib.TOMLDecodeError, KeyError) as exc:
        message = f"search-config.toml has no version that can be read ({exc})."
        raise CheckoutError(message) from exc
    wanted = next_patch(version)
    lines = text.splitlines(keepends=True)
    for number, line in enumerate(lines):
        found = _LINE.fullmatch(line.rstrip("\r\n"))
        # Keys after the first table belong to that table.
        if line.lstrip().startswith("["):
            break
        if found is not None:
            ending = line[len(line.rstrip("\r\n")) :]
            raised_line = f"{found['before']}{wanted}{found['after']}{ending}"
            changed = "".join([*lines[:number], raised_line, *lines[number + 1 :]])
            # Such a line can also be a part of a longer text.
            if tomllib.loads(changed) == before | {"version": wanted}:
                return changed, wanted
    message = 'search-config.toml has its version in a form that is not understood. Write version = "1.2.3".'
    raise CheckoutError(message)


def raise_version(file: Path) -> str:
    """Raise the version in the file; returns the new one. Raises CheckoutError."""
    try:
        # Line ends stay as they are.
        with file.open(encoding="utf-8", newline="") as opened:
            text = opened.read()
    except (OSError, UnicodeDecodeError) as exc:
        message = f"{file} cannot be read ({exc})."
        raise CheckoutError(message) from exc
    changed, version = raised(text)
    with file.open("w", encoding="utf-8", newline="") as opened:
        opened.write(changed)
    return version
