"""Codes as spreadsheets and people write them: read where they are certain, otherwise dropped and counted."""

import csv
from pathlib import Path

import polars as pl
import pytest

from training.cleaning.cleaner import clean
from training.cleaning.codes import ODD, ROUNDED, Nomenclature, code_cleaners, nomenclature_of
from training.cleaning.language import LanguageRules
from training.cleaning.pipelines import CleaningLists
from training.config import parse_config
from training.dataset.merge import CleanedSource, clean_sources, merge
from training.lookup import Lookup
from training.sources.codes import (
    LOST_END,
    NO_CHAPTER,
    NO_CODE,
    NOT_DIGITS,
    TOO_LONG,
    looks_like_a_code,
    printed,
)
from training.sources.read import files_of, read_source

KNOWN = Nomenclature(
    ("01012100", "01012910", "01013000", "03011100", "40110100", "40111000", "84713000", "84714100")
)


@pytest.mark.parametrize(
    ("text", "digits"),
    [
        ("01012100", "01012100"),
        ("010121", "010121"),
        ("0101210000", "0101210000"),
        ("0101.21.00", "01012100"),
        ("0101.21", "010121"),
        ("0101 21 00", "01012100"),
        ("01 01 21 00", "01012100"),
        ("0301-11-00", "03011100"),
        ("0301–11–00", "03011100"),
        ("0101/21/00", "01012100"),
        ("0101.2100 00", "0101210000"),
        ("0101 . 21 . 00", "01012100"),
        ("'01012100", "01012100"),
        ("’01012100", "01012100"),
        ('="01012100"', "01012100"),
        ('= "01012100"', "01012100"),
        ('"01012100"', "01012100"),
        (" 01012100\t", "01012100"),
        ("\u00a001012100\u2009", "01012100"),
        ("01\u200b012100\ufeff", "01012100"),
        ("０１０１２１００", "01012100"),
        ("０１０１．２１．００", "01012100"),
        ("1012100", "1012100"),
        ("1012100.0", "1012100"),
        ("84713000.0", "84713000"),
        ("84713000,00", "84713000"),
        ("84713000.00", "8471300000"),
        ("1,012,100", "1012100"),
        ("84.713.000", "84713000"),
        ("101.21.00", "1012100"),
        ("1.012100E+06", "1012100"),
        ("8.4713000e7", "84713000"),
        ("8,4713000E+07", "84713000"),
    ],
)
def test_a_code_is_read_as_it_was_printed(text: str, digits: str) -> None:
    assert printed(text).digits == digits
    assert looks_like_a_code(text)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", NO_CODE),
        (" \u200b", NO_CODE),
        ("nan", NO_CODE),
        ("NULL", NO_CODE),
        ("#N/A", NO_CODE),
        ("-", NO_CODE),
        ("84713000x", NOT_DIGITS),
        ("x84713000", NOT_DIGITS),
        ("ABC", NOT_DIGITS),
        ("84713000 laptops", NOT_DIGITS),
        ("8471O000", NOT_DIGITS),
        ("-84713000", NOT_DIGITS),
        ("84713000;84714100", NOT_DIGITS),
        ("١٢٣٤٥٦", NOT_DIGITS),
        ("0101²", NOT_DIGITS),
        ("8471.3", LOST_END),
        ("0101.21.0", LOST_END),
        ("8471,3", NOT_DIGITS),
        ("84713000008", TOO_LONG),
        ("8471300000 80", TOO_LONG),
        ("00123456", NO_CHAPTER),
    ],
)
def test_a_code_that_is_not_certain_has_a_problem(text: str, problem: str) -> None:
    assert printed(text).problem == problem
    assert not looks_like_a_code(text)


def read(code: str, digits: int = 6, known: Nomenclature = KNOWN) -> str:
    """The code after the repair, or the reason for which its row is dropped."""
    frame = pl.DataFrame({"code": [code], "description": ["text"]})
    cleaned = clean(frame, code_cleaners(known, digits))
    return str((cleaned.kept["code"] if cleaned.kept.height else cleaned.dropped["reason"])[0])


@pytest.mark.parametrize(
    ("code", "repaired"),
    [
        ("1012100", "01012100"),
        ("1012100.0", "01012100"),
        ("101.21.00", "01012100"),
        ("10121", "010121"),
        ("101210000", "0101210000"),
        # 0847 is not a heading, and 8471 is one.
        ("8471300", ODD),
        ("847130000", ODD),
        # The last digit was lost, not the first one.
        ("382499969", ODD),
        ("01012", ODD),
        ("9999999", ODD),
        # An even number of digits has not lost a leading zero.
        ("84713000", "84713000"),
        # 0401 10 and 4011 10 both exist.
        ("4011100", ODD),
    ],
)
def test_a_lost_zero_is_restored_where_the_nomenclature_allows_only_that(code: str, repaired: str) -> None:
    known = Nomenclature(tuple(sorted((*KNOWN.codes, "04011010", "38249996"))))
    assert read(code, known=known) == repaired


def test_a_lost_zero_is_judged_by_as_many_digits_as_the_model_has() -> None:
    assert read("1012190", 6) == "01012190"
    assert read("1012190", 8) == ODD


@pytest.mark.parametrize(
    ("code", "repaired"),
    [
        ("1.0121E+06", "01012100"),
        ("8.4713E+07", "84713000"),
        ("8.4713E+09", "84713000"),
        ("1.0129E+06", "01012910"),
        ("8.47E+07", ROUNDED),
        ("9.9E+07", ROUNDED),
    ],
)
def test_a_rounded_code_is_restored_where_only_one_code_rounds_to_it(code: str, repaired: str) -> None:
    assert read(code) == repaired


def test_without_a_nomenclature_nothing_is_guessed() -> None:
    assert read("1012100", known=Nomenclature()) == ODD
    assert read("1.0121E+06", known=Nomenclature()) == ROUNDED
    assert read("0101.21.00", known=Nomenclature()) == "01012100"


def test_a_list_of_codes_that_has_lost_all_its_zeros_is_restored_and_a_single_typing_error_is_not() -> None:
    assert nomenclature_of(["1012100", "1013000", "84713000"]).codes == ("01012100", "01013000", "84713000")
    # One code has its zero, so the file has not lost them.
    assert nomenclature_of(["01012100", "1013000", "84713000"]).codes == ("01012100", "84713000")
    # 0847 is not a heading.
    assert nomenclature_of(["84714100", "8471300"]).codes == ("84714100",)
    assert nomenclature_of(["ABC", "01012", ""]).codes == ()


CONFIG = """
name = "small"
version = "0.1.0"
cn_data_file = "codes.csv"
brands_file = "brands.csv"
extra_data_file = "extra.csv"
"""
LISTS = CleaningLists((), (), LanguageRules(("ENGLISH",), ("ENGLISH", "GERMAN"), 0.7))


def cleaned(folder: Path, brands: list[str], codes: list[str]) -> dict[str, CleanedSource]:
    for name, header, rows in (
        ("codes.csv", ["KEY", "CODE", "TEXT"], [["1", code, f"goods {code}"] for code in codes]),
        ("brands.csv", ["CODE", "TEXT"], [[code, f"thing {number}"] for number, code in enumerate(brands)]),
        ("extra.csv", ["TEXT", "CODE"], [[f"item {number}", code] for number, code in enumerate(brands)]),
    ):
        with (folder / name).open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([header, *rows])
    config, lookup = parse_config(CONFIG), Lookup(folder, folder)
    read_rows = [read_source(one, files_of(one, lookup)) for one in config.sources]
    return {one.source.name: one for one in clean_sources(read_rows, 6, LISTS)}


def test_what_is_repaired_and_dropped_is_counted_in_every_source(tmp_path: Path) -> None:
    sources = cleaned(
        tmp_path, ["1012100.0", "84713000x", "0101.21.00", "", "8471300"], ["01012100", "84713000"]
    )
    for name in ("brands", "extra_references"):
        found = sources[name].cleaned
        assert found.kept["code"].to_list() == ["010121", "010121"]
        assert found.reasons == {NOT_DIGITS: 1, NO_CODE: 1, ODD: 1}
        assert (found.changed["code_form"], found.changed["leading_zero"]) == (2, 1)
        sample = found.samples["leading_zero"][0]
        assert (sample.before, sample.after, sample.where[-2:]) == ("1012100", "01012100", ":2")
    assert merge(list(sources.values())).counts["repaired_codes"] == 6


def test_a_source_that_creates_codes_makes_no_classes_of_junk(tmp_path: Path) -> None:
    sources = cleaned(tmp_path, ["84713000"], ["ABC", "01012", "84713000", "n/a", "84713000x", "8.5E+07"])
    assert merge(list(sources.values())).classes == ["847130"]


def test_a_source_that_creates_codes_and_has_lost_its_zeros_is_restored(tmp_path: Path) -> None:
    sources = cleaned(tmp_path, ["1013000", "01012100"], ["1012100", "1013000", "84713000"])
    assert merge(list(sources.values())).classes == ["010121", "010130", "847130"]
    assert sources["brands"].cleaned.kept["code"].to_list() == ["010130", "010121"]
