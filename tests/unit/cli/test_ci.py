"""The version that a scheduled build raises, and what a report lets through from data."""

import httpx
import pytest

from cli.builds.checkout import CheckoutError
from cli.ci.github import write_outputs
from cli.ci.report import report
from cli.ci.versions import next_patch, raised
from cli.client import RegistryClient


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('version = "0.1.9"\n', 'version = "0.1.10"\n'),
        ("a = 1\r\nversion='1.2.3' # why\r\n[t]\r\n", "a = 1\r\nversion='1.2.4' # why\r\n[t]\r\n"),
        ("[[t]]\n", None),
        (
            'a = """\nversion = "9.9.9"\n"""\nversion = "1.0.0"\n',
            'a = """\nversion = "9.9.9"\n"""\nversion = "1.0.1"\n',
        ),
        ('version = "1.0.0-rc.1"\n', None),
        ('"version" = "1.0.0"\n', None),
        ('[t]\nversion = "1.0.0"\n', None),
        ("version = ", None),
    ],
    ids=["patch", "rest", "none", "text", "pre-release", "quoted", "of a table", "broken"],
)
def test_only_the_version_is_changed(before: str, after: str | None) -> None:
    if after is None:
        with pytest.raises(CheckoutError):
            raised(before)
    else:
        assert raised(before)[0] == after


def test_the_next_patch() -> None:
    assert next_patch("0.1.99") == "0.1.100"


def test_an_output_has_one_line(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_OUTPUT", f"{tmp_path}/output")
    with pytest.raises(ValueError, match="several lines"):
        write_outputs(prefix="a\nverdict=passed")


def test_nothing_from_data_acts_as_markdown_or_mentions_anybody() -> None:
    evil = "@team | <script> [x](http://y) `z` **b**"
    answers = {
        "/models/0.0.2-aff1242": {"metrics": {}, "verdict": "failed", "verdict_reason": evil},
        "/models/production/latest": {"prefix": "0.0.1-11ce0f5"},
        "/models/0.0.2-aff1242/compare/0.0.1-11ce0f5": {
            "prefix": "0.0.2-aff1242",
            "other": "0.0.1-11ce0f5",
            "problems": [evil],
            "benchmarks": [
                {
                    "benchmark": evil,
                    "other_benchmark": None,
                    "comparable": True,
                    "compared": 1,
                    "figures": [{"figure": "top_1", "this": 0.5, "other": 0.25, "difference": 0.25}],
                    "better": {
                        "total": 1,
                        "first": [{"description": evil, "codes": [], "place": 1, "other_place": None}],
                    },
                    "worse": {"total": 0, "first": []},
                }
            ],
        },
    }
    transport = httpx.MockTransport(lambda request: httpx.Response(200, json=answers[request.url.path]))
    text = report(RegistryClient("http://registry", transport=transport), "0.0.2-aff1242")
    assert "+25.0 points" in text
    for active in ("@team", "<script>", "[x](", " `z`", "**b**"):
        assert active not in text, active
