"""`tariff-registry gc plan`: what is shown of the plan."""

import json
from typing import Any

import pytest

from app import words
from cli.gc.plan import PlanVerdict, size
from tests.unit.cli.conftest import Api, run


def page(*prefixes: str, next_page: str | None = None, **changes: Any) -> dict[str, Any]:
    return {
        "digest": "abc123",
        "computed_at": "2026-11-26T00:00:00Z",
        "branches": {
            "current": True,
            "fetched_at": "2026-11-26T00:00:00Z",
            "remote": None,
            "main_branch": "main",
            "problem": None,
        },
        "doomed": {"prefixes": 1_204, "objects": 12_000, "size": 58_000_000_000},
        "kept": {"prefixes": 1, "objects": 1, "size": 999},
        "reasons": {"branch_gone": 1_204, "pinned": 1},
        "items": [
            {
                "prefix": prefix,
                "verdict": "doomed",
                "reasons": [{"code": "branch_gone", "text": "Its branch is gone."}],
                "state": "kept",
                "branch": "feature/x",
                "published_at": "2026-10-26T00:00:00Z",
                "objects": 10,
                "size": 48_243_118,
            }
            for prefix in prefixes
        ],
        "next": next_page,
        **changes,
    }


def test_the_doomed_models_are_shown_with_their_sizes_and_the_totals(api: Api) -> None:
    api.answer("GET /gc/plan", page("0.0.2-aaaaaaa"))
    result = run("gc", "plan")
    assert result.exit_code == 0, result.output
    for text in (
        "0.0.2-aaaaaaa",
        "48.2 MB",
        "1,204 models, 12,000 objects, 58.0 GB",
        "1 model, 1 object, 999 bytes",
        "abc123",
    ):
        assert text in result.output
    assert api.requests[0].url.params["verdict"] == "doomed"


def test_as_many_pages_are_read_as_are_wanted(api: Api) -> None:
    api.answer(
        "GET /gc/plan", page("0.0.2-aaaaaaa", next_page="more"), page("0.0.1-bbbbbbb", next_page="yes")
    )
    result = run("gc", "plan", "--limit", "2", "--json", "--verdict", "kept")
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout)
    assert [item["prefix"] for item in answer["items"]] == ["0.0.2-aaaaaaa", "0.0.1-bbbbbbb"]
    assert answer["next"] == "yes"
    assert [request.url.params.get("cursor") for request in api.requests] == [None, "more"]


def test_it_says_why_nothing_may_be_deleted(api: Api) -> None:
    unknown = {**page()["branches"], "current": False, "problem": "git cannot read the repository"}
    api.answer("GET /gc/plan", page(branches=unknown))
    result = run("gc", "plan", "0.0.2-aaaaaaa")
    assert "nothing may be deleted" in result.output
    assert "0.0.2-aaaaaaa is not in the plan" in result.output
    assert "git cannot read the repository" in result.output
    assert dict(api.requests[0].url.params) == {"limit": "50", "prefix": "0.0.2-aaaaaaa"}


@pytest.mark.parametrize(
    ("size_bytes", "shown"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (999, "999 bytes"),
        (1_000, "1.0 kB"),
        (999_960, "1.0 MB"),
        (10**18, "1000.0 PB"),
    ],
)
def test_sizes_are_readable(size_bytes: int, shown: str) -> None:
    assert size(size_bytes) == shown


def test_the_verdicts_are_those_of_the_api() -> None:
    assert [word.value for word in PlanVerdict] == [word.value for word in words.PlanVerdict]
