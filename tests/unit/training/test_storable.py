import json
import math
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.storable import one_line, several_lines, storable, without_secrets

ANY_TEXT = st.text(st.characters(codec=None))
NUMBERS = st.floats() | st.integers(-(10**9), 10**9)
ANY_JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ANY_TEXT, inner, max_size=4),
    max_leaves=20,
)


@given(ANY_JSON)
def test_whatever_is_made_storable_is_json_that_every_reader_takes(value: object) -> None:
    text = json.dumps(storable(value), allow_nan=False, ensure_ascii=False)
    text.encode()
    assert not any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in text)


@given(ANY_TEXT)
def test_one_line_is_printable_and_short(text: str) -> None:
    shown = one_line(text, 20)
    assert len(shown) <= 20
    assert len(shown.splitlines()) <= 1
    assert one_line(shown, 20) == shown


def test_line_breaks_and_tabs_are_kept_only_where_lines_are_meant() -> None:
    assert several_lines("a\r\n\tb\x00\x1b[2J\u2028c") == "a\n\tb??[2J?c"
    assert one_line("a\n\tb") == "a??b"


def test_plain_text_is_not_changed() -> None:
    assert one_line("Pêches « blanches » 5 % – naïve, 桃") == "Pêches « blanches » 5 % – naïve, 桃"


def test_numbers_that_are_not_finite_are_left_out() -> None:
    value = {"a": math.nan, "b": [math.inf, 1.5], "c": {"d": -math.inf, "e": 0}}
    assert storable(value) == {"b": [None, 1.5], "c": {"e": 0}}
    assert storable(math.nan) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://user:s3cret@example.com/a", "https://example.com/a"),
        ("https://s3cret@example.com", "https://example.com"),
        ("https://u:p@ss@example.com/a@b", "https://example.com/a@b"),
        ("https://example.com/a?X-Amz-Signature=s3cret&x=1", "https://example.com/a"),
        ("https://example.com?sig=s3cret", "https://example.com"),
        ("https://example.com/a#token=s3cret", "https://example.com/a"),
        (
            "git+ssh://git:s3cret@example.com/a: 'https://u:s3cret@h/b'",
            "git+ssh://example.com/a: 'https://h/b'",
        ),
        ("see https://example.com/a, or mail a@b.c", "see https://example.com/a, or mail a@b.c"),
    ],
)
def test_secrets_are_removed_from_urls(text: str, expected: str) -> None:
    assert without_secrets(text) == expected
