"""`tariff-registry gc release-rule`: what is asked for, and what is shown."""

import json
from typing import Any

import pytest

from tests.unit.cli.conftest import NASTY, Api, run

RULE = "5b0f3c1e-91d4-4f0e-8a53-0f1f4a3b7c52"


def rule(**changes: Any) -> dict[str, Any]:
    return {
        "id": RULE,
        "state": "active",
        "versions": "0.0.*",
        "branches": None,
        "reason": f"the audit is over{NASTY}",
        "models": 1_204,
        "created_by": "anna",
        "created_at": "2026-11-24T08:14:02Z",
        **changes,
    }


@pytest.mark.parametrize(
    ("models", "shown"),
    [(0, "about no model now"), (1, "about 1 model now"), (1_204, "about 1,204 models now")],
)
def test_a_rule_is_set_and_says_how_many_models_it_is_about(api: Api, models: int, shown: str) -> None:
    api.answer("POST /gc/release-rules", rule(models=models))
    result = run("gc", "release-rule", "add", "--versions", "0.0.*", "--reason", "the audit is over")
    assert (result.exit_code, result.stdout) == (0, f"{RULE}\n")
    assert f"The rule for versions 0.0.* is {shown}" in result.stderr
    assert json.loads(api.requests[0].content) == {
        "versions": "0.0.*",
        "branches": None,
        "reason": "the audit is over",
    }
    assert run("gc", "release-rule", "add", "--versions", "", "--reason", "x").exit_code == 2
    assert len(api.requests) == 1


def test_the_rules_that_hold_are_listed_and_with_all_also_the_others(api: Api) -> None:
    api.answer("GET /gc/release-rules", {"items": [rule(branches="feature/*")], "next": None})
    result = run("gc", "release-rule", "list")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[:2] == [
        RULE,
        "    active, for versions 0.0.*, branches feature/*: 1,204 models",
    ]
    assert "set by anna at 2026-11-24T08:14:02Z: the audit is over" in result.stdout
    assert "\x1b" not in result.output
    api.answer("GET /gc/release-rules", {"items": [], "next": None})
    assert "No release rule holds." in run("gc", "release-rule", "list").stderr
    api.answer("GET /gc/release-rules", {"items": [rule(branches="feature/*")], "next": None})
    shown = json.loads(run("gc", "release-rule", "list", "--all", "--json").stdout)
    assert shown["items"][0]["id"] == RULE
    assert [request.url.params.get("state") for request in api.requests] == ["active", "active", None]


def test_a_rule_is_removed_by_its_id(api: Api) -> None:
    api.answer(f"DELETE /gc/release-rules/{RULE}", rule(state="revoked"))
    result = run("gc", "release-rule", "remove", RULE)
    assert (result.exit_code, "versions 0.0.* is revoked" in result.stderr) == (0, True)
    assert run("gc", "release-rule", "remove", "0.0.*").exit_code == 2
    assert len(api.requests) == 1
