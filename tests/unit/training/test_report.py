import csv
import io
from pathlib import Path

from typer.testing import CliRunner

from training.cleaning.language import LanguageRules
from training.cleaning.pipelines import CleaningLists
from training.cli import app
from training.config import parse_config
from training.dataset.merge import clean_sources, merge
from training.dataset.page import page
from training.dataset.report import report
from training.errors import FailureCode
from training.lookup import Lookup
from training.sources.read import files_of, read_source
from training.storable import is_printable

CONFIG = """
name = "small"
version = "0.1.0"
unused_sources = ["commodities_report", "search_references"]
vague_terms_data_file = "vague.csv"
cn_data_file = "codes.csv"
brands_file = "brands.csv"
"""
FILES = {
    "vague.csv": "description\ngoods\n",
    "codes.csv": 'CNKEY,CN_CODE,NAME_EN\n1,01012100,"Horses, other than ponies."\n2,01013000\n3,0101,Mules\n',
    "brands.csv": "CODE,GDSDESC\n010121,<b>Red Rum</b>\n99999900,Comet\n01012100,Goods\n",
}


def write(folder: Path) -> None:
    for name, content in (FILES | {"search-config.toml": CONFIG}).items():
        (folder / name).write_text(content)


def test_the_report_shows_what_happened_to_every_row_and_why(tmp_path: Path) -> None:
    write(tmp_path)
    config = parse_config(CONFIG)
    lists = CleaningLists((), (), LanguageRules(("ENGLISH",), ("ENGLISH", "GERMAN"), 0.7))
    lookup = Lookup(tmp_path, tmp_path)
    rows = [read_source(one, files_of(one, lookup)) for one in config.sources]
    sources = list(clean_sources(rows, 6, lists))
    lines = report(sources, merge(sources))
    found = {(line.source, line.outcome, line.reason): line for line in lines}
    assert found["cn_self_texts", "kept", ""].samples[0].after == "010121 horses"
    change = found["cn_self_texts", "changed", "negation"].samples[0]
    assert (change.before, change.after.strip()) == ("horses, other than ponies", "horses")
    dropped = found["cn_self_texts", "dropped", "code has no 6 digits"]
    assert (dropped.rows, dropped.samples[0].where, dropped.samples[0].before) == (
        1,
        "codes.csv:4",
        "0101 Mules",
    )
    assert found["cn_self_texts", "broken", "incomplete row"].samples[0].where == "codes.csv:3"
    assert found["brands", "left out", "no source creates this code"].samples[0].before == "999999 comet"
    assert found["brands", "overruled", "vague_terms has other codes"].samples[0].after == "vvvvvvvvvv"


def test_the_report_is_written_as_csv_and_html(tmp_path: Path) -> None:
    write(tmp_path)
    options = ["--config", str(tmp_path / "search-config.toml"), "--raw-source-data", str(tmp_path)]
    done = CliRunner().invoke(app, ["clean-report", *options, "--output", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out" / "cleaning_report.csv").read_text())))
    assert {row["source"] for row in rows} == {"vague_terms", "cn_self_texts", "brands"}
    shown = (tmp_path / "out" / "cleaning_report.html").read_text()
    assert "&lt;b&gt;red rum" in shown
    assert "<b>red rum" not in shown


def test_a_missing_source_ends_the_report_with_an_error(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "brands.csv").unlink()
    options = ["--config", str(tmp_path / "search-config.toml"), "--raw-source-data", str(tmp_path)]
    done = CliRunner().invoke(app, ["clean-report", *options, "--output", str(tmp_path / "out")])
    assert done.exit_code == 3
    assert "brands.csv" in done.output


def test_an_empty_report_is_still_an_html_page() -> None:
    assert page([], "nothing & all").startswith("<!doctype html>")


def test_the_report_leads_with_what_is_wrong_in_every_source_and_fails_as_a_training_would(
    tmp_path: Path,
) -> None:
    write(tmp_path)
    (tmp_path / "brands.csv").write_bytes(b"CODE;TEXT\n01012100;Red Rum\n")
    (tmp_path / "vague.csv").write_bytes(b"<!doctype html><html>Log in")
    with (tmp_path / "codes.csv").open("a") as file:
        file.write("4,1013000,Donkeys\n5,84713000x,Laptops\n6,x,y\n7,x,z\n")
    options = ["--config", str(tmp_path / "search-config.toml"), "--raw-source-data", str(tmp_path)]
    done = CliRunner().invoke(app, ["clean-report", *options, "--output", str(tmp_path / "out")])
    assert done.exit_code == FailureCode.UNREADABLE_SOURCE.exit_status
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out" / "cleaning_report.csv").read_text())))
    kinds = list(dict.fromkeys((row["source"], row["outcome"]) for row in rows))
    assert kinds[:5] == [
        ("vague_terms", "refused"),
        ("brands", "refused"),
        ("cn_self_texts", "warning"),
        ("cn_self_texts", "broken"),
        ("cn_self_texts", "dropped"),
    ]
    assert 'set delimiter = ";"' in next(row["reason"] for row in rows if row["source"] == "brands")
    (zero,) = [row for row in rows if row["reason"].startswith("code has an odd number")]
    assert (zero["where"], zero["before"]) == ("codes.csv:5", "1013000 Donkeys")
    shown = (tmp_path / "out" / "cleaning_report.html").read_text()
    assert shown.index("What is wrong") < shown.index("web page") < shown.index("What was guessed")
    assert "x Laptops" in shown[: shown.index("What was guessed")]


def test_the_page_begins_with_a_verdict_and_the_state_of_each_source(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "brands.csv").write_bytes(b"CODE;TEXT\n01012100;Red Rum\n")
    options = ["--config", str(tmp_path / "search-config.toml"), "--raw-source-data", str(tmp_path)]
    CliRunner().invoke(app, ["clean-report", *options, "--output", str(tmp_path / "out")])
    shown = (tmp_path / "out" / "cleaning_report.html").read_text()
    start = shown[: shown.index("What is wrong")]
    assert "A training with this data would fail because of 1 refusal." in start
    assert start.index("<td>brands") < start.index("<td>cn_self_texts")
    assert '<td>brands<td class="refused">refused<td class=n><td' in start
    assert '<td class="fine">fine<td class=n>1<td class=n>1<td class=n>100.0%' in start
    assert "the code was cut to the configured digits</span>" in shown


def test_a_report_can_be_written_whatever_names_and_rows_hold(tmp_path: Path) -> None:
    write(tmp_path)
    config = CONFIG.replace('brands_file = "brands.csv"', 'tradesets_data_dir = "sets"')
    (tmp_path / "search-config.toml").write_text(config)
    (tmp_path / "sets").mkdir()
    rows = "CODE,GDSDESC\n01012100,red\x01rum\nx,bad \x02\x7f\x0b row <i>\n" + "01012100,fine horse\n" * 40
    (tmp_path / "sets" / "a\udcff\x01.csv").write_text(rows)
    options = ["--config", str(tmp_path / "search-config.toml"), "--raw-source-data", str(tmp_path)]
    done = CliRunner().invoke(app, ["clean-report", *options, "--output", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    for name in ("cleaning_report.html", "cleaning_report.csv"):
        shown = (tmp_path / "out" / name).read_text("utf-8")
        assert "a??.csv:3" in shown
        assert "bad ??? row" in shown
        assert is_printable(shown.replace("\n", ""))
