"""A source that gives nothing usable ends the run and says why; one that gives little is warned about."""

import io
from pathlib import Path

import pytest

from training.config import every_value, parse_config, toml_document
from training.errors import FailureCode, TrainingError
from training.pipeline import Places, Prepared, prepare
from training.progress import Progress

CONFIG = """
name = "small"
version = "0.1.0"
cn_data_file = "codes.csv"
brands_file = "brands.csv"
"""
CODES = "KEY,CODE,TEXT\n1,01012100,horses\n2,02022000,beef\n3,84713000,laptops\n"
BRANDS = "CODE,TEXT\n01012100,red rum\n84713000,thinkpad\n"


def prepared(
    folder: Path, brands: str | bytes, config: str = CONFIG, codes: str = CODES
) -> tuple[Prepared, str]:
    (folder / "codes.csv").write_text(codes)
    (folder / "brands.csv").write_bytes(brands.encode() if isinstance(brands, str) else brands)
    log = io.StringIO()
    (folder / "out").mkdir(exist_ok=True)
    data = prepare(parse_config(config), folder, folder / "out", Progress(log=log), Places())
    return data, log.getvalue()


@pytest.mark.parametrize(
    ("brands", "message"),
    [
        ("", r"brands\.csv has no rows"),
        ("\n \n", r"brands\.csv has no rows"),
        ("CODE,TEXT\n", r"brands\.csv has only a header"),
        ("CODE;TEXT\n01012100;red rum\n", 'set delimiter = ";"'),
        ("CODE;TEXT\n01012100;red rum, fast\n84713000;laptop, new\n", 'set delimiter = ";"'),
        ("TEXT,CODE\nred rum,01012100\nthinkpad,84713000\n", "codes seem to be in column 1"),
        (
            "CODE,TEXT\n99999900,red rum\n",
            r"codes that no source creates, such as '999999' in brands\.csv, line 2",
        ),
        ("CODE,TEXT\nABC,red rum\n", r"line 2: code 'ABC', description 'red rum'"),
        ("CODE,TEXT\n01012100,\n", "empty description"),
        ("CODE,TEXT\n01012100\n", "no row is complete|are broken"),
        ("version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        ("<!doctype html><html>", "web page"),
        ('{"error": "forbidden"}', "forbidden"),
        ("<title>Log in</title>\n<form>\n01012100,pony\n", "web page"),
        ('[{"code": "01012100", "text": "pony"}]\n', "is JSON, not a table"),
        (
            '{"code": "01012100", "text": "pony"}\n{"code": "84713000", "text": "mac"}\n',
            "is JSON, not a table",
        ),
        (b"\x00\x01\x02", "binary"),
    ],
)
def test_a_source_without_a_usable_row_ends_the_run_and_says_why(
    tmp_path: Path, brands: str | bytes, message: str
) -> None:
    with pytest.raises(TrainingError, match=message) as caught:
        prepared(tmp_path, brands)
    assert caught.value.reason is FailureCode.UNREADABLE_SOURCE
    assert "brands" in caught.value.message


def test_a_source_that_creates_codes_and_has_none_ends_the_run(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="source cn_self_texts: none of the 1 rows") as caught:
        prepared(tmp_path, BRANDS, codes="KEY,CODE,TEXT\n1,ABC,horses\n")
    assert caught.value.reason is FailureCode.UNREADABLE_SOURCE


def test_a_source_with_mostly_unusable_rows_is_warned_about_below_the_threshold(tmp_path: Path) -> None:
    brands = f"{BRANDS}ABC,one\n,two\n99999900,three\n"
    _, log = prepared(tmp_path, brands)
    assert "warning: source brands: only 2 of 5 rows can be used" in log
    assert "no source creates this code: 1" in log
    _, log = prepared(tmp_path, brands, f"minimum_usable_share = 0.4\n{CONFIG}")
    assert "warning: source brands" not in log


def test_what_happened_is_counted_for_result_json(tmp_path: Path) -> None:
    data, log = prepared(tmp_path, f"{BRANDS}1012100.0,one\nABC,two\n84713000,three, four\n84713000\n")
    (brands,) = [one.to_json() for one in data.summaries if one.source == "brands"]
    assert brands == {
        "rows": 5,
        "usable": 4,
        "broken": 1,
        "unknown_codes": 0,
        "dropped": {"code has other characters than digits": 1},
        "repaired": {
            "code_form": 1,
            "leading_zero": 1,
            "a description with a comma but without quotes was joined again": 1,
        },
        "guessed": {"taken for the header": 1},
    }
    assert "4 usable" in log


def test_a_trial_with_few_rows_is_not_ended_by_classes_that_it_misses(tmp_path: Path) -> None:
    _, log = prepared(tmp_path, "84713000,laptop\n", f"rows_per_source = 1\n{CONFIG}")
    assert "warning: source brands: only 0 of 1" in log


def test_a_usual_source_is_used_where_its_file_exists_and_its_absence_is_warned_about(tmp_path: Path) -> None:
    data, _ = prepared(tmp_path, BRANDS)
    assert [warning.split(" is not")[0] for warning in data.warnings] == [
        "source search_references",
        "source commodities_report",
    ]
    (tmp_path / "reference_data").mkdir()
    (tmp_path / "reference_data" / "search_references.json").write_text('{"pony": "0101210000"}')
    data, _ = prepared(tmp_path, BRANDS)
    assert data.references == {"pony": "010121"}
    assert [source.name for source in data.config.sources] == ["cn_self_texts", "search_references", "brands"]
    off = '[[sources]]\nname = "search_references"\nenabled = false\n'
    data, _ = prepared(tmp_path, BRANDS, f'unused_sources = ["commodities_report"]\n{CONFIG}{off}')
    assert (data.references, data.warnings) == ({}, [])
    assert parse_config(toml_document(every_value(data.config))) == data.config


def test_files_of_a_folder_that_are_not_tables_are_warned_about(tmp_path: Path) -> None:
    config = CONFIG + 'tradesets_data_dir = "sets"\n'
    (tmp_path / "sets" / "x").mkdir(parents=True)
    (tmp_path / "sets" / "A.CSV").write_text("CODE,TEXT\n01012100,stallion\n")
    for name in ("b.xls", "x/c.tsv", "README.txt", "x/d.md", "._e.xls", "~$b.xls"):
        (tmp_path / "sets" / name).write_text("not read")
    data, log = prepared(tmp_path, BRANDS, config)
    (warning,) = [text for text in data.warnings if "tradesets" in text]
    assert warning.startswith("source tradesets: b.xls, x/c.tsv: not read")
    assert f"warning: {warning}" in log


def test_files_of_a_folder_that_give_nothing_are_warned_about_although_others_do(tmp_path: Path) -> None:
    config = CONFIG + 'tradesets_data_dir = "sets"\n'
    files = {
        "a.csv": "CODE,TEXT\n" + "".join(f"01012100,stallion {number}\n" for number in range(20)),
        "x/empty.csv": "",
        "x/header.csv": "CODE,TEXT\n",
        "swapped.csv": "TEXT,CODE\nlaptop computer,84713000\n",
        "unknown.csv": "CODE,TEXT\n99999900,unknown thing\n",
    }
    for name, text in files.items():
        (tmp_path / "sets" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "sets" / name).write_text(text)
    data, _ = prepared(tmp_path, BRANDS, config)
    found = [text for text in data.warnings if "tradesets" in text]
    assert [text.split(".csv")[0] for text in found] == [
        "source tradesets: none of the 1 rows of swapped",
        "source tradesets: none of the 1 rows of unknown",
        "source tradesets: x/empty",
        "source tradesets: x/header",
    ]
    assert "codes seem to be in column 1" in found[0]
    assert "codes that no source creates" in found[1]
    assert found[2].endswith(
        "has no rows, so nothing can be learned from it. Add its rows, or remove the file."
    )
    assert "has only a header" in found[3]


def test_a_list_of_terms_that_is_a_web_page_or_json_is_refused(tmp_path: Path) -> None:
    for text in ("<form>\nLog in\n</form>\n", '[{"error": "no access"}]\n'):
        (tmp_path / "vague.csv").write_text(text)
        with pytest.raises(TrainingError, match=r"vague\.csv: the file is (a web page|JSON)"):
            prepared(tmp_path, BRANDS, CONFIG + 'vague_terms_data_file = "vague.csv"\n')


def test_a_list_that_is_empty_is_warned_about_and_json_is_not_a_list(tmp_path: Path) -> None:
    config = CONFIG + 'phrases_to_remove_file = "phrases.txt"\nvague_terms_regex_file = "patterns.txt"\n'
    (tmp_path / "phrases.txt").write_text("\n \n")
    (tmp_path / "patterns.txt").write_text("^x$\n")
    data, _ = prepared(tmp_path, BRANDS, config)
    (warning,) = [text for text in data.warnings if "phrases" in text]
    assert warning.startswith("phrases_to_remove_file: phrases.txt is empty")
    (tmp_path / "phrases.txt").write_text('["red", "rum"]\n')
    with pytest.raises(TrainingError, match=r"phrases\.txt: the file is JSON"):
        prepared(tmp_path, BRANDS, config)
