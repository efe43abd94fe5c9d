"""Benchmark zips as people really make them: their files, their codes, and what is refused or repaired."""

import gzip
import io
import json
import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.unit.training.workbooks import workbook
from training.cleaning.codes import ODD, ROUNDED
from training.config import parse_config
from training.errors import FailureCode, TrainingError
from training.evaluation.benchmark import Benchmark, make_benchmarks
from training.evaluation.classify import Result
from training.evaluation.measure import Measured
from training.evaluation.results import write_results
from training.evaluation.tables import read_tables
from training.pipeline import read_benchmarking_data
from training.progress import Progress
from training.sources.codes import NOT_DIGITS

CODED = "Goods Description,Commodity Code\nhorse,0101210000\n"
CONFIG = parse_config('name = "m"\nversion = "0.1.0"\n')


def write(folder: Path, files: Mapping[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def judge(
    folder: Path, classes: Sequence[str] = ("010121",), digits: int = 6
) -> tuple[list[Benchmark], list[str], str]:
    log = io.StringIO()
    config = CONFIG.model_copy(update={"digits": digits})
    found, warnings = make_benchmarks(read_tables(folder), config, classes, (), Progress(log=log))
    return found, warnings, log.getvalue()


def test_a_zip_is_read_as_the_raw_data_is_with_its_sub_folders_and_without_what_systems_left_in_it(
    tmp_path: Path,
) -> None:
    archive = tmp_path / "benchmarking_data.zip"
    junk = ("._a.csv", "~$a.xlsx", ".DS_Store", "__MACOSX/._a.csv", "x/.ipynb_checkpoints/a.csv", "x/~$a.csv")
    real = {
        "a.csv": CODED.encode(),
        "B.CSV": CODED.encode(),
        "x/c.csv.gz": gzip.compress(CODED.encode()),
        "x/deep/d.xlsx": workbook(("Goods Description", "Commodity Code"), ("horse", "0101210000")),
        "x/deep/a.csv": b"description\ngoods\n",
        "utf16.csv": CODED.encode("utf-16"),
    }
    with zipfile.ZipFile(archive, "w") as content:
        for name in junk:
            content.writestr(name, b"\x00\x05\x16\x07 resource fork")
        for name, text in real.items():
            content.writestr(name, text)
        for name in ("README.txt", "x/notes.md", "x/old.xls", "e.tsv"):
            content.writestr(name, "not read")
    output = tmp_path / "output"
    output.mkdir()
    found = read_benchmarking_data(archive, output)
    tables = found.tables
    assert {table.name: table.has_codes for table in tables} == {
        "B": True, "a": True, "utf16": True, "c": True, "d": True, "x-deep-a": False,
    }  # fmt: skip
    coded = [[row for _, row in table.found.rows] for table in tables if table.has_codes]
    assert (found.passed_over or "").startswith("e.tsv, x/old.xls: not read")
    assert coded == [[["horse", "0101210000"]]] * 5


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a.csv": CODED, "x/empty.csv": ""}, "x/empty.csv has no rows"),
        ({"a.csv": CODED, "x/header.csv": "description,code\n"}, "x/header.csv has only a header"),
        ({"x/a.csv": "code,text\n010121,horse\n010121,pony\n"}, "x/a.csv, line 2: .* first column"),
        ({"a.csv": CODED, "a.xlsx": workbook(("horse", "0101210000"))}, "a.csv and a.xlsx .* Rename"),
        ({"x/a.csv": CODED, "y/a.csv": CODED, "x-a.csv": CODED}, "x-a.csv and x/a.csv .* benchmark x-a"),
        ({"a.csv": "version https://git-lfs.github.com/spec/v1\noid sha256:0\n"}, "a.csv: .* git lfs pull"),
        ({"a.csv": "<!doctype html><html>Log in</html>"}, "a.csv: .* log-in page"),
        ({"a.csv": '{"error": "no access"}'}, "a.csv: .* error answer of an API"),
        ({"a.csv": "description,code\nhorse,01012\n"}, "a.csv .* line 2 .*odd number"),
        ({"a.csv": b"PK\x03\x04 broken"}, "a.csv: the workbook is damaged"),
        ({"a.csv.gz": b"\x1f\x8b broken"}, "a.csv.gz: the gzip file is damaged"),
    ],
)
def test_what_cannot_be_measured_is_refused_with_file_and_remedy(
    tmp_path: Path, files: dict[str, str | bytes], message: str
) -> None:
    with pytest.raises(TrainingError, match=message) as caught:
        judge(write(tmp_path, files))
    assert caught.value.reason is FailureCode.UNREADABLE_SOURCE
    remedies = ("Add ", "Put ", "Rename ", "Correct ", "ave it ", "Fetch ", "Copy ", "Run ", "save the data")
    assert any(remedy in caught.value.message for remedy in remedies)


def test_no_table_and_a_pipe_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no tables") as caught:
        judge(write(tmp_path, {"._a.csv": "x", "a.txt": "horse"}))
    assert caught.value.reason is FailureCode.MISSING_BENCHMARK
    os.mkfifo(tmp_path / "a.csv")
    with pytest.raises(TrainingError, match="not a regular file"):
        judge(tmp_path)


def test_codes_that_lost_digits_are_restored_by_the_classes_of_the_model_and_counted(tmp_path: Path) -> None:
    classes = ["-", "010121", "020110", "401110", "847130"]
    rows = {
        "printed": "0101.21.00", "spaces": "8471 30 00", "formula": '"=""01012100"""', "float": "1012100.0",
        "zero": "1012100", "more digits": "101210000", "thousands": '"1,012,100"', "rounded": "1.0121E+06",
        "exact": "1.012100E+06", "cut off": "847130",
    }  # fmt: skip
    bad = {"ambiguous": "401110000", "odd": "9999999", "unknown number": "9.9E+06", "letters": "84713000x"}
    text = "".join(f"{name},{code}\n" for name, code in (rows | bad).items())
    (found,), warnings, log = judge(write(tmp_path, {"b.csv": f"description,code\n{text}"}), classes)
    assert dict(zip(found.descriptions, found.codes or [], strict=True)) == {
        name: "847130" if name in {"spaces", "cut off"} else "010121" for name in rows
    }
    assert found.left_out == {ODD: 2, ROUNDED: 1, NOT_DIGITS: 1}
    assert found.noted == {
        "guessed": {"taken for the header": 1},
        "repaired": {"code_form": 6, "leading_zero": 5, "rounded_code": 1},
    }
    assert not warnings
    assert "14 rows, 10 measured, 2 left out" in log
    assert "5 repaired (leading_zero)" in log


@pytest.mark.parametrize(
    ("classes", "digits", "codes"),
    [
        (["01012100", "01012910"], 8, ["01012100"]),
        (["01012100", "01012910"], 6, ["010121"]),
        # A model of 6 digits does not know which code of 8 digits was rounded.
        (["010121", "010129"], 8, None),
        # Both have codes that round to this number.
        (["010120", "010121"], 6, None),
        ([], 6, None),
    ],
)
def test_a_rounded_code_is_restored_only_if_one_class_fits(
    tmp_path: Path, classes: list[str], digits: int, codes: list[str] | None
) -> None:
    write(tmp_path, {"b.csv": "description,code\nhorse,1.0121E+06\ncattle,02011000\n"})
    (found,), _, _ = judge(tmp_path, classes, digits)
    assert [code for code in found.codes or [] if code.startswith("0101")] == (codes or [])
    assert found.left_out == ({} if codes else {ROUNDED: 1})


def test_a_benchmark_that_says_little_about_the_model_is_warned_about(tmp_path: Path) -> None:
    write(tmp_path, {"b.csv": "description,code\na horse,010121\na mule,999999\nodd,9999999\nbroken\n"})
    (found,), (warning,), log = judge(tmp_path)
    assert (found.rows, found.descriptions) == (4, ["a horse", "a mule"])
    assert warning.startswith("benchmark b: only 1 of 4 rows can be answered rightly (broken row: 1, ")
    assert "the model has no such class: 1" in warning
    assert f"warning: {warning}" in log
    assert "left out b.csv, line 5: it has 1 columns" in log


def test_results_can_be_stored_whatever_the_names_and_descriptions_hold(tmp_path: Path) -> None:
    name = "a\x01b\x7f\ufffe\u2028c.csv"
    write(tmp_path / "data", {name: "description,code\n\x01ho\x0brse\u200b\ufffe,0101210000\n"})
    (found,), _, _ = judge(tmp_path / "data")
    assert (found.name, found.descriptions) == ("a?b???c", ["ho rse\ufffe"])
    measured = Measured(found, {"top_1": 1.0}, {}, [[Result("010121", 1.0)]])
    config = CONFIG.model_copy(update={"name": "m\x00\ufffe"})
    write_results(tmp_path, [measured], config, ())
    root = ET.parse(tmp_path / "benchmark_results.xml").getroot()
    assert root.get("name") == "m?? 0.1.0"
    assert root[0].get("name") == "a?b???c"
    with zipfile.ZipFile(tmp_path / "benchmark_results.zip") as archive:
        assert json.loads(archive.read("a?b???c.json"))["predictions"][0]["description"] == "ho rse\ufffe"


def test_what_was_repaired_is_in_the_results(tmp_path: Path) -> None:
    write(tmp_path / "data", {"b.csv": "description,code\nhorse,1012100\nmule,9999999\n"})
    (found,), _, _ = judge(tmp_path / "data")
    write_results(tmp_path, [Measured(found, {}, {}, [[]])], CONFIG, ())
    properties = {
        one.get("name"): one.get("value")
        for one in ET.parse(tmp_path / "benchmark_results.xml").iter("property")
    }
    assert properties.items() >= {(f"left_out.{ODD}", "1"), ("repaired.leading_zero", "1")}
    with zipfile.ZipFile(tmp_path / "benchmark_results.zip") as archive:
        content = json.loads(archive.read("b.json"))
    assert (content["left_out"], content["repaired"]) == ({ODD: 1}, {"leading_zero": 1})
