import json
from pathlib import Path

import pytest

from training.config import DEFAULT_SOURCES, SourceConfig
from training.errors import FailureCode, TrainingError
from training.lookup import Lookup
from training.sources.read import files_of, read_source


def default(name: str, **places: str) -> SourceConfig:
    (found,) = [one for one in DEFAULT_SOURCES if one.name == name]
    return found.model_copy(update=places)


def pairs(source: SourceConfig, *files: Path, limit: int | None = None) -> list[tuple[str, str]]:
    return read_source(source, list(files), limit).frame.select("code", "description").rows()


def test_every_csv_of_a_folder_is_read_in_the_order_of_names_as_latin_1(tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "b.csv").write_bytes("CODE,TEXT\n02022000,caf\xe9\n".encode("latin-1"))
    (tmp_path / "t" / "a.csv").write_bytes(b"CODE,TEXT\n0101 2100,horse\n")
    (tmp_path / "t" / "notes.txt").write_text("no source")
    source = default("tradesets", folder="t")
    files = files_of(source, Lookup(tmp_path, tmp_path / "nowhere"))
    assert [path.name for path in files] == ["a.csv", "b.csv"]
    assert pairs(source, *reversed(files)) == [("0101 2100", "horse"), ("02022000", "café")]
    assert pairs(source, *files, limit=1) == [("0101 2100", "horse")]


def test_a_source_without_a_code_column_gives_every_description_the_same_code(tmp_path: Path) -> None:
    (tmp_path / "v.csv").write_text('goods\n"black, large"\n')
    assert pairs(default("vague_terms"), tmp_path / "v.csv") == [
        ("vvvvvvvvvv", "goods"),
        ("vvvvvvvvvv", "black, large"),
    ]


def test_search_references_from_a_file_or_from_the_api(tmp_path: Path) -> None:
    (tmp_path / "plain.json").write_text('{"absinthe": "2208904100"}')
    (tmp_path / "api.json").write_text(
        json.dumps(
            {
                "data": [
                    {
                        "attributes": {
                            "referenced_class": kind,
                            "negated_title": kind,
                            "goods_nomenclature_item_id": "22",
                        }
                    }
                    for kind in ("Commodity", "Subheading", "Heading", "Chapter")
                ]
            }
        )
    )
    source = default("search_references")
    assert pairs(source, tmp_path / "plain.json") == [("2208904100", "absinthe")]
    assert pairs(source, tmp_path / "api.json") == [("22", "Commodity"), ("22", "Subheading")]


@pytest.mark.parametrize("content", ["[]", "{", '{"a": null}', "{}", '"a"', '{"data": 3}'])
def test_json_of_another_form_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "r.json").write_text(content)
    with pytest.raises(TrainingError) as caught:
        pairs(default("search_references"), tmp_path / "r.json")
    assert caught.value.reason is FailureCode.UNREADABLE_SOURCE


def test_the_commodities_report_joins_descriptions_along_the_hierarchy(tmp_path: Path) -> None:
    header = (
        "SID,Commodity code,Product line suffix,Description,Start date,End date,Indentation,End line,"
        "Class,ItemIDPlusPLS,Hierarchy"
    )
    (tmp_path / "c.csv").write_text(
        f"{header}\n"
        "1,0101000000,80,Live horses,,,0,0,Heading,0101000000_80,0100000000_80\n"
        "2,0100000000,80,Live animals,,,0,0,Chapter,0100000000_80,\n"
        "3,0101210000,80,Pure-bred,,,2,1,Commodity,0101210000_80,0100000000_80 0101000000_80 0101210000_80\n"
    )
    assert pairs(default("commodities_report"), tmp_path / "c.csv") == [
        ("0101210000", "Live animals Live horses Pure-bred")
    ]


def test_the_error_of_a_missing_file_names_its_source(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"source brands: b\.csv is neither") as caught:
        files_of(default("brands", file="b.csv"), Lookup(tmp_path, tmp_path))
    assert caught.value.reason is FailureCode.MISSING_SOURCE


def test_a_folder_without_csv_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    with pytest.raises(TrainingError, match=r"has no \*\.csv, "):
        files_of(default("tradesets", folder="t"), Lookup(tmp_path, tmp_path))


def test_files_are_looked_up_in_the_raw_data_first_at_one_level_higher_or_lower_too(
    tmp_path: Path,
) -> None:
    unpacked, checkout = tmp_path / "unpacked", tmp_path / "checkout"
    for folder in (
        unpacked / "reference_data",
        checkout / "reference_data",
        unpacked / "outer" / "lists",
        unpacked / "tradesets",
    ):
        folder.mkdir(parents=True)
    for path in (
        unpacked / "reference_data/a",
        checkout / "reference_data/a",
        checkout / "reference_data/b",
        unpacked / "outer/lists/c",
    ):
        path.write_text("")
    lookup = Lookup(unpacked, checkout)
    assert lookup.find("reference_data/a", what="x") == unpacked / "reference_data/a"
    assert lookup.find("reference_data/b", what="x") == checkout / "reference_data/b"
    assert lookup.find("lists/c", what="x") == unpacked / "outer/lists/c"
    assert lookup.find("raw_source_data/tradesets", what="x") == unpacked / "tradesets"
