"""What a model was made from, and which models in which stages an input went into."""

from collections.abc import Iterable
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.registry.builds import steps
from app.registry.builds.lease import release
from app.registry.inputs import InputRecord, Part
from app.words import InputKind, Stage, StepName
from tests.integration.app.registry import Registry

RAW = "raw_source_data.zip"
GOOD, BAD, OTHER = "a" * 64, "b" * 64, "c" * 64
ROW_FILE, NOTES = "d" * 64, "e" * 64


def made_from(
    registry: Registry,
    raw: str,
    parts: Iterable[Part] = (),
    *,
    version: str = "1.0.0",
    looked_at: bool = True,
    against: str | None = None,
) -> str:
    """A published model that was made from this raw data; returns its prefix."""
    build = registry.queue(version)
    registry.use(
        build,
        InputRecord(InputKind.RAW_DATA, RAW, raw, 10, "s3://bucket/x", {"etag": "1", "fetched_at": "now"}),
        InputRecord(InputKind.CODE, "training repository", origin="git+https://git.example.org/x@abc"),
        parts=parts if looked_at else None,
    )
    if against is not None:
        lease = registry.take(build)
        with registry.database.transaction() as session:
            steps.start(session, lease, StepName.VALIDATE)
            steps.finish(session, lease, StepName.VALIDATE, {"against": against})
            release(session, lease)
    return registry.publish(build)


def prefixes(answer: dict[str, Any]) -> list[str]:
    return [item["prefix"] for item in answer["items"]]


def test_one_call_says_which_models_in_which_stages_were_made_from_a_file_in_the_raw_data(
    api: TestClient, registry: Registry
) -> None:
    bad = [Part("tradesets/2024.csv", ROW_FILE, 20, 3), Part("notes.txt", NOTES, 4, 1)]
    first = made_from(registry, BAD, bad)
    # Other raw data, with the same bad file in it under another path.
    second = made_from(registry, OTHER, [Part("moved.csv", ROW_FILE, 20, 3)])
    good = made_from(registry, GOOD, [Part("tradesets/2024.csv", "f" * 64, 30, 4)])
    for stage in (Stage.DEVELOPMENT, Stage.STAGING, Stage.PRODUCTION):
        registry.promote(first, stage)
    for stage in (Stage.DEVELOPMENT, Stage.STAGING):
        registry.promote(good, stage)
    registry.promote(second, Stage.DEVELOPMENT)

    found = api.get(f"/inputs/{ROW_FILE}").json()

    assert prefixes(found) == [second, first]
    assert [(one["stage"], one["prefix"]) for one in found["running"]] == [
        ("development", second),
        ("production", first),
    ]
    assert found["not_known"] == []
    assert [one["runs_in"] for one in found["items"]] == [["development"], ["production"]]
    [use] = found["items"][1]["uses"]
    assert use == {
        "kind": "raw_data",
        "name": RAW,
        "sha256": ROW_FILE,
        "path": "tradesets/2024.csv",
        "lines": 3,
    }


def test_a_whole_input_is_found_by_its_digest_and_by_its_name(api: TestClient, registry: Registry) -> None:
    bad, good = made_from(registry, BAD), made_from(registry, GOOD)
    assert prefixes(api.get(f"/inputs/{BAD}").json()) == [bad]
    assert prefixes(api.get("/inputs", params={"name": RAW}).json()) == [good, bad]


def test_a_path_finds_every_content_that_the_file_had(api: TestClient, registry: Registry) -> None:
    bad = made_from(registry, BAD, [Part("tradesets/2024.csv", ROW_FILE, 20, 3)])
    good = made_from(registry, GOOD, [Part("tradesets/2024.csv", NOTES, 30, 4)])
    found = api.get("/inputs", params={"name": "tradesets/2024.csv"}).json()
    assert {item["prefix"]: item["uses"][0]["sha256"] for item in found["items"]} == {
        good: NOTES,
        bad: ROW_FILE,
    }


def test_pages_hold_each_model_once_even_if_it_used_the_file_in_two_ways(
    api: TestClient, registry: Registry
) -> None:
    twice = [Part("a.csv", ROW_FILE, 20, 3), Part("b.csv", ROW_FILE, 20, 3)]
    made = [made_from(registry, raw, twice) for raw in (BAD, GOOD, BAD, OTHER, BAD)]
    seen: list[str] = []
    query: dict[str, Any] = {"limit": 2}
    while True:
        answer = api.get(f"/inputs/{ROW_FILE}", params=query).json()
        seen += prefixes(answer)
        assert len(answer["items"]) <= 2
        if answer["next"] is None:
            break
        query["cursor"] = answer["next"]
    assert seen == made[::-1]


def test_a_build_that_made_no_model_is_left_out(api: TestClient, registry: Registry) -> None:
    registry.use(registry.queue(), InputRecord(InputKind.RAW_DATA, RAW, BAD, 10))
    assert api.get(f"/inputs/{BAD}").json()["items"] == []


def test_a_stage_of_which_nobody_can_tell_is_named(api: TestClient, registry: Registry) -> None:
    made_from(registry, BAD, [Part("a.csv", ROW_FILE, 20, 3)])
    # As builds of the release before, whose archives nobody has looked into.
    old = made_from(registry, GOOD, looked_at=False)
    imported = registry.model(stages=(Stage.DEVELOPMENT, Stage.STAGING))
    registry.promote(old, Stage.DEVELOPMENT)
    registry.execute(
        "UPDATE models SET origin = 'imported', build_id = NULL, branch = NULL WHERE prefix = :p", p=imported
    )
    found = api.get(f"/inputs/{ROW_FILE}").json()
    assert [(one["stage"], one["prefix"], one["why"]) for one in found["not_known"]] == [
        ("development", old, "files_not_recorded"),
        ("staging", imported, "imported"),
    ]
    # The archive itself was recorded: that this is another one is certain.
    assert [one["why"] for one in api.get(f"/inputs/{BAD}").json()["not_known"]] == ["imported"]


@pytest.mark.parametrize("path", [f"/inputs/{NOTES}", "/inputs?name=nowhere.csv"])
def test_an_input_that_nobody_used_is_not_found(api: TestClient, path: str) -> None:
    answer = api.get(path)
    assert answer.status_code == 404
    assert "lineage" in answer.json()["detail"]


def test_the_lineage_names_inputs_build_baseline_and_promotions(api: TestClient, registry: Registry) -> None:
    baseline = made_from(registry, GOOD)
    prefix = made_from(registry, BAD, against=baseline)
    registry.promote(prefix, Stage.DEVELOPMENT, "a person")

    found = api.get(f"/models/{prefix}/lineage").json()

    types = {node["id"]: node["type"] for node in found["nodes"]}
    edges = {(edge["type"], types[edge["source"]], types[edge["target"]]) for edge in found["edges"]}
    assert edges == {
        ("made", "build", "model"),
        ("used_by", "input", "build"),
        ("baseline_of", "model", "model"),
        ("promoted_by", "model", "promotion"),
    }
    [raw] = [node for node in found["nodes"] if node["kind"] == "raw_data"]
    assert (raw["sha256"], raw["size"]) == (BAD, 10)
    assert raw["details"] == {"etag": "1", "fetched_at": "now", "stored": False}
    [promotion] = [node for node in found["nodes"] if node["type"] == "promotion"]
    assert promotion["details"]["promoted_by"] == "a person"
    assert f"model:{baseline}" in types
    assert found["not_known"] == []
    assert api.get(f"/models/{prefix}/lineage").json() == found


def test_the_lineage_of_a_retry_names_the_build_that_it_repeats(api: TestClient, registry: Registry) -> None:
    failed = registry.queue()
    registry.fail(failed)
    prefix = made_from(registry, BAD)
    registry.execute(
        "UPDATE builds SET retry_of = :failed WHERE prefix = :prefix", failed=failed, prefix=prefix
    )
    edges = api.get(f"/models/{prefix}/lineage").json()["edges"]
    [edge] = [edge for edge in edges if edge["type"] == "retried_by"]
    assert edge["source"] == f"build:{failed}"


def test_an_imported_model_says_what_is_not_known(api: TestClient, registry: Registry) -> None:
    prefix = registry.model()
    registry.execute(
        "UPDATE models SET origin = 'imported', build_id = NULL, branch = NULL WHERE prefix = :p", p=prefix
    )
    found = api.get(f"/models/{prefix}/lineage").json()
    assert [node["type"] for node in found["nodes"]] == ["model"]
    assert "imported" in found["not_known"][0]


def test_a_comparison_names_what_differs_between_the_inputs(api: TestClient, registry: Registry) -> None:
    same = Part("same.csv", "1" * 64, 5, 1)
    before = [same, Part("changed.csv", "2" * 64, 5, 7), Part("gone.csv", "3" * 64, 5, 2)]
    after = [same, Part("changed.csv", "4" * 64, 5, 9), Part("new.csv", "5" * 64, 5, 3)]
    other = made_from(registry, GOOD, before)
    prefix = made_from(registry, BAD, after, version="1.1.0")
    found = api.get(f"/models/{prefix}/compare/{other}").json()["made_from"]
    assert found["config"] == [{"key": "version", "this": '"1.1.0"', "other": '"1.0.0"'}]
    assert found["inputs"] == [{"kind": "raw_data", "name": RAW, "this": BAD, "other": GOOD}]
    assert [(one["path"], one["change"], one["lines"], one["other_lines"]) for one in found["files"]] == [
        ("changed.csv", "changed", 9, 7),
        ("gone.csv", "removed", None, 2),
        ("new.csv", "added", 3, None),
    ]
    assert (found["files_total"], found["not_known"]) == (3, [])
    assert found["commit"] != found["other_commit"]


def test_a_comparison_says_which_files_nobody_recorded(api: TestClient, registry: Registry) -> None:
    other = made_from(registry, GOOD, looked_at=False)
    prefix = made_from(registry, BAD, [Part("new.csv", "5" * 64, 5, 3)])
    found = api.get(f"/models/{prefix}/compare/{other}").json()["made_from"]
    assert (found["files"], found["files_total"]) == ([], 0)
    assert found["not_known"] == [f"The files in {RAW} were not recorded for both models."]
