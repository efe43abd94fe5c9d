"""The figures of a model's benchmarks, read from the result files that other tools wrote.

These files come from anywhere, so whatever cannot be read gives no figures and no error.
"""

import json
import lzma
import math
import re
import zipfile
import zlib
from collections.abc import Iterator
from typing import IO, Any
from xml.etree import ElementTree as ET

Figures = dict[str, dict[str, float]]

# The most that is read of one result, and how many results of an archive.
LIMIT_BYTES = 4 << 20
_MOST_FILES = 50

# What reading a broken or encrypted archive, or what is not JSON, can raise.
_UNREADABLE = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    NotImplementedError,
    RuntimeError,
    EOFError,
    ValueError,
)

_SHARE = re.compile(r"\s*(\d+(?:\.\d+)?) of (\d+)\s*")
_TEAMS = re.compile(r"(?:.*/)?benchmark_results_([A-Za-z0-9_-]+)\.json")


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
    for case in suite.findall("testcase"):
        found = _SHARE.fullmatch(case.findtext("system-out", ""))
        # A chapter's figures are in a class of their own.
        if found is not None and case.get("classname") == name:
            figures |= {"count": float(found[2]), case.get("name", ""): float(found[1])}
    if not figures:
        for number in ("tests", "failures"):
            if suite.get(number, "").isdecimal():
                figures[number] = float(suite.get(number, ""))
    return name, figures


def of_zip(file: IO[bytes]) -> Figures:
    """The figures of an archive of results: this registry's files, or those that the team's tools write."""
    try:
        with zipfile.ZipFile(file) as archive:
            return dict(_of_archive(archive))
    except _UNREADABLE:
        return {}


def _of_archive(archive: zipfile.ZipFile) -> Iterator[tuple[str, dict[str, float]]]:
    for entry in [entry for entry in archive.infolist() if entry.filename.endswith(".json")][:_MOST_FILES]:
        teams = _TEAMS.fullmatch(entry.filename)
        if entry.file_size > LIMIT_BYTES or (teams is None and "/" in entry.filename):
            continue
        try:
            content = json.loads(archive.read(entry))
        except _UNREADABLE:
            continue
        if not isinstance(content, dict):
            continue
        if teams is not None:
            figures, name = _of_team(content), teams[1]
        else:
            figures, name = _numbers(content.get("metrics")), str(content.get("benchmark"))
        if figures:
            yield name, figures


def _of_team(content: dict[str, Any]) -> dict[str, float]:
    """The team's percentages as shares. An answer counts when there is any."""
    found = _numbers(content)
    shares = {"top_1": "result1Percent", "top_5": "inTop5Percent"}
    figures = {ours: found[theirs] / 100 for ours, theirs in shares.items() if theirs in found}
    if "answeredPercent" in found:
        figures["no_result"] = 1 - found["answeredPercent"] / 100
    return figures


def _numbers(content: object) -> dict[str, float]:
    if not isinstance(content, dict):
        return {}
    return {
        str(name): float(value)
        for name, value in content.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }
