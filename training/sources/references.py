"""Reads search references: `{description: code}`, or the answer of the API."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from training.sources.notes import Note, NoteKind
from training.sources.rows import BrokenRow, Rows
from training.sources.text import decode, read_bytes, unreadable

# References to chapters and headings are left out, because they stand for too many codes.
_REFERENCED: Final = frozenset({"Commodity", "Subheading"})
_TOO_WIDE: Final = frozenset({"Heading", "Chapter", "Section"})

_FORMS: Final = (
    'the file is neither of the form {"description": "code"} nor of the form {"data": [{"attributes": …}]}. '
    "Export the search references again."
)


class _Object(dict[str, Any]):
    """An object of JSON that also keeps the pairs whose key is repeated."""

    pairs: list[tuple[str, Any]]


def _object(pairs: list[tuple[str, Any]]) -> _Object:
    made = _Object(pairs)
    made.pairs = pairs
    return made


def read_references(path: Path) -> Rows:
    """Rows of code and description. Their lines are the numbers of the references, counted from 1.

    An entry that lacks a value is a broken row. Raises `unreadable_source` for any other form, and for one
    page of several.
    """
    decoded = decode(path, read_bytes(path), "utf-8")
    content = _parsed(path, decoded.text)
    found = Rows(notes=list(decoded.notes))
    if not isinstance(content, _Object) or not content:
        raise unreadable(path, _FORMS)
    if "data" in content and not isinstance(content["data"], str):
        _require_whole(path, content)
        _read_answer(content["data"], found)
    else:
        _read_pairs(path, content, found)
    return found


def _parsed(path: Path, text: str) -> object:
    if not text.strip():
        raise unreadable(path, "the file is empty. Export the search references again.")
    try:
        return json.loads(text, object_pairs_hook=_object)
    except json.JSONDecodeError as exc:
        problem = f"this is not valid JSON ({exc.msg}). Export the file again."
        raise unreadable(path, problem, exc.lineno) from exc
    except (ValueError, RecursionError) as exc:
        problem = "the JSON has a number with thousands of digits, or is nested too deeply. Export it again."
        raise unreadable(path, problem) from exc


def _require_whole(path: Path, content: _Object) -> None:
    data, links = content["data"], content.get("links")
    if not isinstance(data, list):
        raise unreadable(path, f"data is {_kind(data)}, not a list. Export the search references again.")
    following = links.get("next") if isinstance(links, dict) else None
    total = content.get("meta")
    for key in ("pagination", "total_count"):
        total = total.get(key) if isinstance(total, dict) else None
    if following or (isinstance(total, int) and total > len(data)):
        count = f" of {total:,}" if isinstance(total, int) else ""
        raise unreadable(
            path,
            f"this is one page of several: it has {len(data):,} references{count}. Export all pages into one "
            "file, or set the URL of the first page, whose links are followed.",
        )


def _read_answer(data: list[Any], found: Rows) -> None:
    wide = 0
    for index, item in enumerate(data):
        place = f"data[{index}]"
        attributes = item.get("attributes") if isinstance(item, dict) else None
        if not isinstance(attributes, dict):
            _broken(found, index, f"{place}.attributes is {_kind(attributes)}, not an object")
            continue
        referenced = attributes.get("referenced_class")
        if isinstance(referenced, str) and referenced in _TOO_WIDE:
            wide += 1
        elif not isinstance(referenced, str) or referenced not in _REFERENCED:
            _broken(
                found, index, f"{place}.attributes.referenced_class is {_kind(referenced)}, not Commodity"
            )
        else:
            code, title = (attributes.get(key) for key in ("goods_nomenclature_item_id", "negated_title"))
            _add(found, index, code, title, f"{place}.attributes")
    if wide:
        what = "references to a chapter or heading stand for too many codes"
        found.notes.append(Note(NoteKind.IGNORED, what, wide))


def _read_pairs(path: Path, content: _Object, found: Rows) -> None:
    if not any(_is_code(code) for code in content.values()):
        raise unreadable(path, _FORMS)
    for index, (description, code) in enumerate(content.pairs):
        _add(found, index, code, description, f"the entry {json.dumps(description)[:60]}")


def _add(found: Rows, index: int, code: object, title: object, place: str) -> None:
    problems = list(_problems(code, title, place))
    if problems:
        _broken(found, index, problems[0])
    else:
        found.rows.append((index + 1, [str(code), str(title)]))


def _problems(code: object, title: object, place: str) -> Iterator[str]:
    if not isinstance(title, str):
        yield f"the title of {place} is {_kind(title)}, not text"
    elif not _is_storable(title):
        yield f"the title of {place} has half of a character (a lone surrogate)"
    if not _is_code(code):
        yield f"the code of {place} is {_kind(code)}, not text with digits"


def _is_code(value: object) -> bool:
    return (isinstance(value, str) and _is_storable(value)) or (
        isinstance(value, int | float) and not isinstance(value, bool)
    )


def _is_storable(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _broken(found: Rows, index: int, why: str) -> None:
    found.broken.append(BrokenRow(index + 1, why))


def _kind(value: object) -> str:
    match value:
        case None:
            return "missing or null"
        case bool():
            return "true or false"
        case str():
            return f"the text {json.dumps(value)[:60]}"
        case int() | float():
            return "a number"
        case list():
            return "a list"
        case _:
            return "an object"
