"""A small reading of the form in which the team's validation compares two `benchmark_results.zip` files.

As there, a threshold whose file is missing in one of the archives is skipped, so a model passes if nothing
can be compared. This module says which thresholds were skipped.
"""

import json
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tomli

_FOLDER = "benchmarking_data/results"

# Changes are in percentage points, or in the loss.
THRESHOLDS = tomli.loads("""
[[thresholds]]
name = "Classified top 1"
file = "benchmarking_data/results/benchmark_results_classified.json"
key = "result1Percent"
direction = "increase_is_good"
changeHigh = -3.0
changeMedium = -2.0
changeLow = -1.0

[[thresholds]]
name = "Classified top 5"
file = "benchmarking_data/results/benchmark_results_classified.json"
key = "inTop5Percent"
direction = "increase_is_good"
changeHigh = -3.0
changeMedium = -2.0
changeLow = -1.0

[[thresholds]]
name = "Good goods top 1"
file = "benchmarking_data/results/benchmark_results_good_goods.json"
key = "result1Percent"
direction = "increase_is_good"
changeHigh = -3.0
changeMedium = -2.0
changeLow = -1.0

[[thresholds]]
name = "Good goods top 5"
file = "benchmarking_data/results/benchmark_results_good_goods.json"
key = "inTop5Percent"
direction = "increase_is_good"
changeHigh = -3.0
changeMedium = -2.0
changeLow = -1.0

[[thresholds]]
name = "Vague answered"
file = "benchmarking_data/results/benchmark_results_vague.json"
key = "answeredPercent"
direction = "increase_is_bad"
changeHigh = 5.0
changeMedium = 3.0
changeLow = 1.0

[[thresholds]]
name = "Accuracy"
file = "benchmarking_data/results/running_losses.json"
key = "accuracy"
interested_in = -1
direction = "increase_is_good"
changeHigh = -3.0
changeMedium = -2.0
changeLow = -1.0

[[thresholds]]
name = "Loss"
file = "benchmarking_data/results/running_losses.json"
key = "average_loss"
interested_in = -1
direction = "increase_is_bad"
changeHigh = 0.30
changeMedium = 0.20
changeLow = 0.15
""")["thresholds"]


@dataclass
class Compared:
    """The names of the thresholds by what came of them, and the descriptions that left the first places."""

    high: list[str] = field(default_factory=list)
    medium: list[str] = field(default_factory=list)
    low: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    lost: dict[str, list[str]] = field(default_factory=dict)


def compare(*, old: Path, new: Path) -> Compared:
    found = Compared()
    before, after = _contents(old), _contents(new)
    for threshold in THRESHOLDS:
        name, file = threshold["name"], threshold["file"]
        if file not in before or file not in after:
            found.skipped.append(name)
            continue
        was, is_now = (_value(content[file], threshold) for content in (before, after))
        worse = was - is_now if threshold["direction"] == "increase_is_good" else is_now - was
        for breach, limit in (("high", "changeHigh"), ("medium", "changeMedium"), ("low", "changeLow")):
            if worse > abs(threshold[limit]):
                getattr(found, breach).append(name)
                break
        details = file.replace("benchmark_results", "benchmark_details")
        if "top" in name:
            found.lost[name] = _lost(before[details], after[details], int(name[-1]))
    return found


def _contents(archive: Path) -> dict[str, Any]:
    with zipfile.ZipFile(archive) as opened:
        return {name: json.loads(opened.read(name)) for name in opened.namelist() if name.startswith(_FOLDER)}


def _value(content: dict[str, Any], threshold: dict[str, Any]) -> float:
    if "interested_in" in threshold:
        content = list(content.values())[threshold["interested_in"]]
    value: float = content[threshold["key"]]
    return value


def _lost(before: list[dict[str, Any]], after: list[dict[str, Any]], places: int) -> list[str]:
    def is_right(item: dict[str, Any]) -> bool:
        return item["correct_code"] in [found["code"] for found in item["predictions"][:places]]

    now = {item["description"]: is_right(item) for item in after}
    return [item["description"] for item in before if is_right(item) and not now[item["description"]]]
