"""Files in any encoding, and files that are not text: read as what they are, or refused with the reason."""

import gzip
import io
import zipfile
from pathlib import Path

import pytest

from tests.unit.training.workbooks import workbook
from training.errors import FailureCode, TrainingError
from training.sources.notes import NoteKind
from training.sources.rows import Layout, Rows, read_table

ROWS = "01012100,café\n02022000,thé\n"
EXPECTED = [["01012100", "café"], ["02022000", "thé"]]


def read(path: Path, content: bytes, encoding: str = "utf-8") -> Rows:
    path.write_bytes(content)
    return read_table(path, encoding, Layout(2, code_column=0))


def cells(found: Rows) -> list[list[str]]:
    return [row for _, row in found.rows]


@pytest.mark.parametrize("declared", ["utf-8", "latin-1", "cp1252"])
@pytest.mark.parametrize(
    "content",
    [
        ROWS.encode(),
        ROWS.encode("utf-8-sig"),
        ROWS.encode("utf-16"),
        b"\xfe\xff" + ROWS.encode("utf-16-be"),
        ROWS.encode("utf-32"),
        ROWS.encode("utf-16-le"),
        ROWS.encode("utf-16-be"),
        gzip.compress(ROWS.encode(), mtime=0),
        gzip.compress(ROWS.encode("utf-16"), mtime=0),
        ROWS.replace("\n", "\r\n").encode(),
        ROWS.replace("\n", "\r").encode(),
    ],
)
def test_the_encoding_that_a_file_really_has_wins(tmp_path: Path, content: bytes, declared: str) -> None:
    assert cells(read(tmp_path / "a.csv", content, declared)) == EXPECTED


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252"])
def test_lines_that_are_not_utf8_are_read_in_the_declared_encoding_and_counted(
    tmp_path: Path, encoding: str
) -> None:
    found = read(tmp_path / "a.csv", "01012100,café\n".encode("latin-1") + b"02022000,th\xc3\xa9\n", encoding)
    assert cells(found) == EXPECTED
    (note,) = found.notes
    assert (note.kind, note.rows, note.line) == (NoteKind.GUESSED, 1, 1)
    assert encoding in note.what


def test_characters_that_only_windows_has_are_read_as_such(tmp_path: Path) -> None:
    found = read(tmp_path / "a.csv", "01012100,dog’s “bed”\n".encode("cp1252"), "latin-1")
    assert cells(found) == [["01012100", "dog’s “bed”"]]
    assert "cp1252" in found.notes[0].what


@pytest.mark.parametrize("name", ["a.xlsx", "renamed.csv"])
def test_a_workbook_is_read_as_what_it_is(tmp_path: Path, name: str) -> None:
    content = workbook(("CODE", "TEXT"), (1012100.0, "horse, live"), ("02022000", "beef"))
    found = read(tmp_path / name, content)
    assert found.rows == [(2, ["1012100", "horse, live"]), (3, ["02022000", "beef"])]
    assert any("workbook" in note.what for note in found.notes) == (name == "renamed.csv")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"01012100,a\x00b\n", "binary"),
        (bytes(range(256)) * 4, "binary"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "image"),
        (b"%PDF-1.7\n", "PDF"),
        (b"PAR1\x15\x04", "Parquet"),
        (b"PK\x03\x04 broken", "damaged"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1broken", "workbook cannot be read"),
        (gzip.compress(ROWS.encode(), mtime=0)[:-6], "gzip"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n", "git lfs pull"),
        (b"<!DOCTYPE html><html><title>Log in</title></html>", "web page"),
        (b"\xef\xbb\xbf  <html lang=en>", "web page"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "web page or XML"),
        (b'{"errors": [{"title": "not found"}]}', "error answer"),
        (b'{"message": "Forbidden"}', "Forbidden"),
        (b"\xff\xfe0", "UTF-16"),
    ],
)
def test_what_is_not_a_table_is_refused_and_named(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(TrainingError, match=message) as caught:
        read(tmp_path / "a.csv", content, "latin-1")
    assert caught.value.reason is FailureCode.UNREADABLE_SOURCE
    assert "a.csv" in caught.value.message


def test_a_zip_that_is_not_a_workbook_is_refused(tmp_path: Path) -> None:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("a.csv", ROWS)
    with pytest.raises(TrainingError, match="zip, not a table"):
        read(tmp_path / "a.csv", content.getvalue())


def test_the_error_of_another_encoding_names_the_line_and_a_remedy_that_does_no_harm(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"a\.csv, line 2: the file is not UTF-8 \(byte 0xe9") as caught:
        read(tmp_path / "a.csv", b"01012100,horse\n02022000,caf\xe9\n")
    assert 'encoding = "cp1252"' in caught.value.message


def test_a_byte_that_no_encoding_has_is_refused_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="line 2: the line is neither UTF-8 nor cp1252"):
        read(tmp_path / "a.csv", b"01012100,horse\n02022000,caf\x81\n", "latin-1")
