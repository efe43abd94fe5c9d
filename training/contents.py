"""What a file is, by its first bytes: data, or something that was saved or stored in its place."""

import json
import re
from typing import Final

_GIT_LFS: Final = b"version https://git-lfs.github.com/spec/"
# A tag, a comment or a declaration. No description begins with one.
_MARKUP: Final = re.compile(rb"\s*<(?:!doctype\b|!--|\?xml\b|/?[a-z][a-z0-9:]*[\s/>])", re.IGNORECASE)
# Text may begin with one of these; anything else that is not text is binary.
_MAGIC: Final = (
    (b"%PDF", "a PDF document"),
    (b"\x89PNG", "an image"),
    (b"\xff\xd8\xff", "an image"),
    (b"GIF8", "an image"),
    (b"PAR1", "a Parquet file"),
    (b"SQLite format 3", "a SQLite database"),
    (b"7z\xbc\xaf", "a 7-Zip archive"),
    (b"Rar!", "a RAR archive"),
    (b"BZh", "a file compressed with bzip2"),
    (b"\xfd7zXZ", "a file compressed with xz"),
    (b"\x28\xb5\x2f\xfd", "a file compressed with zstd"),
    (b"{\\rtf", "an RTF document"),
)
_LINES_OF_JSON: Final = 5
_BYTE_ORDER_MARKS: Final = b"\xef\xbb\xbf"


def stand_in(content: bytes) -> str | None:
    """What was saved in place of the data, with the remedy; None if the content may be data."""
    start = content[:4096].removeprefix(_BYTE_ORDER_MARKS)
    if start.startswith(_GIT_LFS):
        return "is a git-LFS pointer, not the file itself. Run git lfs pull, and add the real file."
    for magic, name in _MAGIC:
        if start.startswith(magic):
            return f"is {name}. Save it as CSV in UTF-8."
    if _MARKUP.match(start):
        return (
            "is a web page or XML, such as a log-in page or an error page. Open its address in a browser, "
            "log in if asked to, and save the data itself."
        )
    return None


def api_error(content: bytes) -> str | None:
    """The error that an API answered with, as `{"error": …}` or `{"errors": […]}`; None for anything else."""
    if content[:4096].removeprefix(_BYTE_ORDER_MARKS).lstrip()[:1] != b"{" or len(content) > 1 << 20:
        return None
    try:
        answer = json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return None
    if not isinstance(answer, dict) or "data" in answer:
        return None
    for key in ("errors", "error", "message", "detail"):
        # A list of terms may have one called "error", but then its value is a code.
        if answer.get(key) and not str(answer[key]).strip().isdigit():
            said = json.dumps(answer[key], ensure_ascii=False)[:200]
            return f"is the error answer of an API ({key}: {said}). Fetch the data again."
    return None


def is_json(text: str) -> bool:
    """Whether the text, or each of its lines, is an object or a list of JSON, and so not a table."""
    if text.lstrip()[:1] not in {"{", "["}:
        return False
    lines = text.split("\n", _LINES_OF_JSON)[:_LINES_OF_JSON]
    return _is_parsed(text) or all(_is_parsed(line) for line in lines if line.strip())


def _is_parsed(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict | list)
    except (ValueError, RecursionError):
        return False
