import os
import stat
import zipfile
from pathlib import Path

import pytest

from training.archives import unpack
from training.errors import FailureCode, TrainingError
from training.files import (
    digests_of_folder,
    output_folder,
    sha256_of_file,
    sha256_of_files,
    write_zip,
    written_whole,
)


def zipped(path: Path, *names: str) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, "content")
    return path


def test_a_zip_is_unpacked_with_its_folders(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", "a/b.csv", "c.csv")
    folder = unpack(archive, tmp_path / "out", missing=FailureCode.MISSING_SOURCE)
    assert sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.csv")) == ["a/b.csv", "c.csv"]


@pytest.mark.parametrize(
    "name", ["../out.csv", "a/../../out.csv", "/etc/out.csv", "..\\out.csv", "C:\\out.csv"]
)
def test_a_zip_with_a_name_outside_its_folder_is_refused_and_nothing_is_unpacked(
    tmp_path: Path, name: str
) -> None:
    archive = zipped(tmp_path / "a.zip", "fine.csv", name)
    with pytest.raises(TrainingError, match="outside its folder") as caught:
        unpack(archive, tmp_path / "out", missing=FailureCode.MISSING_SOURCE)
    assert caught.value.reason is FailureCode.UNREADABLE_SOURCE
    assert not (tmp_path / "out").exists()


def test_a_link_is_refused(tmp_path: Path) -> None:
    info = zipfile.ZipInfo("link")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(TrainingError, match="could lead outside"):
        unpack(tmp_path / "a.zip", tmp_path / "out", missing=FailureCode.MISSING_SOURCE)


def test_a_broken_or_missing_zip_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"PK no zip")
    with pytest.raises(TrainingError, match="not a complete zip"):
        unpack(tmp_path / "a.zip", tmp_path / "out", missing=FailureCode.MISSING_SOURCE)
    with pytest.raises(TrainingError) as caught:
        unpack(tmp_path / "b.zip", tmp_path / "out", missing=FailureCode.MISSING_BENCHMARK)
    assert caught.value.reason is FailureCode.MISSING_BENCHMARK


def test_the_bytes_of_a_zip_do_not_depend_on_order_or_time(tmp_path: Path) -> None:
    write_zip(tmp_path / "a.zip", [("x", b"1"), ("y", b"2")])
    os.utime(tmp_path / "a.zip", (0, 0))
    write_zip(tmp_path / "b.zip", [("y", b"2"), ("x", b"1")])
    assert sha256_of_file(tmp_path / "a.zip") == sha256_of_file(tmp_path / "b.zip")


def test_a_file_that_could_not_be_completed_does_not_exist(tmp_path: Path) -> None:
    def fail() -> None:
        with written_whole(tmp_path / "a") as beside:
            beside.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_a_folders_digest_depends_on_names_and_contents_but_not_on_hidden_files(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    first = sha256_of_files(digests_of_folder(tmp_path))
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "b").write_text("2")
    assert sha256_of_files(digests_of_folder(tmp_path)) == first
    (tmp_path / "a").rename(tmp_path / "b")
    assert sha256_of_files(digests_of_folder(tmp_path)) != first


def test_what_a_killed_run_left_in_the_output_is_removed_and_results_are_kept(tmp_path: Path) -> None:
    (tmp_path / ".temporary-raw-source-data-x" / "deep").mkdir(parents=True)
    (tmp_path / ".model.zip.0123456789abcdef.tmp").write_text("half")
    (tmp_path / "snapshots").mkdir()
    (tmp_path / "snapshots" / ".a.csv.0123456789abcdef.tmp").write_text("half")
    kept = ["model.zip", "snapshots/a.csv", ".of-a-person.tmp"]
    for name in kept:
        (tmp_path / name).write_text("whole")
    with output_folder(tmp_path):
        pass
    assert sorted(
        str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()
    ) == sorted(kept)


def test_an_output_folder_is_used_by_one_run_at_a_time(tmp_path: Path) -> None:
    def enter() -> None:
        with output_folder(tmp_path / "output"):
            pass

    with output_folder(tmp_path / "output"), pytest.raises(TrainingError, match="another run"):
        enter()
    with output_folder(tmp_path / "output"):
        pass
