"""The same path, trained from the real trade data."""

import csv
import shutil
from pathlib import Path

import pytest

from local.demo.inputs import build_from_folder
from tests.e2e.service import Service

ROWS = 200

CONFIG = """\
name = "real-data"
version = "1.0.0"
digits = 8
transformer = "all-MiniLM-L6-v2"
device = "cpu"
hidden_size = 128
max_epochs = 2
cn_data_file = "reference_data/cn_self_text.csv"
vague_terms_data_file = "reference_data/vague_terms.csv"
vague_terms_regex_file = "reference_data/vague_terms_patterns.txt"
extra_data_file = "reference_data/extra_references.csv"
brands_file = "reference_data/brands.csv"
tradesets_data_dir = "raw_source_data/tradesets_descriptions"
exact_english_terms = "reference_data/exact_english_terms.txt"
partial_english_terms = "reference_data/partial_english_terms.txt"
partial_non_english_terms = "reference_data/partial_non_english_terms.txt"
incorrect_description_pairs_file = "reference_data/incorrect_code_desc_pairs.csv"
phrases_to_remove_file = "reference_data/phrases_to_remove.txt"
preferred_languages = ["ENGLISH"]
detected_languages = ["ENGLISH", "FRENCH", "GERMAN", "SPANISH"]
minimum_relative_distance = 0.7
"""


@pytest.mark.shared_data
def test_a_model_is_built_from_the_real_trade_data(
    service: Service, head: str, shared_data: Path, tmp_path: Path
) -> None:
    """Every kind of source that the team has, a few hundred rows of each."""
    folder = tmp_path / "data"
    shutil.copytree(shared_data, folder)
    for path in [*folder.rglob("*.csv")]:
        path.chmod(0o644)
        limit = ROWS if "benchmarking" not in str(path) else 60
        with path.open(encoding="latin-1", newline="") as file:
            header, *rows = csv.reader(file)
        # From everywhere in the file, so that the sources have codes in common.
        rows = [header, *rows[:: max(1, len(rows) // limit)][:limit]]
        with path.open("w", encoding="latin-1", newline="") as file:
            csv.writer(file).writerows(rows)
    raw, benchmarking = tmp_path / "raw.zip", tmp_path / "benchmarking.zip"
    build_from_folder(folder, raw, benchmarking)
    service.put("raw_source_data.zip", raw.read_bytes())
    service.put("benchmarking_data.zip", benchmarking.read_bytes())
    service.start_worker()

    build = service.await_end(service.post(head, CONFIG)["build"]["id"], timeout_s=200)
    assert build["state"] == "succeeded", build["failure"]
    with service.client() as client:
        model = client.get(f"/models/{build['prefix']}")
    metrics = model["metrics"]
    assert {name: of["count"] > 0 for name, of in metrics.items()} == {
        "classified": True,
        "good-goods-descriptions": True,
        "vague": True,
    }
    train = next(step for step in build["steps"] if step["name"] == "train")
    assert train["output"]["counts"]["classes"] > 100
