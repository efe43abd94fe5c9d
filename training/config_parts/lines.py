"""Line numbers of the keys of a TOML text, for error messages. tomli does not keep them.

The text comes from a post, so it is read by a scanner that never goes back: its time is proportional to the
length of the text, whatever the text is.
"""

import re
from collections.abc import Mapping
from typing import Final

import tomli

Path = tuple[str | int, ...]
"""The keys and indices that lead to a value, such as ("sources", 1, "weight")."""

# Deeper than any key of a configuration. Longer keys are cut, so that they cost no time.
_DEEPEST: Final = 6
# Possessive quantifiers: what they have matched is never given back and tried again.
_BARE_KEYS: Final = re.compile(r"[A-Za-z0-9_-]++(?:[ \t]*+\.[ \t]*+[A-Za-z0-9_-]++)*+")
_BLANKS: Final = re.compile(r"[ \t]*")
_BLANKS_AND_LINES: Final = re.compile(r"[ \t\r\n]*")
# What matters in a value: strings, comments, brackets and the end of a line.
_SPECIAL: Final = re.compile(r"[\"'#\[\]{}\n]")
_STRING_PART: Final = re.compile(r"[\"\\]")


def lines_of_keys(text: str) -> dict[Path, int]:
    """Line numbers, counted from 1, of the keys and tables of a text that tomli can read."""
    return _Scanner(text).scan()


class _Scanner:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._found: dict[Path, int] = {}
        # The index of the last table of each array of tables.
        self._last: dict[Path, int] = {}
        self._counted_to = 0
        self._line = 1

    def scan(self) -> dict[Path, int]:
        table: Path = ()
        while self._skip_to_statement():
            line = self._current_line()
            if self._text[self._at] == "[":
                table = self._header(line)
            elif key := self._key():
                self._record(table, key, line)
            else:
                # This is not TOML. tomli reports it better.
                break
            self._skip_value()
        return self._found

    def _record(self, table: Path, key: Path, line: int) -> None:
        """Record a dotted key and the tables that it implies."""
        for length in range(1, len(key) + 1):
            self._found.setdefault((*table, *key[:length]), line)

    def _current_line(self) -> int:
        self._line += self._text.count("\n", self._counted_to, self._at)
        self._counted_to = self._at
        return self._line

    def _skip(self, pattern: re.Pattern[str]) -> None:
        if found := pattern.match(self._text, self._at):
            self._at = found.end()

    def _skip_to_statement(self) -> bool:
        while True:
            self._skip(_BLANKS_AND_LINES)
            if not self._text.startswith("#", self._at):
                return self._at < len(self._text)
            self._skip_line()

    def _skip_line(self) -> None:
        end = self._text.find("\n", self._at)
        self._at = len(self._text) if end < 0 else end

    def _header(self, line: int) -> Path:
        """The path of `[table]`, or of `[[table]]` with its index. Stops before the closing brackets."""
        is_array = self._text.startswith("[[", self._at)
        self._at += 2 if is_array else 1
        path: Path = ()
        key = self._key()
        for position, part in enumerate(key):
            self._record(path, (part,), line)
            path = (*path, part)
            if is_array and position == len(key) - 1:
                self._last[path] = self._last.get(path, -1) + 1
            if path in self._last:
                self._record(path, (self._last[path],), line)
                path = (*path, self._last[path])
        # Past the brackets, so that only the rest of the line is left.
        self._skip_line()
        return path

    def _key(self) -> tuple[str, ...]:
        """The parts of a dotted key; none if there is no key here."""
        parts: list[str] = []
        while True:
            self._skip(_BLANKS)
            start = self._at
            quote = self._text[start : start + 1]
            if bare := _BARE_KEYS.match(self._text, start):
                self._at = bare.end()
                parts += [part.strip(" \t") for part in bare[0].split(".", _DEEPEST)[:_DEEPEST]]
            elif quote in {"'", '"'}:
                self._skip_string()
                quoted = self._text[start : self._at]
                parts.append(quoted[1:-1] if quote == "'" else _unescaped(quoted))
            else:
                return ()
            self._skip(_BLANKS)
            if not self._text.startswith(".", self._at):
                return tuple(parts[:_DEEPEST])
            self._at += 1

    def _skip_value(self) -> None:
        """To the end of the statement's last line: strings and brackets may span several lines."""
        depth = 0
        while special := _SPECIAL.search(self._text, self._at):
            self._at = special.start()
            match special[0]:
                case "#":
                    self._skip_line()
                case "\n":
                    if depth <= 0:
                        return
                    self._at += 1
                case "[" | "{":
                    depth += 1
                    self._at += 1
                case "]" | "}":
                    depth -= 1
                    self._at += 1
                case _:
                    self._skip_string()
        self._at = len(self._text)

    def _skip_string(self) -> None:
        quote = self._text[self._at]
        delimiter = quote * 3 if self._text.startswith(quote * 3, self._at) else quote
        self._at += len(delimiter)
        if quote == "'":
            end = self._text.find(delimiter, self._at)
            self._at = len(self._text) if end < 0 else end + len(delimiter)
        else:
            self._skip_basic_string(delimiter)
        if len(delimiter) == 3:
            # A multi-line string may end with one or two quotes of its own before the delimiter.
            while self._text.startswith(quote, self._at):
                self._at += 1

    def _skip_basic_string(self, delimiter: str) -> None:
        while part := _STRING_PART.search(self._text, self._at):
            self._at = part.start()
            if part[0] == "\\":
                self._at += 2
            elif self._text.startswith(delimiter, self._at):
                self._at += len(delimiter)
                return
            else:
                self._at += 1
        self._at = len(self._text)


def _unescaped(quoted: str) -> str:
    try:
        value = tomli.loads(f"key = {quoted}")["key"]
    except tomli.TOMLDecodeError:
        return quoted
    return str(value)


def line_of(path: Path, lines: Mapping[Path, int]) -> int | None:
    """The line of a value, or of the nearest enclosing key or table that has one."""
    for length in range(len(path), 0, -1):
        if line := lines.get(path[:length]):
            return line
    return None
