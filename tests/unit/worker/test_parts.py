"""The files inside an archive, and archives whose files cannot be told."""

import hashlib
import zipfile
from pathlib import Path

import pytest

from app.registry.inputs import Part
from worker.steps.parts import UnknownParts, parts_of


def zipped(folder: Path, *files: tuple[str, bytes]) -> Path:
    made = folder / "data.zip"
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files:
            archive.writestr(name, content)
    return made


def test_each_file_is_told_by_its_path_digest_and_size_and_tables_by_their_lines(tmp_path: Path) -> None:
    table, other = b"code,description\n0101,horses\n0102,cattle", b"\x00\n\x01"
    archive = zipped(tmp_path, ("b/table.CSV", table), ("a.bin", other), ("empty.csv", b""))
    assert parts_of(archive, lambda: None) == [
        Part("a.bin", hashlib.sha256(other).hexdigest(), 3),
        Part("b/table.CSV", hashlib.sha256(table).hexdigest(), len(table), 3),
        Part("empty.csv", hashlib.sha256(b"").hexdigest(), 0, 0),
    ]


def test_the_files_of_a_zip_that_would_fill_the_disk_are_not_read(tmp_path: Path) -> None:
    archive = zipped(tmp_path, ("zeros.csv", bytes(100 << 20)))
    read: list[None] = []
    with pytest.raises(UnknownParts, match="claims to hold 104,857,600"):
        parts_of(archive, lambda: read.append(None))
    assert read == []


@pytest.mark.parametrize("name", ["x" * 801, "é" * 401])
def test_a_path_that_no_index_can_hold_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UnknownParts, match="800 bytes"):
        parts_of(zipped(tmp_path, (name, b"x")), lambda: None)


def test_an_archive_that_is_broken_says_so(tmp_path: Path) -> None:
    archive = zipped(tmp_path, ("table.csv", b"0101,horses\n" * 1000))
    content = bytearray(archive.read_bytes())
    content[60] ^= 0xFF
    archive.write_bytes(content)
    with pytest.raises(UnknownParts, match="cannot be read as a zip"):
        parts_of(archive, lambda: None)


def test_two_files_of_one_path_are_not_told_apart(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate name"):
        archive = zipped(tmp_path, ("table.csv", b"1"), ("table.csv", b"2"))
    with pytest.raises(UnknownParts, match="same path"):
        parts_of(archive, lambda: None)


def test_reading_ends_when_the_worker_must_stop(tmp_path: Path) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        parts_of(zipped(tmp_path, ("table.csv", b"1")), stop)
