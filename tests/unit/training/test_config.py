import contextlib
import itertools
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.config import (
    VAGUE_CODE,
    ConfigError,
    SearchConfig,
    TuningConfig,
    differences,
    every_value,
    parse_config,
    toml_document,
)

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


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("limit = 100", "set rows_per_source"),
        ("embeddings_cache_enabled = true", "Remove it"),
        ("embedding_cache_checkpoint = 50000", "Remove it"),
        ('transformer_cache_directory = "/tmp"', "Remove it"),
        ("uses_quantized_model = true", 'weights_precision = "float16"'),
    ],
)
def test_a_key_of_existing_tools_without_an_equivalent_is_refused_with_what_to_do(
    line: str, says: str
) -> None:
    [(key, number, message)] = problems(MINIMAL + line)
    assert (key, number) == (line.partition(" ")[0], 3)
    assert says in message


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [("extra_references_data_file", "extra_data_file"), ("brands_data_file", "brands_file")],
)
def test_other_names_of_existing_tools_mean_the_same_source(theirs: str, ours: str) -> None:
    found, expected = (parse_config(f'{MINIMAL}{key} = "a.csv"').sources for key in (theirs, ours))
    assert found == expected
    [(_, _, message)] = problems(f'{MINIMAL}{theirs} = "a.csv"\n{ours} = "a.csv"')
    assert "Keep one of them" in message


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
        '[[sources]]\nname = "a"\ncode_column = 1\n'
        '[[sources]]\nname = "b"\nfile = "b.csv"\ncode_column = -1\nweigth = 2\n'
    )
    assert [(key, line) for key, line, _ in problems(text)] == [
        ("sources[0]", 4),
        ("sources[1].code_column", 9),
        ("sources[1].weigth", 10),
    ]


def test_two_sources_with_the_same_name_are_reported() -> None:
    table = '[[sources]]\nname = "a"\nfile = "a.csv"\ncode_column = 1\n'
    assert [key for key, *_ in problems(MINIMAL + table + table)] == ["sources[1].name"]


def test_keys_inside_multiline_strings_do_not_change_line_numbers() -> None:
    text = 'transformer = """\nseed = 1\n"""\nname = "m"\nversion = "0.1.0"\nseed = -1\n'
    assert [(key, line) for key, line, _ in problems(text)] == [("transformer", 1), ("seed", 6)]


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


def test_the_table_for_tuning_is_checked_like_everything_else() -> None:
    assert parse_config(MINIMAL).tuning is None
    assert parse_config(f"{MINIMAL}[tuning]\n").tuning == TuningConfig()
    table = f'{MINIMAL}ensemble_size = 2\n[tuning]\nepochs = 3\nnetworks = ["base", "both"]\n'
    config = parse_config(table)
    assert parse_config(toml_document(every_value(config))) == config
    (changed,) = differences(table, table.replace("epochs = 3", "epochs = 4"))
    assert (changed.key, changed.there, changed.sent) == ("tuning.epochs", "3", "4")
    line = MINIMAL.count("\n") + 1
    assert problems(f"{MINIMAL}[tuning]\nepoch = 3\nscale = 0\n") == [
        ("tuning.epoch", line + 1, "is not a known key. Did you mean 'epochs'?"),
        ("tuning.scale", line + 2, "must be greater than 0, but is 0"),
    ]
    ((key, _, message),) = problems(f"{MINIMAL}tuning = true\n")
    assert (key, message) == ("tuning", "is True, but must be a table. Write [tuning] on its own line.")
    ((_, _, message),) = problems(table.replace("ensemble_size = 2", "ensemble_size = 1"))
    assert "Make ensemble_size a multiple of that" in message
    ((_, _, message),) = problems(f"{MINIMAL}[tuning]\nhead_share = 0.0\nneighbour_share = 0.0\n")
    assert "the tuned transformer would not be used" in message


@pytest.mark.parametrize(
    ("text", "key", "line"),
    [
        ("seed = [\n  1, # ]\n  ']', \"]\",\n]\nmax_epochs = 0\n", "max_epochs", 7),
        ("name2 = '''a\nseed = 1''''\nmax_epochs = 0\n", "max_epochs", 5),
        ('x = "a\\" # \\\\"\nmax_epochs = 0\n', "max_epochs", 4),
        ('"max_epochs" = 0\r\n', "max_epochs", 3),
        ('"max\\u005fepochs" = 0\n', "max_epochs", 3),
        ("seed . x = 1\n", "seed", 3),
        ("a.'b'.\"c\" = { d = 1 }\nmax_epochs = 0\n", "max_epochs", 4),
        ("[benchmark_floors] # x\n[benchmark_floors.'a.b']\n top_1 = 2\n", 'benchmark_floors."a.b".top_1', 5),
        ("[[sources]]\n[[sources]]\nweight = 0\n", "sources[1].weight", 5),
        ("# a\u2028 seed = 1\nmax_epochs = 0\n", "max_epochs", 4),
    ],
)
def test_a_problem_has_the_line_of_its_key(text: str, key: str, line: int) -> None:
    assert (key, line) in [found[:2] for found in problems(MINIMAL + text)]


SPACES = " " * 100_000
# The processor's time on a busy machine. With a time that grows with the square of the length, it is minutes.
LIMIT_S = 20


@pytest.mark.parametrize(
    "text",
    [
        f"seed = 1\n{SPACES}\n",
        f"seed = 1{SPACES}# a comment far to the right\n",
        f"seed{SPACES}= 1\n",
        f"[{SPACES}benchmark_floors{SPACES}]\n",
        f'"{SPACES}" = 1\n',
        f'"{"a." * 100_000}" = 1\n',
        f'"{"[0]" * 100_000}" = 1\n',
        f"seed = 0x{'f' * 100_000}\n",
        f"seed.{'a.' * 900}a = 1\n",
        f'transformer = "{"a-" * 100_000}"\n',
        f'brands_file = "{"../" * 100_000}"\n',
        "".join(f"k{number} = 1\n" for number in range(20_000)),
        f"preferred_languages = [{'1, ' * 100_000}]\n",
        "[[sources]]\n" * 20_000,
    ],
    ids=range(14),
)
def test_checking_takes_time_in_proportion_to_the_text(text: str) -> None:
    start = time.thread_time()
    with contextlib.suppress(ConfigError):
        parse_config(MINIMAL + text)
    assert time.thread_time() - start < LIMIT_S


@pytest.mark.parametrize("identifier", ["1", "1-", "a.", "-", "1a"])
def test_checking_a_long_version_takes_time_in_proportion_to_it(identifier: str) -> None:
    start = time.thread_time()
    problems(f'name = "m"\nversion = "1.0.0-{identifier * 100_000}!"\n')
    assert time.thread_time() - start < LIMIT_S


@pytest.mark.parametrize(
    ("text", "others"),
    [
        ("".join(f"k{number} = 1\n" for number in range(1000)), "and 980 more problems"),
        ("".join(f'[benchmark_floors."\\n{number}"]\n' for number in range(100)), "and 80 more problems"),
        (f"preferred_languages = [{'1, ' * 50}]\n", "more problems"),
    ],
)
def test_only_the_first_of_many_problems_are_reported(text: str, others: str) -> None:
    found = problems(MINIMAL + text)
    assert len(found) == 21
    assert others in found[-1][2]


@pytest.mark.parametrize(
    "text",
    [
        f"preferred_languages = [{'1, ' * 100_000}]\n",
        f'[[sources]]\nname = "a"\ncleaning = [{"1, " * 100_000}]\n',
        "[benchmark_floors.a]\n" + "".join(f"k{number} = 1\n" for number in range(20_000)),
        "[[sources]]\n" * 1000,
        f'"{"k" * 100_000}" = 1\n',
        f'[benchmark_floors."{"k" * 100_000}"]\n',
        f'device = "{"x" * 100_000}"\n',
        f"seed = {'[' * 300}{']' * 300}\n",
        f"seed.{'a.' * 900}a = 1\n",
        f"seed = 0x{'f' * 100_000}\n",
    ],
    ids=range(10),
)
def test_a_report_of_problems_is_short_however_long_the_text_is(text: str) -> None:
    assert sum(len(message) + len(key) for key, _, message in problems(MINIMAL + text)) < 2000


@pytest.mark.parametrize("value", ["1" * 5000, "[" * 1000 + "]" * 1000], ids=["digits", "nesting"])
def test_toml_that_the_parser_refuses_is_a_problem_of_the_configuration(value: str) -> None:
    assert "more simply" in problems(f"{MINIMAL}seed = {value}\n")[0][2]


def test_a_byte_order_mark_is_ignored() -> None:
    assert parse_config("\ufeff" + MINIMAL).name == "m"
    assert problems("\ufeff" + MINIMAL + "seed = -1\n")[0][:2] == ("seed", 3)


PATHS = [
    key for key in SearchConfig.model_fields if key.endswith(("_file", "_dir")) or "english_terms" in key
]


BAD_PATHS = [
    "",
    " ",
    "/etc/passwd",
    "../secrets.csv",
    "reference_data/../../secrets.csv",
    "reference_data/..",
    "~/secrets.csv",
    "C:/secrets.csv",
    "reference_data\\\\brands.csv",
    "https://example.com/brands.csv",
    "file:///etc/passwd",
    ".git/config",
    "a/.env",
    "cn\\u0000.csv",
    "cn\\n.csv",
    "a" * 300,
    "a/" * 600,
]


@pytest.mark.parametrize(
    # An empty text says there that no file is used, because existing tools have a default file.
    ("key", "path"),
    [pair for pair in itertools.product(PATHS, BAD_PATHS) if pair != ("vague_terms_regex_file", "")],
)
def test_a_path_that_leads_outside_or_can_never_work_is_refused(key: str, path: str) -> None:
    ((found, line, message),) = problems(f'{MINIMAL}{key} = "{path}"\n')
    assert (found, line) == (key, 3)
    assert message.isprintable()


@pytest.mark.parametrize("path", [".", "./", "raw/", "raw/."])
def test_a_path_that_can_only_be_a_folder_is_refused_for_a_file(path: str) -> None:
    for key in (key for key in PATHS if key.endswith("_file")):
        ((found, _, message),) = problems(f'{MINIMAL}{key} = "{path}"\n')
        assert found == key
        assert "is a folder. Name a file." in message


def test_every_key_with_a_path_is_covered() -> None:
    assert len(PATHS) == 15


@pytest.mark.parametrize("field", ["file", "folder"])
def test_the_paths_of_a_source_table_follow_the_same_rules(field: str) -> None:
    table = f'[[sources]]\nname = "a"\ncode_column = 1\n{field} = "../x"\n'
    assert problems(MINIMAL + table)[0][:2] == (f"sources[0].{field}", 6)


@pytest.mark.parametrize(
    "path", ["a.csv", "./reference_data/a.csv", "reference data/ä (1).csv", "a/b/c.d.csv", "a..csv"]
)
def test_a_path_within_the_data_is_accepted(path: str) -> None:
    assert parse_config(f'{MINIMAL}brands_file = "{path}"\n').brands_file == path


@pytest.mark.parametrize(
    "url",
    [
        "",
        "file:///etc/passwd",
        "ftp://example.com/a",
        "example.com/a",
        "https://",
        "https:///a",
        "https://example.com:port/a",
        "https://[::1/a",
        "https://example.com/{nope}",
        "https://example.com/{year.__class__}",
        "https://example.com/{year!r}",
        "https://example.com/{year",
        "https://example.com/}",
        "https://example.com/{}",
        "https://example.com/a b",
        "https://example.com/a\\nb",
        "https://example.com/café",
        "https://example.com\\\\a",
        "https://example.com/" + "a" * 3000,
    ],
)
def test_a_url_that_can_never_work_is_refused(url: str) -> None:
    ((key, line, _),) = problems(f'{MINIMAL}search_references_url = "{url}"\n')
    assert (key, line) == ("search_references_url", 3)


def test_a_url_may_have_a_date() -> None:
    url = "https://example.com/{year}/{month}/{day}.json?page=1"
    (source,) = parse_config(f'{MINIMAL}search_references_url = "{url}"\n').sources
    assert source.url == url


@pytest.mark.parametrize("secret", ["user:s3cret@", "s3cret@"])
def test_a_url_with_a_secret_is_refused_without_repeating_it(secret: str) -> None:
    ((_, _, message),) = problems(f'{MINIMAL}search_references_url = "https://{secret}example.com/a"\n')
    assert "must not hold a secret" in message
    assert "s3cret" not in message


def test_a_source_has_one_place() -> None:
    both = 'search_references_file = "a.json"\nsearch_references_url = "https://example.com/a"\n'
    assert problems(MINIMAL + both) == [
        ("search_references_url", 4, "is set together with search_references_file. Keep one of them.")
    ]
    table = '[[sources]]\nname = "a"\ncode_column = 1\nfile = "a"\nurl = "https://example.com/a"\n'
    assert problems(MINIMAL + table)[0][0] == "sources[0]"


@pytest.mark.parametrize("columns", ["code_column = 0", "code_column = 2\ndescription_column = 2"])
def test_codes_and_descriptions_need_different_columns(columns: str) -> None:
    table = f'[[sources]]\nname = "a"\nfile = "a.csv"\n{columns}\n'
    ((key, _, message),) = problems(MINIMAL + table)
    assert key == "sources[0]"
    assert "both codes and descriptions" in message


@pytest.mark.parametrize("name", ["", " ", "a\\nb", "a\\u0000", "a\\u001b[2J", "a\\u2028b", "a" * 201])
def test_a_name_that_could_forge_a_line_is_refused(name: str) -> None:
    ((key, line, message),) = problems(f'name = "{name}"\nversion = "0.1.0"\n')
    assert (key, line) == ("name", 1)
    assert message.isprintable()


def test_a_key_that_could_forge_a_line_is_shown_escaped() -> None:
    ((key, _, _),) = problems(MINIMAL + '"a\\nb" = 1\n')
    assert key == '"a\\nb"'


REVISION = "c9745ed1d9f207416be6d2e6f8de32d1f16199bf"


@pytest.mark.parametrize(
    "name",
    [
        "all-mpnet-base-v2",
        f"all-mpnet-base-v2@{REVISION}",
        f"organisation/model@{REVISION}",
        "./models/mine",
    ],
)
def test_transformers_that_are_accepted(name: str) -> None:
    assert parse_config(f'{MINIMAL}transformer = "{name}"\n').transformer == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/models/mine",
        "../mine",
        "./../mine",
        "~/mine",
        "organisation/model",
        "organisation/model@main",
        f"a/b/c@{REVISION}",
        f"model@{REVISION[:7]}",
        "https://example.com/model",
        "model\\n",
        ".",
    ],
)
def test_transformers_that_are_refused(name: str) -> None:
    ((key, line, _),) = problems(f'{MINIMAL}transformer = "{name}"\n')
    assert (key, line) == ("transformer", 3)


def test_the_same_language_twice_is_not_two_languages() -> None:
    assert "two different" in problems(MINIMAL + 'detected_languages = ["ENGLISH", "ENGLISH"]\n')[0][2]


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:١", "cuda\\n", "cuda:99999"])
def test_a_device_that_torch_does_not_know_is_refused(device: str) -> None:
    assert problems(f'{MINIMAL}device = "{device}"\n')[0][:2] == ("device", 3)


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
