from pathlib import Path

import pytest

from training.errors import FailureCode, TrainingError
from training.sources.rows import BrokenRow, Header, Rows, read_csv, read_lines


def read(path: Path, content: str | bytes, *, header: Header = "auto", code_column: int | None = 0) -> Rows:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_csv(path, "utf-8", columns=2, header=header, code_column=code_column)


def test_a_header_is_recognised_by_its_code_column(tmp_path: Path) -> None:
    assert read(tmp_path / "a", "CODE,TEXT\n01,horse\n").rows == [(2, ["01", "horse"])]
    assert read(tmp_path / "b", "01,horse\n02,cow\n").rows == [(1, ["01", "horse"]), (2, ["02", "cow"])]


def test_a_header_without_a_code_column_is_recognised_by_its_words(tmp_path: Path) -> None:
    assert read(tmp_path / "a", "Goods Description,x\nhorse,y\n", code_column=None).rows == [
        (2, ["horse", "y"])
    ]
    assert len(read(tmp_path / "b", "goods,x\nhorse,y\n", code_column=None).rows) == 2


def test_the_configuration_can_say_whether_there_is_a_header(tmp_path: Path) -> None:
    assert read(tmp_path / "a", "1,a\n2,b\n", header="yes").rows == [(2, ["2", "b"])]
    assert len(read(tmp_path / "b", "c,a\n2,b\n", header="no").rows) == 2


def test_broken_rows_are_left_out_and_reported_with_their_lines(tmp_path: Path) -> None:
    found = read(tmp_path / "a", 'c,t\n01,horse\n02\n03,"a"b\n04,"two\nlines"\n\n05,cow\n')
    assert [row for _, row in found.rows] == [["01", "horse"], ["04", "two\nlines"], ["05", "cow"]]
    assert [line for line, _ in found.rows] == [2, 5, 8]
    assert found.broken == [
        BrokenRow(3, "it has 1 columns, but 2 are needed"),
        BrokenRow(4, "',' expected after '\"'"),
    ]


def test_a_quote_that_is_never_closed_breaks_only_its_own_line(tmp_path: Path) -> None:
    found = read(tmp_path / "a", 'c,t\n01,"horse\n02,cow\n03,pig\n')
    assert [row for _, row in found.rows] == [["02", "cow"], ["03", "pig"]]
    assert [broken.line for broken in found.broken] == [2]


def test_unusual_line_separators_do_not_split_a_row(tmp_path: Path) -> None:
    assert read(tmp_path / "a", "01,a\u2028b\x0cc\r\n02,d\r\n").rows == [
        (1, ["01", "a\u2028b\x0cc"]),
        (2, ["02", "d"]),
    ]


def test_a_byte_order_mark_is_removed(tmp_path: Path) -> None:
    assert read(tmp_path / "a", "\ufeff01,horse\n").rows == [(1, ["01", "horse"])]


def test_another_encoding_is_an_error_that_names_the_line(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"a\.csv, line 2: the file is not utf-8 \(byte 0xe9") as caught:
        read(tmp_path / "a.csv", b"01,horse\n02,caf\xe9\n")
    assert caught.value.reason is FailureCode.UNREADABLE_SOURCE


def test_a_file_with_only_broken_rows_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no row is complete"):
        read(tmp_path / "a", "01;horse\n02;cow\n")


def test_an_empty_file_has_no_rows(tmp_path: Path) -> None:
    assert read(tmp_path / "a", "").rows == []


def test_lists_of_terms_keep_their_first_line_and_leading_spaces(tmp_path: Path) -> None:
    (tmp_path / "terms.txt").write_bytes(b" iso\r\n\r\nssd \r\n")
    assert read_lines(tmp_path / "terms.txt") == [" iso", "ssd "]
