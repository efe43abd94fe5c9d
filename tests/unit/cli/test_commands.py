"""`tariff-registry` against an API that answers what the test says: exit statuses, and what is printed."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from cli import main
from tests.unit.cli.conftest import NASTY, Api, run

SHA = "a" * 40
Handler = Callable[[httpx.Request], httpx.Response]


def build(**changes: Any) -> dict[str, Any]:
    return {
        "id": "7",
        "prefix": "0.0.2-aaaaaaa",
        "state": "succeeded",
        "steps": [],
        "progress": None,
        "failure": None,
        **changes,
    }


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "init.defaultBranch=main"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two commits that differ in their version."""
    git(tmp_path, "init")
    for version in ("0.0.1", "0.0.2"):
        (tmp_path / "search-config.toml").write_text(f'version = "{version}"\n')
        git(tmp_path, "add", ".")
        git(tmp_path, "commit", "-m", version)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def log_part(text: str, offset: int, size: int) -> httpx.Response:
    sizes = {"X-Log-Size": str(size), "X-Log-Next-Offset": str(offset + len(text.encode()))}
    return httpx.Response(200, text=text, headers=sizes)


def queued(api: Api, *states: dict[str, Any]) -> None:
    """The build is queued, and then shown as in each of the states."""
    waiting = build(state="queued")
    api.answer(
        "POST /builds", {"outcome": "queued", "prefix": "0.0.2-aaaaaaa", "reason": None, "build": waiting}
    )
    api.answer("GET /builds/7", *states)
    api.answer("GET /builds/7/log", log_part("the log\n", 0, 8), log_part("", 8, 8))
    model = {"metrics": {"known": {"top_1": 0.5, "count": 3}}, "verdict": "passed", "verdict_reason": "fine"}
    api.answer("GET /models/0.0.2-aaaaaaa", model)


def test_a_build_sends_all_digits_of_the_commit_and_the_base(api: Api, checkout: Path) -> None:
    queued(api, build(state="running"), build())
    result = run("build", "--base", "HEAD~1")
    assert result.exit_code == 0, result.output
    [post] = [request for request in api.requests if request.method == "POST"]
    sent = httpx.Response(200, content=post.content).json()
    assert sent["sha"] == git(checkout, "rev-parse", "HEAD")
    assert (sent["search_config"], sent["base_search_config"]) == (
        'version = "0.0.2"\n',
        'version = "0.0.1"\n',
    )
    assert sent["branch"] == "main"
    assert "50.0%" in result.output


def test_the_thresholds_beside_the_configuration_are_sent_unless_others_are_named(
    api: Api, checkout: Path, tmp_path: Path
) -> None:
    def sent(*arguments: str) -> Any:
        queued(api)
        assert run("build", "--no-wait", *arguments).exit_code == 0
        post = [request for request in api.requests if request.method == "POST"][-1]
        return httpx.Response(200, content=post.content).json().get("thresholds")

    (checkout / "benchmark-thresholds.toml").write_text("# not committed\n")
    assert sent() is None
    git(checkout, "add", ".")
    git(checkout, "commit", "-m", "thresholds")
    assert sent() == "# not committed\n"
    (tmp_path / "others.toml").write_text("# others\n")
    assert sent("--thresholds", "others.toml") == "# others\n"
    (tmp_path / "latin.toml").write_bytes(b"# \xe9")
    for bad, said in (("none.toml", "cannot be read"), ("latin.toml", "is not UTF-8"), ("", "--thresholds")):
        refused = run("build", "--thresholds", bad)
        assert refused.exit_code == 2
        assert said in refused.output


@pytest.mark.parametrize(
    ("states", "status"),
    [
        ([build()], 0),
        ([build(state="cancelled")], 1),
        ([build(state="failed", failure={"step": "train", "code": "oom", "message": "More memory."})], 1),
        # A word that only a newer registry knows does not end the command.
        ([build(state="pausing"), build()], 0),
    ],
)
def test_the_exit_status_says_how_the_build_ended(
    states: list[dict[str, Any]], status: int, api: Api, checkout: Path
) -> None:
    queued(api, *states)
    assert run("build").exit_code == status


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (
            {"outcome": "not_needed", "prefix": "p", "reason": "version_unchanged", "build": None},
            "No model is needed",
        ),
        ({"outcome": "exists", "prefix": "p", "build": None}, "is there already"),
    ],
)
def test_the_status_is_success_when_there_is_nothing_to_do(
    answer: dict[str, Any], says: str, api: Api, checkout: Path
) -> None:
    api.answer("POST /builds", answer)
    result = run("build")
    assert result.exit_code == 0
    assert says in result.output


def answered(**changes: Any) -> dict[str, Any]:
    """The answer to a post that needs no build."""
    return {
        "outcome": "not_needed",
        "prefix": "0.0.2-aaaaaaa",
        "reason": "version_unchanged",
        "build": None,
        "base_problem": None,
        "changed_keys": [],
        "other_models_of_this_version": [],
        "warnings": [],
        **changes,
    }


def test_a_forgotten_version_ends_the_command_with_2_and_names_the_keys(api: Api, checkout: Path) -> None:
    api.answer("POST /builds", answered(changed_keys=["digits", "learning_rate"]))
    result = run("build", "--base", "HEAD~1")
    assert result.exit_code == 2
    assert "the version did not rise: digits, learning_rate. Raise the version" in result.output
    assert run("build", "--dry-run").exit_code == 2
    allowed = run("build", "--base", "HEAD~1", "--allow-unchanged-version")
    assert allowed.exit_code == 0
    assert "No model is needed" in allowed.output


def test_values_that_changed_do_not_end_a_build_that_was_forced(api: Api, checkout: Path) -> None:
    queued(api, build())
    api.answer(
        "POST /builds", answered(outcome="queued", changed_keys=["digits"], build=build(state="queued"))
    )
    result = run("build", "--force")
    assert result.exit_code == 0
    assert "these keys changed: digits" in result.output


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (answered(outcome="needed", reason=None), "A model is needed for 0.0.2-aaaaaaa. This was a dry run"),
        (answered(), "No model is needed for 0.0.2-aaaaaaa: version_unchanged"),
        (answered(outcome="exists", build=build(state="running")), "There is a build already, running"),
        (answered(outcome="exists"), "is there already"),
    ],
)
def test_a_dry_run_shows_the_answer_and_follows_nothing(
    answer: dict[str, Any], says: str, api: Api, checkout: Path
) -> None:
    api.answer("POST /builds", answer)
    result = run("build", "--dry-run")
    assert (result.exit_code, len(api.requests)) == (0, 1), result.output
    assert says in result.output
    assert httpx.Response(200, content=api.requests[0].content).json()["dry_run"] is True


def test_what_the_author_should_know_is_shown(api: Api, checkout: Path) -> None:
    api.answer(
        "POST /builds",
        answered(
            outcome="needed",
            base_problem="base_search_config has the version 'v1'.",
            other_models_of_this_version=["0.0.2-bbbbbbb", "0.0.2-ccccccc"],
            warnings=["device is mps."],
        ),
    )
    result = run("build", "--dry-run")
    assert result.exit_code == 0
    assert "has the version 'v1'" in result.output
    assert "search-config.toml: device is mps." in result.output
    assert "Other commits have models of this version: 0.0.2-bbbbbbb, 0.0.2-ccccccc." in result.output


@pytest.mark.parametrize("base", ["HEAD", "main", "@", "HEAD^0"])
def test_a_base_that_is_the_commit_itself_is_refused(base: str, api: Api, checkout: Path) -> None:
    result = run("build", "--base", base)
    assert result.exit_code == 2
    assert "is the commit that is being built" in result.output
    assert "HEAD~1" in result.output
    assert api.requests == []


@pytest.mark.parametrize(
    ("arguments", "variables"),
    [
        (["build", "--base", ""], {}),
        (["build", "--base", " \n"], {}),
        (["build", "--branch", ""], {}),
        (["build"], {"REGISTRY_BRANCH": ""}),
        (["build"], {"REGISTRY_URL": ""}),
        (["build"], {"REGISTRY_TOKEN": ""}),
        (["build", "--promote-to", ""], {}),
        (["latest", ""], {}),
        (["latest", "production", "--version", ""], {}),
        (["promote", "", "production"], {}),
        (["promote", "..", "production"], {}),
        (["promote", "0.0.2-aff1242", "production", "--note", ""], {}),
    ],
)
def test_an_empty_variable_of_a_script_is_refused_before_anything_is_sent(
    arguments: list[str], variables: dict[str, str], api: Api, checkout: Path
) -> None:
    result = run(*arguments, **variables)
    assert result.exit_code == 2, result.output
    assert api.requests == []


@pytest.mark.parametrize(
    "base", ["--output=written", "-h", "--all", "--", "no-such-branch", "HEAD:search-config.toml"]
)
def test_a_base_is_never_an_option_of_git(base: str, api: Api, checkout: Path) -> None:
    result = run("build", f"--base={base}")
    assert result.exit_code == 2, result.output
    assert sorted(path.name for path in checkout.iterdir()) == [".git", "search-config.toml"]


def test_the_token_is_sent_without_its_newline_and_never_printed(api: Api, checkout: Path) -> None:
    api.answer(
        "POST /builds", httpx.Response(401, json={"title": "This call needs a token", "detail": "Send one."})
    )
    result = run("build", REGISTRY_TOKEN="s3cret\n")
    assert result.exit_code == 3
    assert api.requests[0].headers["Authorization"] == "Bearer s3cret"
    assert "s3cret" not in result.output
    broken = run("build", REGISTRY_TOKEN="s3\ncret")
    assert broken.exit_code == 2
    assert "cret" not in broken.output


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(200, html="<html>Sign in</html>"),
        httpx.Response(302, headers={"Location": "https://login.example.org"}),
        httpx.Response(200, json={"message": "another API"}),
        httpx.Response(200, json={"outcome": "queued", "prefix": "p", "build": {"id": 1}}),
        httpx.Response(500, html="<h1>"),
        httpx.ConnectError("refused"),
        httpx.ReadTimeout("slow"),
    ],
)
def test_whatever_is_not_the_registry_gives_the_status_of_a_refusal(
    answer: httpx.Response | Exception, api: Api, checkout: Path
) -> None:
    for call in ("POST /builds", "GET /models/production/latest", "POST /models/0.0.2-aff1242/promotions"):
        api.answer(call, answer)
    for arguments in (["build"], ["latest", "production"], ["promote", "0.0.2-aff1242", "production"]):
        result = run(*arguments)
        assert result.exit_code == 3, result.output
        assert "Traceback" not in result.output


def test_a_registry_that_is_being_deployed_does_not_end_the_command(api: Api, checkout: Path) -> None:
    away = [httpx.Response(502), httpx.Response(503), httpx.ConnectError("refused"), httpx.Response(504)]
    queued(api)
    api.answer("GET /builds/7", build(state="running"), *away, build())
    result = run("build")
    assert result.exit_code == 0, result.output
    assert "Trying again" in result.output


def test_a_failed_build_is_a_failed_build_even_if_its_log_cannot_be_had(api: Api, checkout: Path) -> None:
    queued(api, build(state="failed", failure={"step": "train", "code": "oom", "message": "More memory."}))
    api.answer("GET /builds/7/log", httpx.Response(404, json={"title": "Gone", "detail": "No log."}))
    result = run("build")
    assert result.exit_code == 1
    assert "More memory." in result.output


def test_of_a_long_log_its_end_is_shown(api: Api, checkout: Path) -> None:
    queued(api, build(state="failed", failure={"step": "train", "code": "oom", "message": "More memory."}))
    sizes = {"X-Log-Size": "5000000", "X-Log-Next-Offset": "4194304"}
    first = httpx.Response(200, text="the first line\n", headers=sizes)
    api.answer("GET /builds/7/log", first, httpx.Response(200, text="the last line\n"))
    result = run("build", "--no-log")
    assert "the last line" in result.output
    assert "the first line" not in result.output
    assert api.requests[-1].url.params["offset"] == str(5_000_000 - 65536)


def test_text_from_the_machine_is_neither_markup_nor_for_the_terminal(api: Api, checkout: Path) -> None:
    step = {"name": f"train{NASTY}", "state": "succeeded", "output": {"name": NASTY}}
    running = build(
        state="running",
        steps=[step, {"name": NASTY, "state": "running"}],
        progress={"phase": NASTY, "percent": 50.0, "eta_seconds": 3},
    )
    failed = build(
        state="failed",
        prefix=NASTY,
        failure={"step": NASTY, "code": NASTY, "message": f"{NASTY}\nsecond line"},
    )
    queued(api, running, failed)
    api.answer("GET /builds/7/log", log_part(f"{NASTY}\n", 0, 100), log_part("", 100, 100))
    result = run("build")
    assert result.exit_code == 1, result.output
    assert "\x1b" not in result.output
    assert "\u202e" not in result.output
    assert result.output.count("[/x] [bold]\\[ \\x1b]0;title\\x07") >= 7


def test_metrics_and_artifacts_from_elsewhere_are_printed_as_they_are(api: Api, checkout: Path) -> None:
    queued(api, build())
    model = {"metrics": {NASTY: {"top_1": None, "count": NASTY}}, "verdict": NASTY, "verdict_reason": NASTY}
    api.answer("GET /models/0.0.2-aaaaaaa", model)
    result = run("build")
    assert result.exit_code == 0, result.output
    artifacts = {NASTY: {"url": "u", "sha256": NASTY, "size": 1}}
    api.answer(
        "GET /models/production/latest", {"prefix": NASTY, "promoted_at": NASTY, "artifacts": artifacts}
    )
    shown = run("latest", "production")
    assert shown.exit_code == 0, shown.output
    assert "\x1b" not in result.output + shown.output


def test_a_configuration_that_is_not_utf_8_is_a_fault_of_the_checkout(api: Api, checkout: Path) -> None:
    for content in ("# café\n".encode("latin-1"), 'version = "0.0.3"\n'.encode("utf-16")):
        (checkout / "search-config.toml").write_bytes(content)
        git(checkout, "commit", "-am", "other encoding")
        result = run("build")
        assert result.exit_code == 2, result.output
        assert "not UTF-8" in result.output
    assert api.requests == []


def test_a_shallow_clone_without_the_base_says_what_to_do(
    api: Api, checkout: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    shallow = tmp_path_factory.mktemp("shallow")
    git(shallow, "clone", "--depth=1", f"file://{checkout}", "clone")
    monkeypatch.chdir(shallow / "clone")
    result = run("build", "--base", "HEAD~1")
    assert result.exit_code == 2
    assert "This clone is shallow" in result.output


def test_a_defect_does_not_look_like_a_failed_build(
    api: Api, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(main, "show_latest", broken)
    artifacts: dict[str, Any] = {}
    api.answer("GET /models/production/latest", {"prefix": "p", "promoted_at": "t", "artifacts": artifacts})
    assert run("latest", "production").exit_code == 70


def test_an_interrupted_command_does_not_look_like_a_failed_build(
    api: Api, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    queued(api)
    monkeypatch.setattr("cli.builds.follow.Happenings", interrupted)
    result = run("build")
    assert result.exit_code == 130
    assert "The build 7 goes on. Follow it with `tariff-registry follow 7`, or cancel it" in result.output


# Runs


def a_run(**changes: Any) -> dict[str, Any]:
    return {
        "id": "9",
        "kind": "import",
        "state": "succeeded",
        "requested_by": "me",
        "created_at": "2026-11-24T08:15:30Z",
        "stopped_by": None,
        "progress": None,
        "result": None,
        "waits_for": None,
        "failure": None,
        **changes,
    }


@pytest.mark.parametrize(
    ("end", "status", "says"),
    [
        (a_run(result={"adopted": 2, "adopted_prefixes": ["1.0.0-aaaaaaa"]}), 0, "1.0.0-aaaaaaa"),
        (a_run(state="failed", failure="10 workers got no further"), 1, "10 workers got no further"),
        (a_run(state="stopped", stopped_by="chief"), 1, "stopped by chief"),
    ],
)
def test_an_import_is_followed_to_its_end(end: dict[str, Any], status: int, says: str, api: Api) -> None:
    api.answer("POST /imports", a_run(state="queued"))
    waiting = a_run(state="running", waits_for="CloudUnavailable: 503")
    api.answer("GET /runs/9", a_run(state="running", progress={"prefixes": 200}), waiting, end)
    result = run("import", "--dry-run")
    assert result.exit_code == status
    assert says in result.output
    assert "It waits: CloudUnavailable: 503" in result.output
    assert json.loads(api.requests[0].content) == {"dry_run": True, "digests": True}


def test_a_reconciliation_shows_what_differs(api: Api) -> None:
    finding = {
        "difference": "marker_missing",
        "key": "1.0.0-aaaaaaa/staging\x1b[2J",
        "detail": "There is no marker.",
        "repaired": True,
    }
    strays = [
        {"prefix": "0.0.9-abcdef1", "objects": 2, "size_bytes": 9, "kept_because": None},
        {"prefix": "0.0.8-abcdef1", "objects": 0, "size_bytes": 0, "kept_because": "a build makes it"},
    ]
    result = {"differences": {"marker_missing": 1}, "findings": [finding], "strays": strays}
    ended = a_run(kind="reconciliation", result=result)
    api.answer("POST /mirror/reconcile", ended)
    shown = run("reconcile", "--apply")
    assert shown.exit_code == 0
    assert "marker_missing (repaired)" in shown.output
    assert "0.0.9-abcdef1: 2 objects with 9 bytes were deleted" in shown.output
    assert "The rest is kept: a build makes it" in shown.output
    assert "\x1b" not in shown.output
    assert json.loads(api.requests[0].content) == {"apply": True, "model_zip": False}


def test_strays_are_deleted_prefix_by_prefix(api: Api) -> None:
    api.answer("POST /mirror/reconcile", a_run(kind="reconciliation", state="queued"))
    named = ["0.0.9-abcdef1", "0.0.8-abcdef1"]
    given = [word for prefix in named for word in ("--delete-strays", prefix)]
    assert run("reconcile", *given, "--no-wait").exit_code == 0
    assert json.loads(api.requests[0].content)["delete_strays"] == named


def test_a_run_need_not_be_waited_for(api: Api) -> None:
    api.answer("POST /imports", a_run(state="queued"))
    assert run("import", "--no-wait", "--no-digests").exit_code == 0
    assert len(api.requests) == 1


def test_runs_are_listed_shown_and_stopped(api: Api) -> None:
    api.answer("GET /runs", {"items": [a_run(), a_run(id="8", kind="[/x]")], "next": None})
    listed = run("runs")
    assert "import" in listed.output
    assert "[/x]" in listed.output
    api.answer("GET /runs/9", a_run(result={"left_out_prefixes": [{"prefix": "p", "reason": "no_model"}]}))
    assert "p was left out: no_model" in run("runs", "9").output
    api.answer("POST /runs/9/stop", a_run(state="stopped", stopped_by="me"))
    stopped = run("runs", "9", "--stop")
    assert (stopped.exit_code, "stopped by me" in stopped.output) == (0, True)
    assert run("runs", "--stop").exit_code == 2


# Stages


def promotion(**changes: Any) -> dict[str, Any]:
    return {
        "prefix": "0.0.1-bbbbbbb",
        "stage": "production",
        "promoted_at": "2026-11-25T10:00:00Z",
        "promoted_by": "ann",
        **changes,
    }


def test_the_stages_are_shown_with_what_they_run(api: Api) -> None:
    current = {"prefix": "0.0.1-bbbbbbb", "promotion": promotion()}
    items = [{"stage": "staging", "current": None}, {"stage": "production", "current": current}]
    api.answer("GET /stages", {"items": items})
    done = CliRunner().invoke(main.app, ["stages"])
    assert done.exit_code == 0, done.output
    assert "nothing runs in staging" in done.output
    assert "0.0.1-bbbbbbb runs in production since 2026-11-25T10:00:00Z, by ann" in done.output


def test_a_rollback_names_what_it_replaces_and_why(api: Api) -> None:
    api.answer("POST /stages/production/rollback", httpx.Response(201, json=promotion()))
    named = ["rollback", "production", "--expected", "0.0.2-aaaaaaa", "--note", "it is bad"]
    done = CliRunner().invoke(main.app, [*named, "--to", "0.0.1-bbbbbbb"])
    assert done.exit_code == 0, done.output
    assert "0.0.1-bbbbbbb runs in production" in done.output
    [request] = api.requests
    assert json.loads(request.content) == {
        "expected": "0.0.2-aaaaaaa",
        "note": "it is bad",
        "override": False,
        "to": "0.0.1-bbbbbbb",
    }


def test_a_rollback_that_has_been_done_is_a_refusal(api: Api) -> None:
    problem = {"title": "The stage runs another model", "detail": "production runs 0.0.1-bbbbbbb."}
    api.answer("POST /stages/production/rollback", httpx.Response(409, json=problem))
    done = CliRunner().invoke(
        main.app, ["rollback", "production", "--expected", "0.0.2-aaaaaaa", "--note", "it is bad"]
    )
    assert done.exit_code == 3
    assert "production runs 0.0.1-bbbbbbb" in done.output


@pytest.mark.parametrize("which", ["00000000-0000-0000-0000-000000000007", "0.0.2-aaaaaaa"])
def test_a_build_is_cancelled_by_its_id_or_its_prefix_and_awaited(which: str, api: Api) -> None:
    build_id = "00000000-0000-0000-0000-000000000007"
    api.answer("GET /builds", {"items": [build(id=build_id)], "next": None})
    api.answer(f"POST /builds/{build_id}/cancel", build(id=build_id, state="running"))
    api.answer(
        f"GET /builds/{build_id}", build(id=build_id, state="running"), build(id=build_id, state="cancelled")
    )
    result = run("cancel", which)
    assert result.exit_code == 0, result.output
    assert "0.0.2-aaaaaaa is cancelled" in result.output


def test_a_prefix_that_was_never_built_cannot_be_cancelled(api: Api) -> None:
    api.answer("GET /builds", {"items": [], "next": None})
    result = run("cancel", "0.0.9-aaaaaaa")
    assert result.exit_code == 2
    assert "There is no build of 0.0.9-aaaaaaa" in result.output


def test_a_build_that_ended_before_it_was_cancelled_is_a_refusal(api: Api) -> None:
    build_id = "00000000-0000-0000-0000-000000000007"
    problem = {
        "type": "/problems/build-ended",
        "title": "The build has ended already",
        "detail": "It has failed.",
    }
    api.answer(f"POST /builds/{build_id}/cancel", httpx.Response(409, json=problem))
    result = run("cancel", build_id)
    assert result.exit_code == 3
    assert "It has failed." in result.output


@pytest.mark.parametrize(("ends", "status"), [("succeeded", 0), ("failed", 1), ("cancelled", 1)])
def test_a_retry_is_followed_to_its_end(api: Api, ends: str, status: int) -> None:
    earlier = "00000000-0000-0000-0000-000000000007"
    failure = {"step": "publish", "code": "cloud_error", "message": "S3 is down.", "retry_helps": True}
    taken = {
        "name": "train",
        "state": "succeeded",
        "started_at": None,
        "finished_at": None,
        "output": None,
        "taken_over_from": earlier,
    }
    last = build(id="8", state=ends, steps=[taken], failure=failure if ends == "failed" else None)
    if ends == "failed":
        last["retry_with"] = "POST /builds/8/retry"
    queued(api, build())
    api.answer("GET /builds", {"items": [build(id=earlier, state="failed")], "next": None})
    api.answer(
        f"POST /builds/{earlier}/retry",
        httpx.Response(502),
        httpx.Response(202, json=build(id="8", state="queued")),
    )
    api.answer("GET /builds/8", build(id="8", state="running"), last)
    api.answer("GET /builds/8/log", log_part("", 0, 0))
    result = run("retry", "0.0.2-aaaaaaa")
    assert result.exit_code == status, result.output
    assert f"Queued 0.0.2-aaaaaaa, build 8, which retries the build {earlier}" in result.output
    assert f"taken over from the build {earlier}" in result.output
    assert ("`tariff-registry retry 8` builds it again." in result.output) == (ends == "failed")


def test_a_retry_need_not_be_followed_and_may_be_refused(api: Api) -> None:
    build_id = "00000000-0000-0000-0000-000000000007"
    api.answer(f"POST /builds/{build_id}/retry", httpx.Response(202, json=build(id="8", state="queued")))
    assert run("retry", build_id, "--no-wait").exit_code == 0
    assert len(api.requests) == 1
    problem = {"title": "The build cannot be retried", "detail": "It is running. Wait for its end."}
    api.answer(f"POST /builds/{build_id}/retry", httpx.Response(409, json=problem))
    refused = run("retry", build_id)
    assert refused.exit_code == 3
    assert "It is running." in refused.output


def test_a_failure_that_no_retry_helps_says_what_to_do_first(api: Api) -> None:
    failure = {"step": "load_inputs", "code": "unusable_input", "message": "No zip.", "retry_helps": False}
    queued(api, build(state="failed", failure=failure, retry_with="POST /builds/7/retry"))
    api.answer("GET /builds", {"items": [build()], "next": None})
    result = run("follow", "0.0.2-aaaaaaa")
    assert result.exit_code == 1
    assert "Once the cause is removed, `tariff-registry retry 7` builds it again" in result.output


@pytest.mark.parametrize(("verdict", "status"), [("identical", 0), ("equivalent", 0), ("different", 1)])
def test_a_reproduction_is_followed_and_its_verdict_decides(api: Api, verdict: str, status: int) -> None:
    outcome = {
        "verdict": verdict,
        "same_bytes": None,
        "largest_difference": 0.25,
        "findings": ["The classes differ."],
        "repaired": ["model.zip"],
        "not_repaired": [{"name": "check_result.json", "reason": "the reproduction did not make it"}],
    }
    started = build(id="8", state="queued")
    ended = build(id="8", state="succeeded", reproduction={"outcome": outcome})
    queued(api, build())
    api.answer("POST /models/0.0.2-aaaaaaa/reproduce", httpx.Response(202, json=started))
    api.answer("GET /builds/8", build(id="8", state="running"), ended)
    api.answer("GET /builds/8/log", log_part("", 0, 0))
    result = run("reproduce", "0.0.2-aaaaaaa", "--accept", "machine_image", "--repair")
    assert result.exit_code == status, result.output
    for said in (f"was made again: {verdict}", "is 0.25", "The classes differ.", "model.zip was put back"):
        assert said in result.output
    assert "Published" not in result.output
    [sent] = [request for request in api.requests if request.method == "POST"]
    assert json.loads(sent.content) == {"accept": ["machine_image"], "repair": True}


# Tokens


def issued(name: str = "deploy", **changes: Any) -> dict[str, Any]:
    return {
        "id": TOKEN_ID,
        "name": name,
        "state": "active",
        "starts_with": "tmr_1aG7bQ",
        "scopes": ["read", "promote:staging"],
        "expires_at": "2027-02-21T08:00:12Z",
        "last_used_at": None,
        **changes,
    }


TOKEN_ID = "b7d0e0e2-5f0c-4a4e-8f0e-2a86d5a2f1c3"


def test_a_new_token_is_alone_on_stdout(api: Api) -> None:
    api.answer("POST /tokens", httpx.Response(201, json=issued(token="tmr_secret")))
    result = run("token", "create", "deploy", "--scope", "read", "--scope", "promote:staging")
    assert result.exit_code == 0, result.output
    assert result.stdout == "tmr_secret\n"
    assert "deploy may read, promote:staging until 2027-02-21T08:00:12Z" in result.stderr
    assert "tmr_secret" not in result.stderr
    [request] = api.requests
    assert json.loads(request.content) == {
        "name": "deploy",
        "scopes": ["read", "promote:staging"],
        "expires_in_days": 90,
    }


@pytest.mark.parametrize(
    "arguments",
    [("deploy",), ("deploy", "--scope", "fly"), ("deploy", "--scope", "read", "--expires-in-days", "366")],
)
def test_a_token_that_cannot_be_is_not_sent(arguments: tuple[str, ...], api: Api) -> None:
    assert run("token", "create", *arguments).exit_code == 2
    assert api.requests == []


def test_the_list_of_tokens_has_all_pages(api: Api) -> None:
    api.answer(
        "GET /tokens",
        {"items": [issued("first")], "next": "more"},
        {"items": [issued("second", last_used_at="2026-11-23T10:12:44Z")], "next": None},
    )
    result = run("token", "list")
    assert result.exit_code == 0, result.output
    assert "first" in result.stdout
    assert "second" in result.stdout
    assert "never" in result.stdout
    assert [dict(request.url.params) for request in api.requests] == [
        {"limit": "200", "state": "active"},
        {"limit": "200", "state": "active", "cursor": "more"},
    ]
    assert run("token", "list", "--all").exit_code == 0
    assert "state" not in api.requests[-1].url.params


def test_a_token_is_revoked_by_its_id_or_its_name(api: Api) -> None:
    api.answer(f"DELETE /tokens/{TOKEN_ID}", issued(state="revoked"))
    api.answer("GET /tokens", {"items": [issued()], "next": None})
    for which in (TOKEN_ID, "deploy"):
        result = run("token", "revoke", which)
        assert (result.exit_code, result.stdout) == (0, "")
        assert "deploy is revoked" in result.stderr
    [asked] = [request for request in api.requests if request.method == "GET"]
    assert dict(asked.url.params) == {"limit": "200", "state": "active", "name": "deploy"}
    api.answer("GET /tokens", {"items": [], "next": None})
    assert run("token", "revoke", "nobody").exit_code == 3


def test_a_model_is_signed_and_what_the_run_says_is_the_exit_status(api: Api) -> None:
    asked = {"id": "9", "kind": "signing", "requested_by": "me", "created_at": "then", "state": "queued"}
    api.answer("POST /models/0.0.2-aaaaaaa/sign", {"prefix": "p", "signature": None, "run": asked})
    api.answer("GET /runs/9", asked | {"state": "succeeded", "result": {"key": "abc"}})
    signed = run("sign", "0.0.2-aaaaaaa")
    assert (signed.exit_code, "key: abc" in signed.output) == (0, True)
    api.answer("GET /runs/9", asked | {"state": "failed", "failure": "No key to sign with is set."})
    failed = run("sign", "0.0.2-aaaaaaa")
    assert (failed.exit_code, "No key to sign with" in failed.output) == (1, True)
    signature = {"key": "abc", "signed_at": "2026-11-23"}
    api.answer("POST /models/0.0.2-aaaaaaa/sign", {"prefix": "p", "signature": signature, "run": None})
    already = run("sign", "0.0.2-aaaaaaa")
    assert (already.exit_code, already.output) == (0, "p is signed since 2026-11-23, with the key abc.\n")


def test_people_decide_about_single_models(api: Api) -> None:
    where = "/models/0.0.2-aaaaaaa"
    kept = {"prefix": "0.0.2-aaaaaaa", "state": "kept", "pin": None, "release": None}
    api.answer(f"POST {where}/restore", kept)
    restored = run("gc", "restore", "0.0.2-aaaaaaa")
    assert (restored.exit_code, restored.output) == (0, "0.0.2-aaaaaaa is kept.\n")
    api.answer(f"POST {where}/pin", kept | {"pin": {"by": "anna[/x]"}})
    pinned = run("gc", "pin", "0.0.2-aaaaaaa", "--note", " the report\n")
    assert (pinned.exit_code, pinned.output) == (0, "0.0.2-aaaaaaa is kept, pinned by anna[/x].\n")
    assert json.loads(api.requests[-1].content) == {"note": "the report"}
    api.answer(f"DELETE {where}/pin", kept)
    assert run("gc", "unpin", "0.0.2-aaaaaaa").output == "0.0.2-aaaaaaa is kept.\n"
    api.answer(f"POST {where}/release", kept | {"release": {"by": "root"}})
    released = run("gc", "release", "0.0.2-aaaaaaa", "--reason", "it was replaced")
    assert (released.exit_code, released.output) == (0, "0.0.2-aaaaaaa is kept, released by root.\n")
    assert json.loads(api.requests[-1].content) == {"reason": "it was replaced"}
    api.answer(f"DELETE {where}/release", kept)
    assert run("gc", "release", "0.0.2-aaaaaaa", "--withdraw").exit_code == 0
    without_words = run("gc", "release", "0.0.2-aaaaaaa")
    assert (without_words.exit_code, "--reason is empty" in without_words.output) == (2, True)


def notified(target: str, **changes: Any) -> dict[str, Any]:
    return {
        "created_at": "2026-11-23T10:12:44Z",
        "target": target,
        "kind": "test",
        "subject": "test",
        "state": "pending",
        "attempts": 0,
        "error": None,
        **changes,
    }


@pytest.mark.parametrize(
    ("last", "status", "says"),
    [
        ([notified("webhook", state="sent", attempts=1)], 0, "webhook: sent"),
        (
            [
                notified("slack", attempts=1, error=f"The target answered 403: no_team{NASTY}"),
                notified("webhook", state="sent", attempts=1),
            ],
            1,
            "slack: not sent: The target answered 403: no_team",
        ),
        ([], 1, "No worker has anywhere to send messages to"),
    ],
    ids=["sent", "refused", "not configured"],
)
def test_a_test_message_is_followed_until_every_target_was_tried(
    api: Api, last: list[dict[str, Any]], status: int, says: str
) -> None:
    api.answer("POST /notifications/test", {"message": "m1"})
    waiting = [notified("slack"), notified("webhook")]
    api.answer("GET /notifications", {"items": waiting}, {"items": waiting[:1]}, {"items": last})
    done = run("notification", "test")
    assert (done.exit_code, says in done.output) == (status, True), done.output
    assert len(api.requests) == 4
    assert dict(api.requests[-1].url.params) == {"limit": "200", "message": "m1"}


def test_the_notifications_that_were_given_up_are_listed(api: Api) -> None:
    api.answer("GET /notifications", {"items": [notified(f"pigeon{NASTY}", state="failed", error="lost")]})
    done = run("notification", "list", "--failed")
    assert done.exit_code == 0
    assert "pigeon" in done.stdout
    assert "lost" in done.stdout
    assert dict(api.requests[-1].url.params) == {"limit": "200", "state": "failed"}
