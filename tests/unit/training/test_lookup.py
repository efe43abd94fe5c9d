"""Files that a configuration names: they lie within the raw data or the checkout, on the machine too."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from training.cleaning.pipelines import read_lists
from training.config import SearchConfig, parse_config
from training.errors import FailureCode, TrainingError
from training.lookup import Lookup
from training.pipeline import read_patterns
from training.sources.read import files_of

MINIMAL = parse_config('name = "m"\nversion = "0.1.0"\n')
SECRET = "s3cret line of a file of the machine\n"
# Every key that names a file, and the place of a [[sources]] table.
KEYS = [
    *(key for key in SearchConfig.model_fields if key.endswith("_file") or "english_terms" in key),
    "tradesets_data_dir",
    "sources.file",
    "sources.folder",
]


@pytest.fixture
def lookup(tmp_path: Path) -> Lookup:
    """Beside the raw data and the checkout lies a file that must not be read."""
    for name in ("unpacked", "checkout", "outside"):
        (tmp_path / name).mkdir()
    (tmp_path / "outside" / "secret.csv").write_text(SECRET)
    return Lookup(tmp_path / "unpacked", tmp_path / "checkout")


def read(key: str, path: str, lookup: Lookup) -> None:
    """Look up the file that a configuration names, although the configuration itself was not checked."""
    if key.startswith("sources."):
        field = key.removeprefix("sources.")
        table = f'[[sources]]\nname = "mine"\ncode = "010121"\n{field} = "x"\n'
        (source,) = parse_config('name = "m"\nversion = "0.1.0"\n' + table).sources
        files_of(source.model_copy(update={field: path}), lookup)
        return
    config = parse_config(f'name = "m"\nversion = "0.1.0"\n{key} = "x"\n')
    if config.sources:
        (source,) = config.sources
        files_of(source.model_copy(update={"folder" if source.folder else "file": path}), lookup)
        return
    config = MINIMAL.model_copy(update={key: path})
    read_lists(config, lookup)
    read_patterns(config, lookup)


def link(lookup: Lookup) -> str:
    """In the checkout, because a commit can hold links, and a zip with links is not unpacked."""
    (lookup.checkout / "link.csv").symlink_to(lookup.checkout.parent / "outside" / "secret.csv")
    return "link.csv"


def linked_folder(lookup: Lookup) -> str:
    (lookup.unpacked / "data").symlink_to(lookup.checkout.parent / "outside")
    return "data/secret.csv"


def absolute(lookup: Lookup) -> str:
    return str(lookup.checkout.parent / "outside" / "secret.csv")


def upwards(lookup: Lookup) -> str:
    return "../outside/secret.csv"


def hidden(lookup: Lookup) -> str:
    (lookup.checkout / ".git").mkdir()
    (lookup.checkout / ".git" / "config").write_text(SECRET)
    return ".git/config"


def link_to_hidden(lookup: Lookup) -> str:
    hidden(lookup)
    (lookup.checkout / "link.csv").symlink_to(".git/config")
    return "link.csv"


def pipe(lookup: Lookup) -> str:
    """Reading it would wait for ever."""
    os.mkfifo(lookup.unpacked / "pipe.csv")
    return "pipe.csv"


@pytest.mark.timeout(10)
@pytest.mark.parametrize("make", [link, linked_folder, absolute, upwards, hidden, link_to_hidden, pipe])
@pytest.mark.parametrize("key", [key for key in KEYS if "dir" not in key and "folder" not in key])
def test_no_key_reads_a_file_elsewhere_or_a_file_of_another_kind(
    lookup: Lookup, key: str, make: Callable[[Lookup], str]
) -> None:
    with pytest.raises(TrainingError) as caught:
        read(key, make(lookup), lookup)
    assert caught.value.reason is FailureCode.INVALID_CONFIG
    assert "s3cret" not in caught.value.message


@pytest.mark.timeout(10)
@pytest.mark.parametrize("make", [link, link_to_hidden, pipe])
@pytest.mark.parametrize("key", ["tradesets_data_dir", "sources.folder"])
def test_no_folder_with_such_a_file_is_read(lookup: Lookup, key: str, make: Callable[[Lookup], str]) -> None:
    make(lookup)
    for folder in (lookup.checkout, lookup.unpacked):
        if any(folder.glob("*.csv")):
            (folder / "data").mkdir()
            next(folder.glob("*.csv")).rename(folder / "data" / "a.csv")
            if make is link_to_hidden:
                (folder / "data" / "a.csv").unlink()
                (folder / "data" / "a.csv").symlink_to("../.git/config")
    with pytest.raises(TrainingError) as caught:
        read(key, "data", lookup)
    assert caught.value.reason is FailureCode.INVALID_CONFIG


@pytest.mark.parametrize("key", ["tradesets_data_dir", "sources.folder"])
@pytest.mark.parametrize("path", ["data", "../outside"])
def test_no_folder_elsewhere_is_read(lookup: Lookup, key: str, path: str) -> None:
    (lookup.checkout / "data").symlink_to(lookup.checkout.parent / "outside")
    with pytest.raises(TrainingError) as caught:
        read(key, path, lookup)
    assert caught.value.reason is FailureCode.INVALID_CONFIG


@pytest.mark.parametrize("key", KEYS)
def test_a_file_in_place_of_a_folder_and_the_reverse_are_refused(lookup: Lookup, key: str) -> None:
    is_folder = key in ("tradesets_data_dir", "sources.folder")
    if is_folder:
        (lookup.unpacked / "data").write_text("a,b\n")
    else:
        (lookup.unpacked / "data").mkdir()
    with pytest.raises(TrainingError) as caught:
        read(key, "data", lookup)
    assert caught.value.reason is FailureCode.INVALID_CONFIG


def test_a_link_within_the_checkout_is_followed(lookup: Lookup) -> None:
    (lookup.checkout / "a.csv").write_text("a,b\n")
    (lookup.checkout / "b.csv").symlink_to("a.csv")
    assert lookup.find_file("b.csv", what="x").read_text() == "a,b\n"


def test_hidden_files_of_a_folder_are_not_read(lookup: Lookup) -> None:
    (lookup.unpacked / "data").mkdir()
    for name in ("a.csv", "._a.csv"):
        (lookup.unpacked / "data" / name).write_text("a,b\n")
    assert [path.name for path in lookup.find_tables("data", what="x")] == ["a.csv"]


def test_tables_of_sub_folders_and_in_capital_letters_are_found_and_leftovers_are_not(lookup: Lookup) -> None:
    data = lookup.unpacked / "data"
    names = ["B.CSV", "a.csv", "d.xlsx", "deep/er/c.csv.gz"]
    for name in [*names, "._a.csv", "~$d.xlsx", ".ipynb_checkpoints/a.csv", "__MACOSX/a.csv", "notes.txt"]:
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        (data / name).write_text("a,b\n")
    found = lookup.find_tables("data", what="x")
    assert [path.relative_to(data).as_posix() for path in found] == names


def test_a_name_in_another_unicode_form_is_found(lookup: Lookup) -> None:
    (lookup.unpacked / "donne\u0301es").mkdir()
    (lookup.unpacked / "donne\u0301es" / "cafe\u0301.csv").write_text("a,b\n")
    assert lookup.find_file("donn\u00e9es/caf\u00e9.csv", what="x").read_text() == "a,b\n"
    assert lookup.find_file("caf\u00e9.csv", what="x").read_text() == "a,b\n"


def test_the_error_names_a_file_that_differs_only_in_case(lookup: Lookup) -> None:
    (lookup.unpacked / "Brands.CSV").write_text("a,b\n")
    with pytest.raises(TrainingError, match=r"There is Brands\.CSV"):
        lookup.find_file("brands.csv", what="x")
