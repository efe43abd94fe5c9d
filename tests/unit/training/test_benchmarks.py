"""Which rows of a benchmark are measured, and which files are refused before anything is trained."""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from training.cleaning.codes import CHANGE_TABLES, read_changes
from training.cleaning.language import LanguageRules
from training.config import parse_config
from training.errors import FailureCode, TrainingError
from training.evaluation.benchmark import Benchmark, make_benchmarks
from training.evaluation.classify import Result
from training.evaluation.deployed import deployed_cleaners, refused
from training.evaluation.measure import Measured
from training.evaluation.results import write_results
from training.evaluation.tables import read_tables
from training.network.standing import Epoch
from training.progress import Progress

RULES = LanguageRules(
    preferred=("ENGLISH",),
    detected=("ENGLISH", "FRENCH", "GERMAN"),
    minimum_relative_distance=0.7,
    exact_keeps=frozenset({"pain au chocolat et croissants"}),
    partial_skips=(" mit ",),
)
CONFIG = parse_config('name = "m"\nversion = "0.1.0"\n')
DEPLOYED = deployed_cleaners(RULES)
FRENCH = "des chaussures en cuir pour les enfants"


def read(folder: Path, text: str, digits: int = 6, name: str = "b.csv") -> Benchmark:
    path = folder / name
    path.write_text(text)
    config = CONFIG.model_copy(update={"digits": digits})
    (found,), _ = make_benchmarks(read_tables(folder), config, (), DEPLOYED, Progress(log=io.StringIO()))
    return found


def test_what_the_deployed_service_refuses_is_refused() -> None:
    texts = [
        "leather shoes",
        FRENCH,
        "hosen mit taschen",
        "12345",
        "10-12",
        "3.5",
        "x",
        "",
        "pain au chocolat et croissants",
    ]
    assert refused(texts, DEPLOYED) == {FRENCH, "hosen mit taschen", "12345", "10-12", "3.5", "x", ""}
    assert refused([], DEPLOYED) == refused(texts, ()) == frozenset()


def test_descriptions_with_a_code_that_never_reach_the_model_are_left_out_and_counted(tmp_path: Path) -> None:
    found = read(
        tmp_path, f"description,code\nleather shoes,6403990000\n{FRENCH},6403990000\n12345,6403990000\n"
    )
    assert (found.descriptions, found.codes) == (["leather shoes"], ["640399"])
    assert found.left_out == {"language french": 1, "only digits or punctuation": 1}


def test_descriptions_that_deserve_no_answer_all_stay_because_a_refusal_is_right(tmp_path: Path) -> None:
    found = read(tmp_path, f"description\ngoods\n{FRENCH}\n12345\nx\n\n")
    assert (found.descriptions, found.codes) == (["12345", FRENCH, "goods", "x"], None)
    assert found.left_out == {}


def test_codes_are_read_as_people_write_them_and_a_code_that_lost_a_zero_is_not_measured(
    tmp_path: Path,
) -> None:
    rows = "a shoe,6403.99.00\nb shoe,6403 99\nc shoe,='6403990000'\nhorse,101210000\nmule,1.0121E+07\n"
    found = read(tmp_path, f"description,code\n{rows}")
    assert {"a shoe", "b shoe"} <= set(found.descriptions) <= {"a shoe", "b shoe", "c shoe"}
    assert set(found.codes or ()) == {"640399"}


@pytest.mark.parametrize("table", CHANGE_TABLES)
def test_old_codes_are_carried_over_to_the_current_nomenclature(tmp_path: Path, table: str) -> None:
    newest = read_changes(CHANGE_TABLES[-1])
    old, new = next((old, new) for old, new in read_changes(table).items() if new not in newest)
    assert read(tmp_path, f"description,code\nleather shoes,{old}\n", digits=8).codes == [new]
    assert read(tmp_path, f"description,code\nleather shoes,{old}00\n").codes == [new[:6]]


@pytest.mark.parametrize(
    ("text", "line", "remedy"),
    [
        ("Goods Description;Commodity Code\nshoes;6403990000\nboots;6403990000\n", 2, "semicolons"),
        ('shoes;"6403 99 00"\n"boots, leather";6403990000\nbelts, leather;420330\n', 1, "semicolons"),
        ("description\tcode\nshoes\t6403990000\nboots\t640399\n", 2, "tabs"),
        ("shoes|640399\n", 1, "vertical bars"),
        ('"shoes,640399"\n"boots,640399"\n', 1, "commas within quotes"),
        ("code,description\n6403990000,shoes\n6403990000,boots\n", 2, "first column"),
        ("description,code\nshoes,leather\nboots,leather\n", 2, "which is not a code"),
        ("goods\nblack, king\nparts\nitems\n", 2, "in double quotes"),
        ("description,code\ngoods\nshoes,640399\nparts\nitems\n", 2, "a file of their own"),
    ],
)
def test_a_file_whose_columns_are_not_clear_is_refused(
    tmp_path: Path, text: str, line: int, remedy: str
) -> None:
    with pytest.raises(TrainingError, match=remedy) as caught:
        read(tmp_path, text, name="everyday.csv")
    assert caught.value.reason is FailureCode.UNREADABLE_SOURCE
    assert caught.value.message.startswith(f"everyday.csv, line {line}: ")


@pytest.mark.parametrize(
    ("text", "codes"),
    [
        ("description\n\"black; king\"\ngoods\n'part: 640399'\n", None),
        ('description\n"size: 10, 12"\n"hscode:6402919000"\ngoods\nparts\n"a;1234567"\n', None),
        ("description,code,comment\nshoes,640399,x; 123456\nboots,6403990000,\n", ["640399", "640399"]),
        ("description,code\nshoes,640399\nboots,640399\nbroken\n", ["640399", "640399"]),
    ],
)
def test_a_few_odd_rows_do_not_make_a_file_unreadable(
    tmp_path: Path, text: str, codes: list[str] | None
) -> None:
    found = read(tmp_path, text)
    assert found.codes is None if codes is None else set(found.codes or ()) == {"640399"}


def contents(archive: Path) -> dict[str, Any]:
    with zipfile.ZipFile(io.BytesIO(archive.read_bytes())) as opened:
        return {name: json.loads(opened.read(name)) for name in opened.namelist()}


def test_the_archive_has_the_files_that_the_teams_validation_reads(tmp_path: Path) -> None:
    right, wrong = Result("640399", 0.75), Result("010121", 0.25)
    answers = [[right, wrong], [wrong, right], [], [wrong]]
    goods = Benchmark("good-goods-descriptions", ["a", "b", "c", "d"], ["640399"] * 4, {})
    vague = Benchmark("vague", ["e", "f"], None, {})
    copy = Benchmark("good goods", ["g"], ["640399"], {})
    measured = [
        Measured(goods, {}, {}, answers),
        Measured(vague, {}, {}, [[], [wrong]]),
        Measured(copy, {}, {}, [[]]),
    ]
    write_results(tmp_path, measured, CONFIG, (Epoch(1.5, 0.25), Epoch(0.5, 0.875)))
    found = contents(tmp_path / "benchmark_results.zip")
    folder = "benchmarking_data/results"
    assert {name for name in found if "/" in name} == {
        f"{folder}/benchmark_results_good_goods.json",
        f"{folder}/benchmark_details_good_goods.json",
        f"{folder}/benchmark_results_vague.json",
        f"{folder}/running_losses.json",
    }
    percentages = found[f"{folder}/benchmark_results_good_goods.json"]
    assert {
        "total": 4,
        "result1": 1,
        "result1Percent": 25,
        "result2Percent": 25,
        "result5Percent": 0,
        "inTop5Percent": 50,
        "outsideTop5Percent": 50,
        "noResultsPercent": 25,
        "answeredPercent": 75,
        "inChapterPercent": 25,
    }.items() <= percentages.items()
    assert found[f"{folder}/benchmark_details_good_goods.json"][1] == {
        "description": "b",
        "correct_code": "640399",
        "predictions": [{"code": "010121", "score": 0.25}, {"code": "640399", "score": 0.75}],
    }
    assert found[f"{folder}/benchmark_results_vague.json"]["answeredPercent"] == 50
    assert found[f"{folder}/running_losses.json"] == {
        "epoch_1": {"accuracy": 25, "average_loss": 1.5},
        "epoch_2": {"accuracy": 87.5, "average_loss": 0.5},
    }


def test_without_the_epochs_of_its_training_a_model_is_measured_all_the_same(tmp_path: Path) -> None:
    measured = [Measured(Benchmark("b", ["a"], None, {}), {}, {}, [[]])]
    write_results(tmp_path, measured, CONFIG, ())
    assert not any("losses" in name for name in contents(tmp_path / "benchmark_results.zip"))
