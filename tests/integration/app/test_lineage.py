"""What a model was made from, and which models in which stages an input went into."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.registry import inputs
from app.registry.builds.lease import release
from app.registry.environments import Environment
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
    facts: Sequence[InputRecord] = (),
    outputs: Mapping[StepName, dict[str, Any]] | None = None,
) -> str:
    """A published model that was made from this raw data; returns its prefix."""
    build = registry.queue(version)
    registry.use(
        build,
        InputRecord(InputKind.RAW_DATA, RAW, raw, 10, "s3://bucket/x", {"etag": "1", "fetched_at": "now"}),
        InputRecord(InputKind.CODE, "training repository", origin="git+https://git.example.org/x@abc"),
        parts=parts if looked_at else None,
    )
    if facts:
        registry.use(build, *facts)
    for step, output in (outputs or {}).items():
        registry.output(build, step, output)
    if against is not None:
        registry.output(build, StepName.VALIDATE, {"against": against})
    return registry.publish(build)


def of_machine(seed: int, packages: dict[str, str], registry: Registry, **hardware: Any) -> list[InputRecord]:
    """What a training reports of machine and software."""
    environment = hashlib.sha256(str(packages).encode()).hexdigest()
    build = registry.queue()
    used = InputRecord(
        InputKind.PYTHON_ENVIRONMENT, "python 3.11.7", environment, details={"python": "3.11.7"}
    )
    registry.use(build, used)
    lease = registry.take(build)
    with registry.database.transaction() as session:
        inputs.describe(session, lease, environment, Environment(packages).to_stored())
        release(session, lease)
    return [
        used,
        InputRecord(InputKind.HARDWARE, "instance type", origin="aws:x", details={"instance_type": "g5"}),
        InputRecord(InputKind.HARDWARE, "training machine", "7" * 64, details={"cpu": "x", **hardware}),
        InputRecord(InputKind.DETERMINISM, "seed and switches", "8" * 64, details={"seed": seed}),
        InputRecord(InputKind.TRANSFORMER, "mini", "9" * 64, details={"revision": "1"}),
    ]


def without_facts(sentences: list[str]) -> list[str]:
    """What is not known, but for what only newer builds record of machine and software."""
    about = ("instance type", "GPU", "transformer", "environment", "switches", "packages")
    return [one for one in sentences if not any(word in one for word in about)]


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


def test_a_file_of_a_transformer_is_found_and_models_of_which_nobody_recorded_it_are_named(
    api: TestClient, registry: Registry
) -> None:
    weights = Part("model.safetensors", ROW_FILE, 4)
    build = registry.queue()
    registry.use(build, InputRecord(InputKind.TRANSFORMER, "mini", BAD), parts=[weights])
    prefix = registry.publish(build)
    # As the release before recorded transformers: without their files.
    before = registry.queue()
    registry.use(before, InputRecord(InputKind.TRANSFORMER, "mini", GOOD))
    registry.promote(registry.publish(before), Stage.DEVELOPMENT)
    found = api.get(f"/inputs/{ROW_FILE}").json()
    assert prefixes(found) == [prefix]
    assert found["items"][0]["uses"][0]["path"] == "model.safetensors"
    assert [one["why"] for one in found["not_known"]] == ["files_not_recorded"]


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
    assert found["outputs"] is None
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
    assert (found["files_total"], without_facts(found["not_known"])) == (3, [])
    assert found["commit"] != found["other_commit"]


def test_a_comparison_says_which_files_nobody_recorded(api: TestClient, registry: Registry) -> None:
    other = made_from(registry, GOOD, looked_at=False)
    prefix = made_from(registry, BAD, [Part("new.csv", "5" * 64, 5, 3)])
    found = api.get(f"/models/{prefix}/compare/{other}").json()["made_from"]
    assert (found["files"], found["files_total"]) == ([], 0)
    assert without_facts(found["not_known"]) == [f"The files in {RAW} were not recorded for both models."]


def test_a_comparison_names_packages_hardware_transformer_and_seed_that_differ(
    api: TestClient, registry: Registry
) -> None:
    before = of_machine(0, {"numpy": "1.26", "torch": "2.1", "old": "1.0"}, registry)
    after = of_machine(1, {"numpy": "1.26", "torch": "2.2", "new": "3.0"}, registry, gpu="A10G")
    after[-1] = InputRecord(InputKind.TRANSFORMER, "large", "9" * 64, details={"revision": "2"})
    other = made_from(registry, GOOD, facts=before)
    prefix = made_from(registry, GOOD, facts=after)
    found = api.get(f"/models/{prefix}/compare/{other}").json()["made_from"]
    assert [tuple(one.values()) for one in found["packages"]] == [
        ("new", "added", "3.0", None),
        ("old", "removed", None, "1.0"),
        ("torch", "changed", "2.2", "2.1"),
    ]
    assert found["packages_total"] == 3
    assert [tuple(one.values()) for one in found["facts"]] == [
        ("hardware", "gpu", "A10G", None),
        ("transformer", "name", "large", "mini"),
        ("transformer", "revision", "2", "1"),
        ("determinism", "seed", 1, 0),
    ]
    assert found["not_known"] == []


def test_a_comparison_says_what_an_earlier_release_did_not_record(
    api: TestClient, registry: Registry
) -> None:
    prefix = made_from(registry, GOOD, facts=of_machine(0, {"torch": "2.1"}, registry))
    other = made_from(registry, GOOD)
    found = api.get(f"/models/{prefix}/compare/{other}").json()["made_from"]
    assert (found["facts"], found["packages"]) == ([], [])
    assert found["not_known"] == [
        f"The instance type of {other} is not known.",
        f"The processor and the GPU of {other} are not known.",
        f"The revision of the transformer of {other} is not known.",
        f"The Python environment of {other} is not known.",
        f"The switches for determinism of {other} are not known.",
        f"The packages of {other} are not known.",
    ]


def test_the_lineage_shows_what_the_build_made_and_the_model_its_warnings(
    api: TestClient, registry: Registry
) -> None:
    weights = {"path": "target/model.pt", "sha256": "6" * 64, "size_bytes": 3}
    outputs: dict[StepName, dict[str, Any]] = {
        StepName.TRAIN: {
            "epochs": [{"epoch": 1, "loss": 0.5}],
            "phases": [{"phase": "embed", "seconds": 2.5}],
            "data": {"cn": {"rows": 21}},
            "warnings": ["hardly a row could be used"],
        },
        StepName.BENCHMARK: {"data": {"known": {"rows": 4}}, "warnings": ["one row was left out"]},
        StepName.COLLECT: {"files": {}, "model_files": [weights]},
    }
    prefix = made_from(registry, GOOD, outputs=outputs)
    found = api.get(f"/models/{prefix}/lineage").json()["outputs"]
    [model] = [one for one in found["files"] if one["name"] == "model.zip"]
    assert model["contents"] == [{"path": "target/model.pt", "sha256": "6" * 64, "size": 3}]
    assert found["epochs"] == [{"epoch": 1, "loss": 0.5}]
    assert found["data"] == {"train": {"cn": {"rows": 21}}, "benchmark": {"known": {"rows": 4}}}
    assert {(one["step"], one["phase"]) for one in found["timings"]} >= {
        ("train", None),
        ("train", "embed"),
        ("collect", None),
    }
    assert found["warnings"] == ["hardly a row could be used", "one row was left out"]
    assert api.get(f"/models/{prefix}").json()["warnings"] == found["warnings"]


def test_a_build_of_an_earlier_release_shows_what_little_it_stored(
    api: TestClient, registry: Registry
) -> None:
    prefix = made_from(registry, GOOD, outputs={StepName.TRAIN: {"files": {}, "metrics": {}}})
    found = api.get(f"/models/{prefix}/lineage").json()["outputs"]
    assert (found["epochs"], found["data"], found["warnings"]) == ([], {}, [])
    assert api.get(f"/models/{prefix}").json()["warnings"] == []
