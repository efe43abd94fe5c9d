"""The figures of models that other tools have measured: read where they can be, and no error elsewhere."""

import io
import json
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.registry.models import archive, figures

OURS = """<testsuites><testsuite name="everyday" tests="3" failures="1">
<testcase classname="everyday" name="top_1"><system-out>0.6200 of 200</system-out></testcase>
<testcase classname="everyday" name="top_5"><failure/><system-out>0.8 of 200</system-out></testcase>
<testcase classname="everyday.chapter_01" name="top_1"><system-out>0.1 of 3</system-out></testcase>
</testsuite></testsuites>"""


def packed(files: dict[str, object]) -> io.BytesIO:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, value in files.items():
            archive.writestr(name, value if isinstance(value, str) else json.dumps(value))
    return content


def test_the_figures_of_a_benchmark_are_read_from_its_suite() -> None:
    assert figures.of_xml(OURS.encode()) == {"everyday": {"count": 200, "top_1": 0.62, "top_5": 0.8}}


def test_of_a_suite_without_shares_the_numbers_of_tests_are_kept() -> None:
    xml = b'<testsuite name="pytest" tests="12" failures="3"><testcase name="a"/></testsuite>'
    assert figures.of_xml(xml) == {"pytest": {"tests": 12, "failures": 3}}


def test_an_archive_of_this_registry_and_one_of_the_team_are_read() -> None:
    ours = {"benchmark": "everyday", "metrics": {"count": 2, "top_1": 0.5}, "predictions": []}
    teams = {"result1Percent": 50, "inTop5Percent": 75.0, "answeredPercent": 100}
    path = "benchmarking_data/results/benchmark_results_vague.json"
    assert figures.of_zip(packed({"everyday.json": ours})) == {"everyday": {"count": 2, "top_1": 0.5}}
    assert figures.of_zip(packed({path: teams})) == {"vague": {"top_1": 0.5, "top_5": 0.75, "no_result": 0}}


def test_beside_this_registrys_own_files_the_copies_for_the_teams_tools_are_not_read_again() -> None:
    ours = {"benchmark": "good-goods-descriptions", "metrics": {"top_1": 0.5}}
    copy = "benchmarking_data/results/benchmark_results_good_goods.json"
    found = figures.of_zip(packed({copy: {"result1Percent": 50}, "good-goods-descriptions.json": ours}))
    assert found == {"good-goods-descriptions": {"top_1": 0.5}}


@pytest.mark.parametrize(
    "content",
    [
        [1],
        "not json",
        "[" * 100_000,
        {"benchmark": "x", "metrics": {"top_1": "NaN", "count": None, "ok": True}},
        '{"benchmark": "x", "metrics": {"top_1": NaN}}',
        {"benchmark": "x", "metrics": {"top_1": 10**400}},
    ],
)
def test_a_result_that_cannot_be_read_gives_no_figures(content: object) -> None:
    assert figures.of_zip(packed({"x.json": content})) == {}


def test_of_an_archive_with_a_broken_result_the_others_are_read() -> None:
    good = {"benchmark": "b", "metrics": {"top_1": 0.5}}
    content = bytearray(packed({"a.json": {"benchmark": "a", "metrics": {}}, "b.json": good}).getvalue())
    start = content.index(b"a.json") + len("a.json")
    content[start : start + 4] = b"\xff" * 4
    assert figures.of_zip(io.BytesIO(content)) == {"b": {"top_1": 0.5}}


def test_a_result_that_is_too_large_is_not_read() -> None:
    assert figures.of_zip(packed({"x.json": " " * (archive.FILE_LIMIT_BYTES + 1)})) == {}


@given(st.binary(max_size=300))
def test_whatever_the_bytes_are_reading_them_raises_nothing(content: bytes) -> None:
    assert figures.of_xml(content) == {}
    assert figures.of_zip(io.BytesIO(content)) == {}


def test_entities_that_grow_are_not_expanded() -> None:
    laughs = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 12))
    xml = f'<!DOCTYPE x [<!ENTITY e0 "ha">{laughs}]><testsuite name="&e11;" tests="1"/>'
    assert figures.of_xml(xml.encode()) == {}


@pytest.mark.parametrize(
    ("stamp", "version"),
    [(2, 2), (2.0, 2), (None, 1), (True, 1), ("2", 1), (0, 1), (-1, 1), (float("nan"), 1), (10**400, 1)],
)
def test_figures_without_a_readable_version_were_measured_in_the_first_way(
    stamp: object, version: int
) -> None:
    assert figures.measurement_of({"top_1": 0.5, "measurement": stamp}) == version
    assert figures.measurement_of({"top_1": 0.5}) == figures.measurement_of(stamp) == 1


def test_the_version_of_the_measurement_is_read_from_both_result_files() -> None:
    suite = OURS.replace(
        "<testcase", '<properties><property name="measurement" value="2"/></properties><testcase', 1
    )
    assert figures.of_xml(suite.encode())["everyday"]["measurement"] == 2
    content = {"benchmark": "everyday", "metrics": {"top_1": 0.5, "measurement": 2}}
    found = figures.of_zip(packed({"everyday.json": content}))["everyday"]
    assert figures.measurement_of(found) == 2
