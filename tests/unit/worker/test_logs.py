"""What a machine says is quoted in logs, and cannot pretend to be a log."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.process.logs import entry


@given(st.text())
def test_an_entry_has_no_control_characters_and_every_further_line_is_indented(text: str) -> None:
    first, *later = entry(text).split("\n")
    assert all(line.startswith("    ") for line in later)
    assert not any(unicodedata.category(character) == "Cc" for line in (first, *later) for character in line)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("a\n2026-11-25T00:00:00Z [publish] done", "a\n    2026-11-25T00:00:00Z [publish] done"),
        ("\x1b[2Jgone", r"\x1b[2Jgone"),
        ("a\rb", r"a\rb"),
    ],
)
def test_a_forged_line_and_an_escape_sequence_are_shown_as_what_they_are(text: str, shown: str) -> None:
    assert entry(text) == shown
