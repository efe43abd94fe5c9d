"""Zips that others made: leftovers are passed over, and what could do harm is refused with the reason."""

import stat
import zipfile
from pathlib import Path

import pytest

from training.archives import unpack
from training.errors import FailureCode, TrainingError


def unpacked(archive: Path) -> list[str]:
    folder = unpack(archive, archive.parent / "out", missing=FailureCode.MISSING_SOURCE)
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def refused(archive: Path, message: str) -> None:
    with pytest.raises(TrainingError, match=message) as caught:
        unpacked(archive)
    assert caught.value.reason is FailureCode.UNREADABLE_SOURCE
    assert caught.value.message.startswith("a.zip ")


def zipped(path: Path, *names: str, compression: int = zipfile.ZIP_DEFLATED, content: bytes = b"x") -> Path:
    with zipfile.ZipFile(path / "a.zip", "w", compression) as archive:
        for name in names:
            archive.writestr(name, content)
    return path / "a.zip"


def test_leftovers_are_not_unpacked(tmp_path: Path) -> None:
    names = ["d/a.csv", "d/._a.csv", "d/~$a.xlsx", "d/.DS_Store", "__MACOSX/d/._a.csv", "d/Thumbs.db"]
    assert unpacked(zipped(tmp_path, *names, "d/.ipynb_checkpoints/a-checkpoint.csv")) == ["d/a.csv"]


def test_names_in_utf8_without_the_flag_and_with_a_colon_are_read(tmp_path: Path) -> None:
    archive = zipped(tmp_path, "caf_.csv", "10:30.csv")
    # The bytes of é in UTF-8, in place of one character of the name, without the flag that says so.
    archive.write_bytes(archive.read_bytes().replace(b"caf_.csv", "café.cs".encode()))
    assert unpacked(archive) == ["10:30.csv", "café.cs"]


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_links_and_devices_are_refused(tmp_path: Path, kind: int) -> None:
    info = zipfile.ZipInfo("link")
    info.external_attr = (kind | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(info, "/etc/passwd")
    refused(tmp_path / "a.zip", "link or a device")


def test_a_zip_that_would_fill_the_disk_is_refused(tmp_path: Path) -> None:
    refused(zipped(tmp_path, "a.csv", content=bytes(70 << 20)), "which no real data does")


def test_a_file_and_a_folder_of_one_name_are_refused(tmp_path: Path) -> None:
    refused(zipped(tmp_path, "a", "a/b.csv"), "as a file and as a folder")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_occurs_twice_is_refused(tmp_path: Path) -> None:
    refused(zipped(tmp_path, "a.csv", "a.csv"), "twice")


def test_a_name_that_is_too_long_is_refused(tmp_path: Path) -> None:
    refused(zipped(tmp_path, "a" * 300), "more than 255 bytes")


def test_a_zip_with_a_password_is_refused(tmp_path: Path) -> None:
    archive = zipped(tmp_path, "a.csv")
    content = bytearray(archive.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + offset] |= 1
    archive.write_bytes(content)
    refused(archive, "password")


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_flipped_bit_is_noticed(tmp_path: Path, compression: int) -> None:
    archive = zipped(tmp_path, "a.csv", compression=compression, content=bytes(range(256)))
    content = bytearray(archive.read_bytes())
    content[60] ^= 0xFF
    archive.write_bytes(content)
    refused(archive, "not a complete zip")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"<html>Log in</html>", "web page"),
        (b"", "not a complete zip"),
    ],
)
def test_what_was_saved_in_place_of_a_zip_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.zip").write_bytes(content)
    refused(tmp_path / "a.zip", message)
