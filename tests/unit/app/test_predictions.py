"""What a model answered, read from archives of results: this registry's, the team's, and broken ones."""

import io
import json
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.registry.models import archive, predictions
from app.registry.models.predictions import Answer, Prediction, Results
from training.config import name_in_existing_tools

RESULTS = [{"code": "610910", "score": 0.75}, {"code": "620342", "score": 0.25}]
OURS = {
    "schema": 1,
    "benchmark": "everyday",
    "metrics": {"count": 2, "top_1": 0.5},
    "predictions": [
        {"description": "cotton trousers", "code": "620342", "results": RESULTS},
        {"description": "goods", "code": None, "results": []},
    ],
}
TROUSERS = Answer("cotton trousers", ("620342",), (Prediction("610910", 0.75), Prediction("620342", 0.25)))
FOLDER = "benchmarking_data/results/"


def packed(files: dict[str, object], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", method) as target:
        for name, value in files.items():
            target.writestr(name, value if isinstance(value, str) else json.dumps(value))
    return content.getvalue()


def test_each_description_has_its_codes_and_the_predictions_in_their_order() -> None:
    found = predictions.of_zip(packed({"everyday.json": OURS}))
    assert found == {
        "everyday": Results("everyday", {"count": 2, "top_1": 0.5}, (TROUSERS, Answer("goods", (), ())))
    }
    assert [answer.rank for answer in found["everyday"].answers] == [2, None]


def test_the_teams_figures_and_details_make_one_result() -> None:
    details = [{"description": "cotton trousers", "correct_code": "620342", "predictions": RESULTS}]
    files: dict[str, object] = {
        f"{FOLDER}benchmark_details_classified.json": details,
        f"{FOLDER}benchmark_results_classified.json": {"result1Percent": 50, "inTop5Percent": 100},
        f"{FOLDER}benchmark_results_vague.json": {"answeredPercent": 25},
        f"{FOLDER}running_losses.json": {"epoch_1": {"accuracy": 90, "average_loss": 0.1}},
    }
    assert predictions.of_zip(io.BytesIO(packed(files))) == {
        "classified": Results("classified", {"top_1": 0.5, "top_5": 1}, (TROUSERS,)),
        "vague": Results("vague", {"no_result": 0.75}),
    }


def test_several_codes_can_be_right() -> None:
    row = {"description": "shirt", "code": ["620520", "610910"], "results": RESULTS}
    [answer] = predictions.of_zip(packed({"a.json": OURS | {"predictions": [row]}}))["everyday"].answers
    assert (answer.codes, answer.rank) == (("620520", "610910"), 1)


@pytest.mark.parametrize("row", [None, 3, {}, {"description": 4}, ["cotton"]])
def test_a_row_that_cannot_be_read_is_left_out(row: object) -> None:
    rows = [
        row,
        {
            "description": "x",
            "code": 7,
            "results": [4, {"code": "1"}, {"code": 1, "score": 1}, {"code": "1", "score": 10**400}],
        },
    ]
    found = predictions.of_zip(packed({"a.json": OURS | {"predictions": rows}}))
    assert found["everyday"].answers == (Answer("x", (), ()),)


def test_what_would_take_much_memory_is_not_read() -> None:
    bomb = " " * archive.FILE_LIMIT_BYTES
    assert predictions.of_zip(packed({"bomb.json": bomb + " ", "everyday.json": OURS})).keys() == {"everyday"}
    # All of them together are too large, so only the first ones are read.
    assert predictions.of_zip(packed({"1.json": bomb, "2.json": bomb, "everyday.json": OURS})) == {}
    assert predictions.of_zip(packed({"everyday.json": OURS}, zipfile.ZIP_LZMA)) == {}
    many: dict[str, object] = {f"{number}.json": OURS | {"benchmark": str(number)} for number in range(200)}
    assert len(predictions.of_zip(packed(many))) == 100


@given(st.binary(max_size=300), st.integers(0, 600), st.binary(min_size=1, max_size=8))
def test_whatever_the_bytes_are_reading_them_raises_nothing(noise: bytes, at: int, over: bytes) -> None:
    assert predictions.of_zip(noise) == {}
    content = packed({"everyday.json": OURS})
    predictions.of_zip(content[:at] + over + content[at + len(over) :])


@pytest.mark.parametrize(
    ("benchmark", "known_as"),
    [
        ("classified", "classified"),
        ("good-goods-descriptions", "good_goods"),
        ("Vague", "vague"),
        ("everyday goods", "everyday_goods"),
        ("日本", "benchmark"),
    ],
)
def test_the_teams_name_of_a_benchmark_follows_from_that_of_its_file(benchmark: str, known_as: str) -> None:
    assert name_in_existing_tools(benchmark) == known_as
