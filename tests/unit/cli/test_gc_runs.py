"""`tariff-registry gc run`, `status` and `stop`: what is asked for, what is shown, and the exit status."""

import json
from typing import Any

import pytest

from cli.gc import runs
from tests.unit.cli.conftest import Api, run

RUN = "6a6a6a6a-0000-4000-8000-000000000001"


def answer(state: str = "succeeded", **changes: Any) -> dict[str, Any]:
    return {
        "id": RUN,
        "kind": "collection",
        "state": state,
        "requested_by": "operator",
        "created_at": "2026-11-26T00:00:00Z",
        "stopped_by": None,
        "progress": {"phase": "sweep", "freed": 1, "of": 4},
        "result": {
            "dry_run": True,
            "plan_digest": "abc123",
            "doomed": 1_204,
            "doomed_bytes": 58_000_000_000,
            "freed": 1,
            "freed_bytes": 0,
            "marked_prefixes": [{"prefix": "0.0.2-aaaaaaa", "reason": "Its branch is gone."}],
            "freed_prefixes": ["0.0.1-bbbbbbb"],
        },
        "waits_for": None,
        "failure": None,
        **changes,
    }


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "_POLL_S", 0.0)


def test_a_dry_run_is_the_default_and_says_how_to_carry_it_out(api: Api) -> None:
    api.answer("POST /gc/runs", answer("queued", result=None))
    api.answer(f"GET /runs/{RUN}", answer("running"), answer())
    result = run("gc", "run")
    assert result.exit_code == 0, result.output
    for text in ("1,204", "58.0 GB", "0.0.2-aaaaaaa", "freed 0.0.1-bbbbbbb", "--really --plan-digest abc123"):
        assert text in result.output
    assert json.loads(api.requests[0].content) == {
        "dry_run": True,
        "plan_digest": None,
        "allow_large": False,
    }


def test_what_is_really_asked_for_is_sent(api: Api) -> None:
    api.answer("POST /gc/runs", answer("queued"))
    arguments = ("--really", "--plan-digest", "abc123", "--allow-large", "--no-wait", "--json")
    result = run("gc", "run", *arguments)
    assert (result.exit_code, json.loads(result.stdout)["state"]) == (0, "queued")
    assert json.loads(api.requests[0].content) == {
        "dry_run": False,
        "plan_digest": "abc123",
        "allow_large": True,
    }


def test_a_run_that_fails_ends_with_status_1(api: Api) -> None:
    api.answer("POST /gc/runs", answer("queued"))
    api.answer(f"GET /runs/{RUN}", answer("failed", failure="The plan has changed."))
    result = run("gc", "run", "--really")
    assert result.exit_code == 1
    assert "The plan has changed." in result.output


def test_the_newest_collection_is_shown_and_stopped(api: Api) -> None:
    api.answer("GET /runs", {"items": [answer("running")], "next": None})
    api.answer(f"GET /runs/{RUN}", answer("running", waits_for="CloudUnavailable: SlowDown"))
    result = run("gc", "status")
    assert (result.exit_code, "SlowDown" in result.output) == (0, True)
    api.answer(f"POST /runs/{RUN}/stop", answer("stopped", stopped_by="operator"))
    result = run("gc", "stop")
    assert (result.exit_code, "stopped by operator" in result.output) == (0, True)
    api.answer("GET /runs", {"items": [], "next": None})
    result = run("gc", "status")
    assert (result.exit_code, "There was no collection yet." in result.output) == (3, True)
