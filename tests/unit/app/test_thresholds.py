"""Files of thresholds, in the team's form and in ours."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.registry.models.thresholds import (
    DataRules,
    Limits,
    Threshold,
    default_rules,
    default_thresholds,
    parse,
)
from app.settings import Settings, SettingsError
from app.words import Breach, Direction
from training.config import ConfigError

TEAMS = """\
# Changes are in percentage points.
[[thresholds]]
name = "Classified, right code first"
presented_name = "Classified top 1 %"
file = "benchmarking_data/results/benchmark_results_classified.json"
key = "result1Percent"
direction = "increase_is_good"
changeHigh = -3.0
changeMedium = -2
changeLow = -1.0

[[thresholds]]
name = "Vague descriptions answered"
file = "benchmark_results_vague.json"
key = "answeredPercent"
direction = "increase_is_bad"
changeHigh = 5.0
"""
OURS = """\
[[thresholds]]
name = "Good goods"
benchmark = "good-goods-descriptions"
metric = "top_5"
direction = "increase_is_good"
high = 4
low = 0.5

[data]
rows = {high = 80}
fewest_classes = 1000
"""


def test_the_teams_form_is_read_as_it_is() -> None:
    assert parse(TEAMS).thresholds == (
        Threshold(
            "Classified, right code first", "classified", "top_1", Direction.INCREASE_IS_GOOD, Limits(3, 2, 1)
        ),
        Threshold(
            "Vague descriptions answered", "vague", "answered", Direction.INCREASE_IS_BAD, Limits(high=5)
        ),
    )
    assert parse(TEAMS).data == DataRules()
    assert [one.selects("vague-descriptions") for one in parse(TEAMS).thresholds] == [False, True]


def test_our_form_names_benchmark_and_metric() -> None:
    rules = parse(OURS)
    assert rules.thresholds == (
        Threshold(
            "Good goods",
            "good-goods-descriptions",
            "top_5",
            Direction.INCREASE_IS_GOOD,
            Limits(high=4, low=0.5),
        ),
    )
    assert rules.data == DataRules(rows=Limits(high=80), fewest_classes=1000)
    assert rules.thresholds[0].selects("good_goods")


def test_both_forms_can_stand_in_one_file_and_data_alone_keeps_the_other_thresholds() -> None:
    assert [one.benchmark for one in parse(TEAMS + OURS).thresholds] == [
        "classified",
        "vague",
        "good-goods-descriptions",
    ]
    assert parse("[data]\nfewest_rows = 5\n", 0.02).thresholds == default_rules(0.02).thresholds


@pytest.mark.parametrize(
    ("text", "line", "key", "message"),
    [
        ("", None, "", "has no [[thresholds]]"),
        ("name = = 1", 1, "", "is not valid TOML"),
        ("threshold = 1", 1, "threshold", "Did you mean 'thresholds'?"),
        ("thresholds = 1", 1, "thresholds", "Write each as [[thresholds]]"),
        ("thresholds = []", 1, "thresholds", "must be one or more tables"),
        ("thresholds = [1]", 1, "thresholds[0]", "must be a table"),
        ("data = 3", 1, "data", "Write it as [data]"),
        ("[data]\nrow = 1", 2, "data.row", "Did you mean 'rows'?"),
        ("[data]\nrows = {hihg = 1}", 2, "data.rows.hihg", "Did you mean 'high'?"),
        ("[data]\nrows = {high = 1, low = 2}", 2, "data.rows", "wrong order"),
        ("[data]\nfewest_rows = 0", 2, "data.fewest_rows", "greater than or equal to 1"),
        (
            TEAMS.replace("changeHigh", "changeHihg"),
            8,
            "thresholds[0].changeHihg",
            "Did you mean",
        ),
        (TEAMS.replace("-3.0", "3.0"), 2, "thresholds[0]", "must be negative"),
        (TEAMS.replace("5.0", "-5.0"), 12, "thresholds[1]", "must be positive"),
        (TEAMS.replace("-3.0", "-1.5"), 2, "thresholds[0]", "wrong order"),
        (TEAMS.replace("-3.0", '"3"'), 8, "thresholds[0].changeHigh", "must be a valid number"),
        (TEAMS.replace("result1Percent", "resultPercent"), 2, "thresholds[0]", "result1Percent"),
        (TEAMS.replace("benchmark_results_vague", "running_losses"), 12, "thresholds[1]", "must name a file"),
        (TEAMS.replace("increase_is_bad", "up"), 16, "thresholds[1].direction", "'increase_is_good'"),
        (OURS.replace("top_5", "top_9"), 1, "thresholds[0]", "must be one of answered"),
        (OURS.replace("high = 4\nlow = 0.5", ""), 1, "thresholds[0]", "Give at least one"),
        (OURS.replace("high = 4", "high = nan"), 6, "thresholds[0].high", "finite number"),
        (OURS.replace("high = 4", "high = -4"), 6, "thresholds[0].high", "greater than or equal to 0"),
        (OURS * 101, None, "", ""),
    ],
)
def test_what_is_wrong_is_named_with_its_key_and_line(
    text: str, line: int | None, key: str, message: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        parse(text)
    problem = refused.value.problems[0]
    if message:
        assert (problem.line, problem.key) == (line, key)
        assert message in problem.message


def test_a_file_has_at_most_a_hundred_thresholds() -> None:
    one = TEAMS.split("\n\n", maxsplit=1)[0] + "\n"
    assert len(parse(one * 100).thresholds) == 100
    with pytest.raises(ConfigError, match="at most 100"):
        parse(one * 101)


@given(st.floats(0, 100), st.lists(st.floats(0, 100), min_size=1, max_size=3))
def test_a_breach_is_the_worst_limit_that_was_exceeded(worse: float, given_limits: list[float]) -> None:
    ordered = sorted(given_limits, reverse=True)
    limits = Limits(*ordered)
    exceeded = [breach for breach, limit in zip(Breach, ordered, strict=False) if round(worse, 6) > limit]
    assert limits.breach(worse) == next(iter(exceeded), None)


def test_the_file_of_the_settings_is_read_at_the_start(tmp_path: Path) -> None:
    def settings(path: Path | None) -> Settings:
        return Settings.model_validate({"DATABASE_URL": "postgresql://x", "thresholds_file": path})

    file = tmp_path / "thresholds.toml"
    assert default_thresholds(settings(None)) is None
    with pytest.raises(SettingsError, match="cannot be read"):
        default_thresholds(settings(file))
    file.write_text("thresholds = 1\n")
    with pytest.raises(SettingsError, match=r"REGISTRY_THRESHOLDS_FILE: .*line 1: thresholds"):
        default_thresholds(settings(file))
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match="cannot be read"):
        default_thresholds(settings(file))
    file.write_text("#" * 100_000)
    with pytest.raises(SettingsError, match="100,000 characters"):
        default_thresholds(settings(file))
    file.write_text(TEAMS)
    assert default_thresholds(settings(file)) == TEAMS
