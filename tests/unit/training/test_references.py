"""Search references of any shape: what is missing is a broken row with its place, and never a text."""

import json
from pathlib import Path
from typing import Any

import pytest

from training.errors import FailureCode, TrainingError
from training.sources.references import read_references
from training.sources.rows import Rows

ITEM = {
    "referenced_class": "Commodity",
    "negated_title": "kettle",
    "goods_nomenclature_item_id": "8516108000",
}


def read(path: Path, content: object) -> Rows:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return read_references(path)


def answer(*attributes: Any) -> dict[str, Any]:
    return {"data": [{"attributes": one} for one in attributes]}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"negated_title": None}, "the title of data[1].attributes is missing or null"),
        ({"negated_title": 5}, "the title of data[1].attributes is a number"),
        ({"negated_title": "a\ud800"}, "half of a character"),
        ({"goods_nomenclature_item_id": None}, "the code of data[1].attributes is missing or null"),
        ({"goods_nomenclature_item_id": ["1"]}, "the code of data[1].attributes is a list"),
        ({"goods_nomenclature_item_id": True}, "the code of data[1].attributes is true or false"),
        ({"referenced_class": None}, "data[1].attributes.referenced_class is missing or null"),
        ({"referenced_class": "Banana"}, 'referenced_class is the text "Banana"'),
    ],
)
def test_an_entry_without_a_value_is_a_broken_row_with_its_place(
    tmp_path: Path, change: dict[str, Any], why: str
) -> None:
    found = read(tmp_path / "r.json", answer(ITEM, ITEM | change))
    assert [row for _, row in found.rows] == [["8516108000", "kettle"]]
    assert [broken.line for broken in found.broken] == [2]
    assert why in found.broken[0].why


@pytest.mark.parametrize("item", [None, "text", [], {}, {"attributes": None}, {"attributes": []}])
def test_an_entry_of_another_shape_is_a_broken_row(tmp_path: Path, item: object) -> None:
    found = read(tmp_path / "r.json", {"data": [item, {"attributes": ITEM}]})
    assert len(found.rows) == 1
    assert "data[0].attributes is" in found.broken[0].why


def test_references_to_chapters_are_counted(tmp_path: Path) -> None:
    found = read(tmp_path / "r.json", answer(ITEM, ITEM | {"referenced_class": "Chapter"}))
    assert [note.rows for note in found.notes] == [1]
    assert len(found.rows) == 1


def test_a_description_that_is_repeated_keeps_all_its_codes(tmp_path: Path) -> None:
    found = read(tmp_path / "r.json", '{"kettle": "8516108000", "kettle": "7323930000", "urn": null, "e": 1}')
    assert [row for _, row in found.rows] == [["8516108000", "kettle"], ["7323930000", "kettle"], ["1", "e"]]
    assert 'the entry "urn" is missing or null' in found.broken[0].why.replace("the code of ", "")


@pytest.mark.parametrize(
    "more",
    [
        {"links": {"next": "https://example.com/?page=2"}},
        {"meta": {"pagination": {"page": 1, "per_page": 1, "total_count": 3}}},
    ],
)
def test_one_page_of_several_is_refused(tmp_path: Path, more: dict[str, Any]) -> None:
    with pytest.raises(TrainingError, match="one page of several"):
        read(tmp_path / "r.json", answer(ITEM) | more)


@pytest.mark.parametrize(
    "more", [{"links": {"next": None}}, {"links": []}, {"meta": {"pagination": {"total_count": 1}}}]
)
def test_the_only_page_is_read(tmp_path: Path, more: dict[str, Any]) -> None:
    assert len(read(tmp_path / "r.json", answer(ITEM) | more).rows) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"errors": [{"detail": "gone"}]}', "error answer of an API"),
        ('{"error": "unauthorized"}', "unauthorized"),
        ('{"data": {"a": 1}}', "data is an object, not a list"),
        ('{\n"a": }', "line 2: this is not valid JSON"),
        ("[" * 100_000, "nested too deeply|not valid JSON"),
        ("<html>", "web page"),
        ("", "the file is empty"),
    ],
)
def test_any_other_answer_is_refused_and_named(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(TrainingError, match=message) as caught:
        read(tmp_path / "r.json", content)
    assert caught.value.reason is FailureCode.UNREADABLE_SOURCE
