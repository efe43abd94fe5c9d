"""What the commands show of models: how they compare, what they were made from, and where an input went."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cli import main
from tests.unit.cli.conftest import NASTY, Api, run

SHA = "a" * 40


COMPARED = {
    "prefix": "0.0.2-aaaaaaa",
    "other": "0.0.1-bbbbbbb",
    "benchmarks": [
        {
            "benchmark": f"everyday{NASTY}",
            "other_benchmark": "everyday",
            "comparable": False,
            "figures": [
                {"figure": "top_1", "this": 0.62, "other": 0.585, "difference": 0.035},
                {"figure": "count", "this": 200, "other": None, "difference": None},
            ],
            "compared": 200,
            "better": {
                "total": 7,
                "first": [
                    {"description": f"slacks{NASTY}", "codes": ["620342"], "place": 1, "other_place": None},
                    {"description": "goods", "codes": [], "place": 1, "other_place": None},
                ],
            },
            "worse": {"total": 0, "first": []},
        }
    ],
    "problems": ["0.0.1-bbbbbbb has no answers."],
}


def test_two_models_are_compared_in_a_table_and_by_their_descriptions(api: Api) -> None:
    api.answer("GET /models/0.0.2-aaaaaaa/compare/0.0.1-bbbbbbb", COMPARED)
    done = CliRunner().invoke(
        main.app,
        ["compare", "0.0.2-aaaaaaa", "0.0.1-bbbbbbb", "--benchmark", "everyday"],
        env={"COLUMNS": "200"},
    )
    assert done.exit_code == 0, done.output
    assert dict(api.requests[-1].url.params) == {"benchmark": "everyday", "limit": "5"}
    assert "62.0%" in done.output
    assert "+3.5 points" in done.output
    assert "of 200 descriptions, 0.0.2-aaaaaaa answers 7 better and 0 worse" in done.output
    assert "better  – → 1  620342  slacks[/x]" in done.output
    assert "better  – → 1  no answer  goods" in done.output
    assert "cannot be compared" in done.output
    assert "0.0.1-bbbbbbb has no answers." in done.output
    assert "\x1b" not in done.output


def test_a_comparison_of_what_is_not_a_prefix_is_not_asked_for(api: Api) -> None:
    done = CliRunner().invoke(main.app, ["compare", "0.0.2-aaaaaaa", "production"])
    assert done.exit_code == 2
    assert api.requests == []


# What models were made from

SHA256 = "5" * 64


def node(id_: str, type_: str, name: str, **more: Any) -> dict[str, Any]:
    empty: dict[str, Any] = dict.fromkeys(["kind", "sha256", "size", "origin"])
    return {"id": id_, "type": type_, "name": name, "at": "then", "details": {}, **empty, **more}


LINEAGE = {
    "prefix": "0.0.2-aaaaaaa",
    "nodes": [
        node("model:0.0.2-aaaaaaa", "model", "0.0.2-aaaaaaa", details={"origin": "built", "sha": SHA}),
        node("build:7", "build", "0.0.2-aaaaaaa", details={"requested_by": "ci"}),
        node("model:0.0.1-bbbbbbb", "model", "0.0.1-bbbbbbb"),
        node(
            "input:raw_data:raw.zip",
            "input",
            f"raw.zip{NASTY}",
            kind="raw_data",
            sha256=SHA256,
            size=12_345,
            details={"fetched_from": "s3://models/raw.zip", "missing_since": "yesterday"},
        ),
        node("promotion:1", "promotion", "staging", details={"promoted_by": "anna", "override": True}),
    ],
    "edges": [
        {"source": "build:7", "target": "model:0.0.2-aaaaaaa", "type": "made"},
        {"source": "input:raw_data:raw.zip", "target": "build:7", "type": "used_by"},
        {"source": "model:0.0.1-bbbbbbb", "target": "model:0.0.2-aaaaaaa", "type": "baseline_of"},
    ],
    "outputs": {
        "files": [
            {
                "name": "model.zip",
                "sha256": "7" * 64,
                "size": 9,
                "contents": [{"path": "target/model.pt", "sha256": "8" * 64, "size": 7}],
            }
        ]
    },
    "not_known": ["The files in raw.zip are not recorded."],
}


def test_what_a_model_was_made_from_is_shown_with_digests_to_copy(api: Api) -> None:
    api.answer("GET /models/0.0.2-aaaaaaa/lineage", LINEAGE)
    shown = CliRunner().invoke(main.app, ["lineage", "0.0.2-aaaaaaa"], env={"COLUMNS": "40"})
    assert shown.exit_code == 0, shown.output
    assert f"commit {SHA}" in shown.output
    assert "build 7  made, requested by ci" in shown.output
    assert SHA256 in shown.output
    assert "12,345 bytes  s3://models/raw.zip" in shown.output
    assert "its content is missing since yesterday" in shown.output
    assert "baseline of: 0.0.1-bbbbbbb" in shown.output
    assert f"model.zip                     {'7' * 64}  9 bytes" in shown.output
    assert f"target/model.pt in model.zip  {'8' * 64}  7 bytes" in shown.output
    assert "by anna  (override)" in shown.output
    assert "not known: The files in raw.zip are not recorded." in shown.output
    assert "\x1b" not in shown.output
    assert json.loads(run("lineage", "0.0.2-aaaaaaa", "--json").output) == LINEAGE


def users(*prefixes: str, more: str | None = None) -> dict[str, Any]:
    use = {"kind": "raw_data", "name": "raw.zip", "sha256": SHA256, "path": f"a.csv{NASTY}", "lines": 1200}
    return {
        "running": [{"stage": "production", "prefix": "0.0.2-aaaaaaa", "since": "monday"}],
        "not_known": [{"stage": "staging", "prefix": "0.0.1-bbbbbbb", "since": "tuesday", "why": "imported"}],
        "items": [
            {
                "prefix": prefix,
                "published_at": "then",
                "verdict": "passed",
                "runs_in": ["production"],
                "uses": [use],
            }
            for prefix in prefixes
        ],
        "next": more,
    }


def test_the_models_of_a_digest_are_shown_with_the_stages_that_run_them(api: Api, tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_bytes(b"wrong")
    digest = hashlib.sha256(b"wrong").hexdigest()
    api.answer(f"GET /inputs/{digest}", users("0.0.2-aaaaaaa"))
    for how in ([digest], ["--file", str(file)]):
        shown = run("inputs", *how)
        assert shown.exit_code == 0, shown.output
        assert "production runs 0.0.2-aaaaaaa, since monday" in shown.output
        assert "staging runs 0.0.1-bbbbbbb, and nobody recorded" in shown.output
        assert "in raw.zip (1,200 lines)" in shown.output
        assert "\x1b" not in shown.output


def test_as_many_pages_of_models_are_read_as_are_asked_for(api: Api) -> None:
    api.answer("GET /inputs", users(*["0.0.2-aaaaaaa"] * 200, more="x"), users("0.0.1-bbbbbbb", more="y"))
    found = json.loads(run("inputs", "--name", "a.csv", "--limit", "201", "--json").output)
    assert (len(found["items"]), found["next"]) == (201, "y")
    asked = [dict(request.url.params) for request in api.requests]
    assert asked == [
        {"name": "a.csv", "limit": "200"},
        {"name": "a.csv", "limit": "1", "cursor": "x"},
    ]
    assert "Ask for more with --limit" in run("inputs", "--name", "a.csv", "--limit", "1").output


@pytest.mark.parametrize("given", [(), ("abc",), (SHA256, "--name", "a.csv"), ("--name", "")])
def test_inputs_needs_one_thing_to_look_for(api: Api, given: tuple[str, ...]) -> None:
    assert run("inputs", *given).exit_code == 2
    assert api.requests == []


def test_a_comparison_shows_what_differs_between_the_inputs(api: Api) -> None:
    made_from = {
        "commit": "b" * 40,
        "other_commit": "a" * 40,
        "config": [{"key": "learning_rate", "this": "0.001", "other": None}],
        "inputs": [{"kind": "raw_data", "name": "raw.zip", "this": SHA256, "other": "6" * 64}],
        "files": [
            {"archive": "raw.zip", "path": "a.csv", "change": "changed", "lines": 1200, "other_lines": 1100},
            {"archive": "raw.zip", "path": "b.csv", "change": "removed", "lines": None, "other_lines": 7},
        ],
        "files_total": 9,
        "packages": [{"name": "torch", "change": "changed", "version": "2.9.1", "other_version": "2.8.0"}],
        "packages_total": 3,
        "facts": [{"kind": "determinism", "fact": "seed", "this": 2, "other": 1}],
        "not_known": [],
    }
    api.answer("GET /models/0.0.2-aaaaaaa/compare/0.0.1-bbbbbbb", COMPARED | {"made_from": made_from})
    shown = run("compare", "0.0.2-aaaaaaa", "0.0.1-bbbbbbb").output
    for line in (
        f"  commit  {'a' * 40} → {'b' * 40}",
        "  learning_rate  – → 0.001",
        f"  raw_data raw.zip  {'6' * 64} → {SHA256}",
        "  a.csv in raw.zip  changed, 1,100 → 1,200 lines",
        "  b.csv in raw.zip  removed, 7 lines",
        "  determinism seed  1 → 2",
        "  package torch  2.8.0 → 2.9.1",
        "  and 2 more packages",
        "  and 7 more files",
    ):
        assert line in shown.splitlines()
