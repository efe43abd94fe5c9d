"""The figures of a model's benchmarks, read from the result files that other tools wrote.

These files come from anywhere, so whatever cannot be read gives no figures and no error.
"""

import math
import re
from collections.abc import Mapping
from typing import IO, Any
from xml.etree import ElementTree as ET

from app.registry.models.archive import Form, ResultFile, result_files

Figures = dict[str, dict[str, float]]

# The most that is read of one JUnit file.
LIMIT_BYTES = 4 << 20

# Among the figures of a benchmark, the version of the way in which they were measured.
MEASUREMENT = "measurement"
_FIRST_MEASUREMENT = 1

_SHARE = re.compile(r"\s*(\d+(?:\.\d+)?) of (\d+)\s*")


def of_xml(content: bytes) -> Figures:
    """The figures of a JUnit file: one test suite for each benchmark.

    A test case whose output is a share, such as `0.6200 of 200`, is a figure. Of other suites, the numbers of
    tests and of failures are what there is to know.
    """
    try:
        # Entities are not expanded beyond what expat allows, and the file is small.
        root = ET.fromstring(content)  # noqa: S314
    except (ET.ParseError, ValueError, LookupError):
        return {}
    return {name: figures for name, figures in map(_of_suite, root.iter("testsuite")) if figures}


def _of_suite(suite: ET.Element) -> tuple[str, dict[str, float]]:
    name, figures = suite.get("name", ""), dict[str, float]()
    stamps = (one.get("value", "") for one in suite.iter("property") if one.get("name") == MEASUREMENT)
    for case in suite.findall("testcase"):
        found = _SHARE.fullmatch(case.findtext("system-out", ""))
        # A chapter's figures are in a class of their own.
        if found is not None and case.get("classname") == name:
            figures |= {"count": float(found[2]), case.get("name", ""): float(found[1])}
    if not figures:
        for key in ("tests", "failures"):
            if re.fullmatch(r"[0-9]{1,9}", suite.get(key, "")):
                figures[key] = float(suite.get(key, ""))
    elif re.fullmatch(r"[0-9]{1,9}", stamp := next(stamps, "")):
        figures[MEASUREMENT] = float(stamp)
    return name, figures


def of_zip(file: IO[bytes] | bytes) -> Figures:
    """The figures of an archive of results: this registry's files, or those that the team's tools write."""
    return dict(found for result in result_files(file) if (found := of_result(result)) is not None)


def of_result(result: ResultFile) -> tuple[str, dict[str, float]] | None:
    """The benchmark's name and its figures, from one file. None if the file has no figures."""
    content = result.content
    if not isinstance(content, dict) or result.form is Form.TEAMS_DETAILS:
        return None
    if result.form is Form.TEAMS_FIGURES:
        figures, name = _of_team(content), result.benchmark
    else:
        figures, name = numbers(content.get("metrics")), str(content.get("benchmark"))
    return (name, figures) if figures else None


def _of_team(content: dict[str, Any]) -> dict[str, float]:
    """The team's percentages as shares. An answer counts when there is any."""
    found = numbers(content)
    shares = {"top_1": "result1Percent", "top_5": "inTop5Percent"}
    figures = {ours: found[theirs] / 100 for ours, theirs in shares.items() if theirs in found}
    if "answeredPercent" in found:
        figures["no_result"] = 1 - found["answeredPercent"] / 100
    return figures


def measurement_of(figures: object) -> int:
    """The version of the way in which a benchmark's figures were measured.

    Only figures with the same version can be compared. Figures that do not name it were measured in the first
    way, as those of earlier releases and of the team's tools are.
    """
    value = figures.get(MEASUREMENT) if isinstance(figures, Mapping) else None
    stamp = number(value)
    return int(stamp) if stamp is not None and stamp >= _FIRST_MEASUREMENT else _FIRST_MEASUREMENT


def number(value: object) -> float | None:
    """The value as a finite number. None for everything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        # An integer of hundreds of digits.
        return None


def numbers(content: object) -> dict[str, float]:
    """The finite numbers of an object by their names."""
    if not isinstance(content, dict):
        return {}
    found = {str(name): number(value) for name, value in content.items()}
    return {name: value for name, value in found.items() if value is not None}
