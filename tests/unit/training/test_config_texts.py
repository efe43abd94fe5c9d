"""A configuration as a text that names every value, and what differs between two texts."""

import string
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.config import (
    Difference,
    SearchConfig,
    differences,
    every_value,
    parse_config,
    toml_document,
    warnings_of,
)

MINIMAL = 'name = "m"\nversion = "0.1.0"\n'
FULL = """\
name = "m"
version = "0.1.0"
digits = 8
cn_data_file = "cn.csv"
brands_file = "brands.csv"
tradesets_data_dir = "tradesets"
learning_rate = 0.00001
preferred_languages = ["ENGLISH", "WELSH"]

[benchmark_floors."*"]
top_1 = 0.5

[benchmark_floors."a \\"quoted\\" name"]
no_result = 1

[[sources]]
name = "brands"
enabled = false

[[sources]]
name = "cn_self_texts"
weight = 7

[[sources]]
name = "more"
file = "versions/ä.csv"
code_column = 1

[[sources]]
name = "by_url"
kind = "search_references"
url = "https://example.com/{year}?a=1"
"""


def written(text: str) -> str:
    return toml_document(every_value(parse_config(text)))


@pytest.mark.parametrize("text", [MINIMAL, FULL])
def test_the_written_text_is_the_same_configuration(text: str) -> None:
    assert parse_config(written(text)) == parse_config(text)
    assert differences(text, written(text)) == ()
    # Writing it again changes nothing.
    assert written(written(text)) == written(text)


def test_every_value_is_named_that_existing_tools_have_another_default_for() -> None:
    values = tomllib.loads(written(MINIMAL))
    assert values["digits"] == 6
    assert values["uses_quantized_model"] is False
    assert values["transformer"] == "all-MiniLM-L6-v2"
    # They read their own patterns unless the key says that there are none.
    assert values["vague_terms_regex_file"] == ""
    assert parse_config(written(MINIMAL)).vague_terms_regex_file is None
    # What is left out has no value that could be written.
    unset = {name for name, of in SearchConfig.model_fields.items() if of.default is None}
    assert SearchConfig.model_fields.keys() - values.keys() <= unset | {"sources", "benchmark_floors"}


def test_the_teams_own_configuration_is_written_with_its_values(shared_data: Path) -> None:
    text = (shared_data / "search-config.upstream.toml").read_text()
    assert differences(text, written(text)) == ()
    theirs, ours = tomllib.loads(text), tomllib.loads(written(text))
    assert {key: ours[key] for key in theirs} == theirs


@pytest.mark.parametrize("word", ["version", "Version", "a version of it", "conversions"])
def test_only_the_version_is_found_by_the_word(word: str) -> None:
    text = (
        f'name = "{word}"\nversion = "0.1.0-version.1"\nbrands_file = "{word}.csv"\n'
        f'[benchmark_floors."{word}"]\ntop_1 = 0.5\n'
    )
    lines = [line for line in written(text).splitlines() if "version" in line.lower()]
    assert [line.partition(" ")[0] for line in lines] == ["version"]
    assert parse_config(written(text)) == parse_config(text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (MINIMAL, []),
        (MINIMAL.replace("\n", "\r\n"), []),
        ("# The version is below.\n" + MINIMAL, ["line 1 contains the word version"]),
        ("name = 'm'\nversion = '0.1.0'\n", ["line 2 gives the version in a form"]),
        ('name = "m"\nversion="0.1.0"\n', ["line 2 gives the version in a form"]),
        (MINIMAL + 'device = "mps"\n', ["only macOS has"]),
        (MINIMAL + "# version\n" * 1000, ["contains the word"] * 10),
    ],
)
def test_what_will_surprise_somebody_is_a_warning(text: str, says: list[str]) -> None:
    found = warnings_of(text, parse_config(text).device)
    assert len(found) == len(says)
    assert all(words in warning for words, warning in zip(says, found, strict=True))


def test_no_configuration_of_this_repository_has_the_word_in_another_line() -> None:
    root = Path(__file__).parents[3]
    for path in (root / "search-config.toml", root / "benchmarks" / "search-config.toml"):
        lines = [line for line in path.read_text().splitlines() if "version" in line]
        assert [line.split(" = ")[0] for line in lines] == ["version"], path


plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
values = st.recursive(
    plain | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=20,
)


def without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_none(of) for key, of in value.items() if of is not None}
    if isinstance(value, list):
        return [without_none(of) for of in value if of is not None]
    return value


@given(st.dictionaries(texts, values, max_size=5))
def test_whatever_is_written_is_read_back(value: dict[str, Any]) -> None:
    """Also what a training at another commit reports, whose keys this release does not know."""
    clean = without_none(value)
    assert tomllib.loads(toml_document(clean)) == clean


@pytest.mark.parametrize(
    ("there", "sent", "found"),
    [
        ("digits = 6", "digits = 8", [("digits", "6", "8")]),
        ("", "digits = 8", [("digits", "6", "8")]),
        ("", "digits = 6", []),
        ("# a comment\r\nseed=0\r\n", "seed = 0", []),
        ('brands_file = "a.csv"', "", [("brands_file", '"a.csv"', None)]),
        ('brands_file = "a.csv"', 'brands_file = "b.csv"', [("brands_file", '"a.csv"', '"b.csv"')]),
        (
            'preferred_languages = ["ENGLISH"]',
            'preferred_languages = ["WELSH"]',
            [("preferred_languages", '["ENGLISH"]', '["WELSH"]')],
        ),
        (
            "[benchmark_floors.a]\ntop_1 = 0.5",
            "[benchmark_floors.a]\ntop_1 = 0.6\ntop_2 = 1",
            [("benchmark_floors.a.top_1", "0.5", "0.6"), ("benchmark_floors.a.top_2", None, "1.0")],
        ),
        (
            'brands_file = "a.csv"\n[[sources]]\nname = "brands"\nweight = 2',
            'brands_file = "a.csv"',
            [("sources.brands.weight", "2.0", "5.0")],
        ),
    ],
)
def test_the_differences_are_told_value_by_value(
    there: str, sent: str, found: list[tuple[str, str | None, str | None]]
) -> None:
    assert differences(MINIMAL + there, MINIMAL + sent) == tuple(Difference(*one) for one in found)


def source(name: str, **values: str) -> str:
    lines = "".join(f'{key} = "{value}"\n' for key, value in values.items())
    return f'[[sources]]\nname = "{name}"\ncode_column = 1\nfile = "{name}.csv"\n{lines}'


def test_a_source_that_only_one_text_has_is_one_difference() -> None:
    [found] = differences(MINIMAL + source("a"), MINIMAL + source("a") + source("b"))
    assert (found.key, found.there) == ("sources.b", None)
    assert 'file = "b.csv"' in (found.sent or "")


def test_the_order_of_sources_is_a_difference_because_earlier_ones_take_precedence() -> None:
    [found] = differences(MINIMAL + source("a") + source("b"), MINIMAL + source("b") + source("a"))
    assert (found.key, found.there, found.sent) == ("sources", '["a", "b"]', '["b", "a"]')


def test_texts_that_only_another_version_of_this_code_can_read_are_compared_as_written() -> None:
    newer = MINIMAL + "a_key_of_another_version = 1\n"
    assert [one.key for one in differences(newer, MINIMAL)] == ["a_key_of_another_version"]
    assert differences(newer, "# the same\n" + newer) == ()


@pytest.mark.parametrize("broken", ["<<<<<<< HEAD\n", "", "a = " + "[" * 3000, ".".join("a" * 3000) + " = 1"])
def test_a_text_that_is_not_toml_differs_as_a_whole_and_nothing_breaks(broken: str) -> None:
    assert differences(MINIMAL, broken)
    assert differences(broken, MINIMAL)
    assert differences(broken, broken) == ()


def test_differences_are_bounded_however_long_the_texts_are() -> None:
    other = "".join(f'{"k" * 300}{number} = "{"v" * 1000}"\n' for number in range(500))
    found = differences(MINIMAL, MINIMAL + other)
    assert len(found) == 100
    assert sum(len(one.key) + len(one.sent or "") for one in found) < 50_000


@given(st.text(string.printable, max_size=60), st.text(string.printable, max_size=60))
def test_any_two_texts_can_be_compared(one: str, other: str) -> None:
    for there, sent in ((one, other), (MINIMAL + one, MINIMAL + other)):
        assert isinstance(differences(there, sent), tuple)
