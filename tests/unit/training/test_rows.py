from pathlib import Path

import pytest

from training.errors import TrainingError
from training.sources.notes import NoteKind
from training.sources.rows import BrokenRow, Delimiter, Header, Layout, Rows, read_csv, read_lines, read_table


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


def test_a_file_with_only_broken_rows_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no row is complete"):
        read(tmp_path / "a", "01;horse\n02;cow\n")


def test_an_empty_file_has_no_rows(tmp_path: Path) -> None:
    assert read(tmp_path / "a", "").rows == []


def test_lists_of_terms_keep_their_first_line_and_leading_spaces(tmp_path: Path) -> None:
    (tmp_path / "terms.txt").write_bytes(b" iso\r\n\r\nssd \r\n")
    assert read_lines(tmp_path / "terms.txt") == [" iso", "ssd "]


def table(
    path: Path, content: str, *, delimiter: Delimiter = ",", header: Header = "auto", code: int | None = 0
) -> Rows:
    path.write_text(content, "utf-8")
    return read_table(path, "utf-8", Layout(2, header, code, 1 if code == 0 else 0, delimiter))


@pytest.mark.parametrize(
    "first", ["84713000x", "", "'01012100", '="01012100"', "８４７１３０００", " 01012100", "8.5E+07", "-"]
)
def test_a_first_row_with_an_unusual_code_is_not_taken_for_a_header(tmp_path: Path, first: str) -> None:
    found = read(tmp_path / "a", f'"{first.replace(chr(34), chr(34) * 2)}",laptop\n01012100,horse\n')
    assert found.rows == [(1, [first, "laptop"]), (2, ["01012100", "horse"])]


@pytest.mark.parametrize("first", ["CODE", "Commodity Code", "HS6", "CN 2026", "编码", "code"])
def test_what_is_taken_for_a_header_is_noted(tmp_path: Path, first: str) -> None:
    found = read(tmp_path / "a", f"{first},TEXT\n01012100,horse\n")
    assert found.rows == [(2, ["01012100", "horse"])]
    (note,) = found.notes
    assert (note.kind, note.line, note.example) == (NoteKind.GUESSED, 1, f"{first}, TEXT")


def test_a_promised_header_that_looks_like_a_row_is_noted(tmp_path: Path) -> None:
    found = table(tmp_path / "a", "01012100,horse\n02022000,beef\n", header="yes")
    assert [note.kind for note in found.notes] == [NoteKind.IGNORED]


def test_a_quote_that_a_later_row_closes_swallows_no_rows(tmp_path: Path) -> None:
    found = read(tmp_path / "a", 'c,t\n01012100,"horse\n02022000,beef\n03011100,fish"\n04011010,milk\n')
    assert [row[0] for _, row in found.rows] == ["02022000", "03011100", "04011010"]
    assert [broken.line for broken in found.broken] == [2]
    assert [(note.kind, note.rows) for note in found.notes if note.line == 3] == [(NoteKind.REPAIRED, 2)]


def test_a_quote_that_closes_many_lines_later_swallows_no_descriptions(tmp_path: Path) -> None:
    lines = [f"goods {number}" for number in range(9)]
    found = table(
        tmp_path / "a", "\n".join(['"first,x', *(f"{line},x" for line in lines), 'last"']), code=None
    )
    assert [row[0] for _, row in found.rows] == lines


def test_a_description_of_a_few_lines_is_one_row(tmp_path: Path) -> None:
    found = read(tmp_path / "a", '01012100,"horse\n2 years, brown\nfor riding"\n02022000,beef\n')
    assert [row[1] for _, row in found.rows] == ["horse\n2 years, brown\nfor riding", "beef"]
    assert found.broken == []


def test_a_description_with_a_comma_and_without_quotes_is_joined_and_counted(tmp_path: Path) -> None:
    found = table(tmp_path / "a", "code,text\n01012100,horses, live, brown\n02022000,beef,,\n")
    assert [row[1] for _, row in found.rows] == ["horses, live, brown", "beef"]
    assert [(n.kind, n.rows) for n in found.notes if n.kind is NoteKind.REPAIRED] == [(NoteKind.REPAIRED, 1)]


def test_a_table_with_more_columns_is_not_joined(tmp_path: Path) -> None:
    found = table(tmp_path / "a", "code,text,by\n01012100,horses,me\n")
    assert [row[1] for _, row in found.rows] == ["horses"]


def test_other_delimiters_are_read_when_they_are_set_and_named_when_they_are_not(tmp_path: Path) -> None:
    assert table(tmp_path / "a", "01012100;a, b\n", delimiter=";").rows == [(1, ["01012100", "a, b"])]
    assert table(tmp_path / "b", "sep=;\n01012100;a\n").rows == [(2, ["01012100", "a"])]
    with pytest.raises(TrainingError, match=r'set delimiter = ";"'):
        table(tmp_path / "c", "01012100;horse\n02022000;beef\n")
