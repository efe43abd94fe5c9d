import contextlib
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.config import VAGUE_CODE, ConfigError, SearchConfig, parse_config

# Every key that the team's configurations use today.
TODAY = """
name = "fpo-search-model-generator"
version = "1.25.3"
learning_rate = 0.0011
max_epochs = 5
model_batch_size = 1024
embedding_batch_size = 250
vague_terms_data_file = "reference_data/vague_terms.csv"
vague_terms_regex_file = "reference_data/vague_terms_patterns.txt"
extra_data_file = "reference_data/extra_references.csv"
cn_data_file = "reference_data/CN2026_SelfText_EN_DE_FR.csv"
exact_english_terms = "reference_data/exact_english_terms.txt"
partial_english_terms = "reference_data/partial_english_terms.txt"
partial_non_english_terms = "reference_data/partial_non_english_terms.txt"
brands_file = "reference_data/brands.csv"
tradesets_data_dir = "raw_source_data/tradesets_descriptions"
incorrect_description_pairs_file = "reference_data/incorrect_code_desc_pairs.csv"
phrases_to_remove_file = "reference_data/phrases_to_remove.txt"
device = "cuda"
transformer = "all-mpnet-base-v2"
preferred_languages = [ "ENGLISH",]
detected_languages = [ "ENGLISH", "FRENCH", "GERMAN", "SPANISH",]
minimum_relative_distance = 0.7
model_dropout_layer_1_percentage = 0.1
model_dropout_layer_2_percentage = 0.4
uses_quantized_model = false
"""
MINIMAL = 'name = "m"\nversion = "0.1.0"\n'


def problems(text: str) -> list[tuple[str, int | None, str]]:
    with pytest.raises(ConfigError) as caught:
        parse_config(text)
    return [(problem.key, problem.line, problem.message) for problem in caught.value.problems]


def test_every_key_of_todays_configurations_is_known() -> None:
    config = parse_config(TODAY)
    assert config.version == "1.25.3"
    assert [source.name for source in config.sources] == [
        "vague_terms",
        "extra_references",
        "cn_self_texts",
        "brands",
        "tradesets",
    ]
    assert config.sources[-1].folder == "raw_source_data/tradesets_descriptions"
    assert config.sources[0].code == VAGUE_CODE


def test_a_source_without_a_place_is_not_used() -> None:
    assert parse_config(MINIMAL).sources == ()


def test_bad_toml_names_its_line() -> None:
    ((key, line, message),) = problems('name = "m"\nversion = \n')
    assert (key, line) == ("", 2)
    assert "not valid TOML" in message


def test_an_unknown_key_is_reported_with_the_nearest_known_one() -> None:
    assert problems(MINIMAL + "learning_rat = 0.1\n") == [
        ("learning_rat", 3, "is not a known key. Did you mean 'learning_rate'?")
    ]


def test_all_problems_are_reported_at_once_in_the_order_of_lines() -> None:
    text = 'name = "m"\nversion = "1"\nmax_epochs = "5"\nlearning_rate = -1\ndigits = 7\n'
    assert [(key, line) for key, line, _ in problems(text)] == [
        ("version", 2),
        ("max_epochs", 3),
        ("learning_rate", 4),
        ("digits", 5),
    ]


@pytest.mark.parametrize("missing", ["name", "version"])
def test_name_and_version_must_be_there(missing: str) -> None:
    text = "".join(line for line in MINIMAL.splitlines(keepends=True) if not line.startswith(missing))
    ((key, line, message),) = problems(text)
    assert (key, line) == (missing, None)
    assert "missing" in message


@pytest.mark.parametrize("version", ["0.1.0", "10.20.30", "1.0.0-rc.1", "1.0.0-alpha-x.7"])
def test_semantic_versions_are_taken(version: str) -> None:
    assert parse_config(f'name = "m"\nversion = "{version}"\n').version == version


@pytest.mark.parametrize(
    "version", ["1", "1.0", "v1.0.0", "01.0.0", "1.0.0+build", "1.0.0-", "1.0.0-01", "1.0.0 "]
)
def test_other_versions_are_refused_with_an_explanation(version: str) -> None:
    ((key, line, message),) = problems(f'name = "m"\nversion = "{version}"\n')
    assert (key, line) == ("version", 2)
    assert "semantic version" in message


def test_a_number_in_quotes_and_true_are_not_accepted_as_numbers() -> None:
    assert [key for key, *_ in problems(MINIMAL + 'seed = "1"\nmax_epochs = true\n')] == [
        "seed",
        "max_epochs",
    ]


def test_nan_is_refused() -> None:
    assert problems(MINIMAL + "learning_rate = nan\n")[0][:2] == ("learning_rate", 3)


def test_a_source_table_changes_a_default_and_keeps_its_place() -> None:
    text = MINIMAL + 'brands_file = "b.csv"\n[[sources]]\nname = "brands"\nweight = 2\n'
    (brands,) = parse_config(text).sources
    assert (brands.file, brands.weight, brands.cleaning) == ("b.csv", 2, ("pad", "basic"))


def test_a_source_table_adds_a_source_and_switches_one_off() -> None:
    text = (
        MINIMAL
        + 'brands_file = "b.csv"\n'
        + '[[sources]]\nname = "mine"\nfile = "m.csv"\ncode_column = 0\ndescription_column = 2\n'
        + '[[sources]]\nname = "brands"\nenabled = false\n'
    )
    assert [source.name for source in parse_config(text).sources] == ["mine"]


def test_problems_in_source_tables_name_table_and_line() -> None:
    text = MINIMAL + (
        '[[sources]]\nname = "a"\ncode_column = 0\n'
        '[[sources]]\nname = "b"\nfile = "b.csv"\ncode_column = -1\nweigth = 2\n'
    )
    assert [(key, line) for key, line, _ in problems(text)] == [
        ("sources[0]", 4),
        ("sources[1].code_column", 9),
        ("sources[1].weigth", 10),
    ]


def test_two_sources_with_the_same_name_are_reported() -> None:
    table = '[[sources]]\nname = "a"\nfile = "a.csv"\ncode_column = 0\n'
    assert [key for key, *_ in problems(MINIMAL + table + table)] == ["sources[1].name"]


def test_keys_inside_multiline_strings_do_not_change_line_numbers() -> None:
    text = 'name = """\nseed = 1\n"""\nversion = "0.1.0"\nseed = -1\n'
    assert problems(text)[0][:2] == ("seed", 5)


def test_floors_hold_for_one_benchmark_or_for_all() -> None:
    config = parse_config(
        MINIMAL + '[benchmark_floors."*"]\ntop_1 = 0.1\n[benchmark_floors.vague]\ntop_1 = 0.2\n'
    )
    assert config.floor("vague", "top_1") == 0.2
    assert config.floor("other", "top_1") == 0.1
    assert config.floor("other", "top_5") == 0.0
    assert problems(MINIMAL + "[benchmark_floors.vague]\ntop_9 = 0.2\n")[0][:2] == (
        "benchmark_floors.vague.top_9",
        4,
    )


def test_networks_of_an_ensemble_share_the_hidden_size_evenly() -> None:
    assert parse_config(MINIMAL + "hidden_size = 12\nensemble_size = 4\n").ensemble_size == 4
    ((_, _, message),) = problems(MINIMAL + "hidden_size = 10\nensemble_size = 4\n")
    assert "hidden_size 10 cannot be split evenly into 4 networks" in message


@given(st.text())
def test_any_text_gives_a_configuration_or_a_config_error(text: str) -> None:
    with contextlib.suppress(ConfigError):
        assert isinstance(parse_config(text), SearchConfig)


def test_importing_the_schema_does_not_import_heavy_libraries() -> None:
    script = (
        "import sys, training.config; print([m for m in ('torch', 'polars', 'lingua') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
