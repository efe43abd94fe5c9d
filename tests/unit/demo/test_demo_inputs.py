import csv
import hashlib
import io
import os
import zipfile
from pathlib import Path

import boto3
import pytest
from moto import mock_aws
from typer.testing import CliRunner

from local.demo import inputs
from local.demo.__main__ import app


def members(path: Path) -> dict[str, str]:
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name).decode("utf-8") for name in archive.namelist()}


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def self_texts(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(members(path)["reference_data/cn_self_text.csv"])))


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("inputs") / "raw_source_data.zip"
    inputs.build_raw_source_data(path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder laid out like the team's data, with things in it that must not be zipped."""
    root = tmp_path / "data"
    files = {
        "raw_source_data/tradesets/one.csv": b"CMDTYCODE,GDSDESC\n01012100,caf\xe9\n",
        "raw_source_data/tradesets/.hidden": b"left out",
        "reference_data/terms.txt": b"term\n",
        "benchmarking_data/good.csv": b"Goods Description,Commodity Code\n",
        "benchmarking_data/notes.md": b"left out",
        "README.md": b"left out",
    }
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def test_raw_source_data_holds_the_texts_and_the_vague_terms(raw: Path) -> None:
    assert list(members(raw)) == ["reference_data/cn_self_text.csv", "reference_data/vague_terms.csv"]
    assert members(raw)["reference_data/vague_terms.csv"].startswith("description\n")


def test_every_subheading_has_one_or_two_texts(raw: Path) -> None:
    texts: dict[str, set[str]] = {}
    for row in self_texts(raw):
        texts.setdefault(row["CN_CODE"], set()).add(row["NAME_EN"])
    assert len(texts) == 5613
    assert {len(of_one) for of_one in texts.values()} == {1, 2}
    # Counted by text, so that a text that is there twice would be missed here.
    assert sum(len(of_one) for of_one in texts.values()) == len(self_texts(raw)) > 10_000


def test_codes_are_padded_as_the_nomenclature_pads_them(raw: Path) -> None:
    for row in self_texts(raw):
        assert len(row["CNKEY"]) == 10
        assert row["CNKEY"] == row["CN_CODE"] + "00"
        assert row["CN_CODE"].endswith("00")


def test_texts_are_words_without_traces_of_the_hierarchy(raw: Path) -> None:
    for row in self_texts(raw):
        text = row["NAME_EN"]
        assert any(letter.isalpha() for letter in text)
        assert not set(text) & set(";:")
        assert text.lower() != "other"
        assert text == text.strip(" ,-")
        assert "  " not in text


@pytest.mark.parametrize(
    ("official", "plain"),
    [
        ("Horses; live, pure-bred breeding animals", "Horses, live, pure-bred breeding animals"),
        ("Fruit, fresh; n.e.c. in chapter 08", "Fruit, fresh"),
        ("Footwear; n.e.c. in heading no. 6405, 6406 or 6407, of felt", "Footwear, of felt"),
        ("Wax; n.e.c. in heading no. 3301 (terpeneless or not)", "Wax (terpeneless or not)"),
        (
            "Cellulose derivatives, n.e.c. or included, in primary forms",
            "Cellulose derivatives, in primary forms",
        ),
        (
            "Fabrics; knitted, other than those of headings 60.01 to 60.04, of cotton, dyed",
            "Fabrics, knitted, of cotton, dyed",
        ),
        ("Woven fabrics (excluding goods of heading no. 5807)", "Woven fabrics"),
        ("Mixtures containing 1,1,1-trichloroethane", "Mixtures containing 1,1,1-trichloroethane"),
        ("n.e.c. in heading no. 3301", "n.e.c. in heading no. 3301"),
        ("", ""),
    ],
)
def test_pointers_to_other_places_are_removed_from_a_text(official: str, plain: str) -> None:
    assert inputs.plain_text(official) == plain


def test_a_shared_text_is_left_out_where_each_code_has_its_own() -> None:
    nomenclature = [
        inputs.Subheading("870240", "Buses", "Vehicles; only electric motor"),
        inputs.Subheading("870380", "Cars", "Vehicles; only electric motor"),
    ]
    assert inputs.training_texts(nomenclature) == [
        ("870240", "Buses, Vehicles, only electric motor"),
        ("870380", "Cars, Vehicles, only electric motor"),
    ]


def test_a_code_keeps_its_only_text_even_if_it_is_shared() -> None:
    nomenclature = [
        inputs.Subheading("382763", "Mixtures", "Mixtures; other"),
        inputs.Subheading("382764", "Mixtures", "Mixtures; other"),
    ]
    assert inputs.training_texts(nomenclature) == [
        ("382763", "Mixtures, other"),
        ("382764", "Mixtures, other"),
    ]


def test_benchmarking_data_holds_the_two_lists(tmp_path: Path) -> None:
    path = tmp_path / "benchmarking_data.zip"
    inputs.build_benchmarking_data(path)
    zipped = members(path)
    assert list(zipped) == ["everyday.csv", "unclassifiable.csv"]
    assert zipped["everyday.csv"].startswith("Goods Description,Commodity Code\n")


def test_the_same_inputs_give_the_same_bytes(raw: Path, folder: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.zip"
    inputs.build_raw_source_data(again)
    assert digest(again) == digest(raw)

    inputs.build_from_folder(folder, tmp_path / "raw1.zip", tmp_path / "bench1.zip")
    for file in folder.rglob("*"):
        os.utime(file, (1_000_000_000, 1_000_000_000))
    inputs.build_from_folder(folder, tmp_path / "raw2.zip", tmp_path / "bench2.zip")
    assert digest(tmp_path / "raw1.zip") == digest(tmp_path / "raw2.zip")
    assert digest(tmp_path / "bench1.zip") == digest(tmp_path / "bench2.zip")


def test_a_folder_is_zipped_byte_for_byte_under_its_folder_names(folder: Path, tmp_path: Path) -> None:
    raw, benchmarking = tmp_path / "raw.zip", tmp_path / "benchmarking.zip"
    inputs.build_from_folder(folder, raw, benchmarking)
    with zipfile.ZipFile(raw) as archive:
        assert archive.namelist() == ["raw_source_data/tradesets/one.csv", "reference_data/terms.txt"]
        assert archive.read("raw_source_data/tradesets/one.csv").endswith(b"caf\xe9\n")
    assert list(members(benchmarking)) == ["good.csv"]


@pytest.mark.parametrize("missing", ["raw_source_data", "reference_data", "benchmarking_data"])
def test_a_missing_folder_is_named_and_nothing_is_written(folder: Path, tmp_path: Path, missing: str) -> None:
    (folder / missing).rename(tmp_path / "elsewhere")
    raw, benchmarking = tmp_path / "raw.zip", tmp_path / "benchmarking.zip"
    with pytest.raises(inputs.MissingInputs, match=missing):
        inputs.build_from_folder(folder, raw, benchmarking)
    assert not raw.exists()
    assert not benchmarking.exists()


def test_command_writes_both_zips(folder: Path, tmp_path: Path, raw: Path) -> None:
    ran = CliRunner().invoke(app, [str(tmp_path / "out")])
    assert ran.exit_code == 0, ran.output
    assert digest(tmp_path / "out" / "raw_source_data.zip") == digest(raw)
    assert (tmp_path / "out" / "benchmarking_data.zip").is_file()
    # Nothing is left of the files written beside.
    assert len(list((tmp_path / "out").iterdir())) == 2

    ran = CliRunner().invoke(app, [str(tmp_path / "out"), "--from", str(folder)])
    assert ran.exit_code == 0, ran.output
    with zipfile.ZipFile(tmp_path / "out" / "raw_source_data.zip") as archive:
        assert "reference_data/terms.txt" in archive.namelist()


def test_command_says_what_a_folder_lacks(tmp_path: Path) -> None:
    ran = CliRunner().invoke(app, [str(tmp_path / "out"), "--from", str(tmp_path / "nowhere")])
    assert ran.exit_code == 2
    assert "raw_source_data" in ran.output


def test_command_puts_both_zips_into_the_buckets_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws():
        s3 = boto3.client("s3", region_name="us-east-1")
        s3.create_bucket(Bucket="tariff-models")
        ran = CliRunner().invoke(app, [str(tmp_path), "--bucket", "tariff-models"])
        assert ran.exit_code == 0, ran.output
        listed = s3.list_objects_v2(Bucket="tariff-models")["Contents"]
    assert [stored["Key"] for stored in listed] == ["benchmarking_data.zip", "raw_source_data.zip"]
