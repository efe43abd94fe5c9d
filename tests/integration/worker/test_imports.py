"""Imports: the models of a bucket that other tools have filled become the registry's own."""

import io
import json
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from fastapi.testclient import TestClient

from app.aws import CloudUnavailable
from app.db.session import Database
from app.registry import mirror as keys_to_look_at
from app.registry.prefixes import Prefix
from app.registry.runs import imports, lifecycle
from app.storage.bucket import Bucket
from app.words import Actor, RunKind, Stage
from local.simcloud.server import SimCloud
from tests.integration.app.registry import Registry
from tests.integration.worker.conftest import CONFIG
from tests.integration.worker.old_bucket import put, put_model
from worker import mirror
from worker.clouds import Clouds
from worker.errors import HandOver
from worker.runner import Runner
from worker.runs.carrying import RunCarrier

DEVELOPMENT, STAGING, PRODUCTION = Stage
YEAR_AGO = datetime(2025, 11, 1, 12, 0, tzinfo=UTC)


@pytest.fixture
def registry(database: Database) -> Registry:
    return Registry(database)


@pytest.fixture
def bucket(clients: Clouds) -> Bucket:
    return clients.bucket


@pytest.fixture
def import_models(database: Database, carrier: RunCarrier) -> Callable[..., dict[str, Any]]:
    """Imports, and returns the result."""

    def import_models(**options: bool) -> dict[str, Any]:
        run_id = ask(database, **options)
        carrier.carry(run_id)
        return ended(database, run_id)

    return import_models


def ask(database: Database, **options: bool) -> UUID:
    with database.transaction() as session:
        return lifecycle.request(session, RunKind.IMPORT, options, "somebody", Actor.TOKEN).id


def ended(database: Database, run_id: UUID) -> dict[str, Any]:
    with database.transaction() as session:
        run = lifecycle.get(session, run_id)
        assert run.state == "succeeded", (run.state, run.failure, run.last_error)
        assert run.result is not None
        return run.result


def test_a_model_of_other_tools_is_shown_with_what_its_objects_say(
    bucket: Bucket, api: TestClient, import_models: Callable[..., dict[str, Any]]
) -> None:
    put_model(
        bucket,
        "0.0.2-aff1242",
        at=YEAR_AGO,
        markers={"development": YEAR_AGO + timedelta(days=1), "staging": YEAR_AGO + timedelta(days=2)},
        files={"benchmark_results.zip": b"not a zip", "check_result.json": b"{}", "notes.txt": b"kept"},
    )
    result = import_models()
    assert (result["adopted"], result["promotions"], result["digests"]) == (1, 2, 5)
    model = api.get("/models/0.0.2-aff1242").json()
    assert (model["origin"], model["version"], model["sha"]) == ("imported", "0.0.2", "aff1242")
    assert (model["build"], model["branch"], model["verdict"]) == (None, None, "unknown")
    assert model["published_at"] == "2025-11-01T12:00:00Z"
    assert model["metrics"] == {"everyday": {"count": 200, "top_1": 0.62, "no_result": 0.05}}
    assert [file["name"] for file in model["artifacts"]] == [
        "benchmark_results.xml",
        "benchmark_results.zip",
        "check_result.json",
        "model.zip",
        "search-config.toml",
    ]
    assert all(len(file["sha256"]) == 64 for file in model["artifacts"])
    assert [
        (one["stage"], one["promoted_at"], one["promoted_by"], one["promoted_by_kind"])
        for one in model["promotions"]
    ] == [
        ("development", "2025-11-02T12:00:00Z", "import", "system"),
        ("staging", "2025-11-03T12:00:00Z", "import", "system"),
    ]
    latest = api.get("/models/staging/latest").json()
    assert latest["prefix"] == "0.0.2-aff1242"
    assert set(latest["artifacts"]) == {file["name"] for file in model["artifacts"]}


@pytest.mark.parametrize(
    ("markers", "verdict"),
    [
        ({}, "unknown"),
        ({"passed": YEAR_AGO}, "passed"),
        ({"failed": YEAR_AGO}, "failed"),
        ({"failed": YEAR_AGO, "passed": YEAR_AGO + timedelta(hours=1)}, "passed"),
        ({"passed": YEAR_AGO, "failed": YEAR_AGO + timedelta(hours=1)}, "failed"),
        ({"passed": YEAR_AGO, "failed": YEAR_AGO}, "failed"),
    ],
)
def test_the_verdict_is_that_of_the_newest_marker(
    bucket: Bucket,
    registry: Registry,
    import_models: Callable[..., dict[str, Any]],
    markers: dict[str, datetime],
    verdict: str,
) -> None:
    put_model(bucket, "1.0.0-aaaaaaa", markers=markers)
    import_models()
    assert registry.value("SELECT verdict FROM models") == verdict


def test_a_second_import_changes_nothing(
    bucket: Bucket, registry: Registry, import_models: Callable[..., dict[str, Any]]
) -> None:
    put_model(bucket, "1.0.0-aaaaaaa", markers={"development": YEAR_AGO, "passed": YEAR_AGO})
    put_model(bucket, "1.1.0-bbbbbbb")
    import_models()

    def everything() -> list[Any]:
        return [
            registry.values(f"SELECT t::text FROM {table} t ORDER BY 1")
            for table in ("models", "artifacts", "promotions", "outbox")
        ]

    before, objects = everything(), list(bucket.listed())
    result = import_models()
    assert (result["adopted"], result["known"], result["digests"]) == (0, 2, 0)
    assert everything() == before
    assert list(bucket.listed()) == objects


def test_a_dry_run_shows_what_would_come_in_and_records_nothing(
    bucket: Bucket, registry: Registry, import_models: Callable[..., dict[str, Any]]
) -> None:
    put_model(bucket, "1.0.0-aaaaaaa", markers={"production": YEAR_AGO})
    result = import_models(dry_run=True)
    assert (result["adopted"], result["promotions"]) == (1, 1)
    assert result["adopted_prefixes"] == ["1.0.0-aaaaaaa"]
    assert registry.count("models") == registry.count("promotions") == 0


def test_what_is_not_a_model_of_other_tools_is_left_out_with_a_reason(
    bucket: Bucket, registry: Registry, import_models: Callable[..., dict[str, Any]], tmp_path: Any
) -> None:
    put_model(bucket, "1.0.0-aaaaaaa", files={"model.zip": None})
    put_model(bucket, "1.0.1-aaaaaaa", files={"search-config.toml": b"\xff\x00 = ["})
    put_model(bucket, "1.0.2-aaaaaaa", files={"search-config.toml": b'version = "1.0.3"'})
    put_model(bucket, "1.0.4-aaaaaaa", files={"model.zip": b""})
    registry.queue("1.0.5", "a" * 40)
    put_model(bucket, "1.0.5-aaaaaaa")
    bucket._client.put_object(
        Bucket=bucket.name,
        Key="1.0.6-aaaaaaa/search-config.toml",
        Body=b'version = "1.0.6"',
        Metadata={"build-id": "b" * 36},
    )
    put(bucket, "1.0.6-aaaaaaa/model.zip", b"of another registry")
    for key in ("raw_data_sources.zip", "reports/model.zip", "inputs/sha256/ab", "v1/x/model.zip"):
        put(bucket, key, b"something")
    result = import_models()
    assert result["adopted"] == 0
    assert {one["prefix"]: one["reason"] for one in result["left_out_prefixes"]} == {
        "1.0.0-aaaaaaa": "no_model",
        "1.0.1-aaaaaaa": "config_unreadable",
        "1.0.2-aaaaaaa": "version_differs",
        "1.0.4-aaaaaaa": "no_model",
        "1.0.5-aaaaaaa": "build_under_way",
        "1.0.6-aaaaaaa": "written_by_a_registry",
    }
    assert result["left_out"] == 6


def test_an_old_marker_does_not_change_what_a_stage_runs(
    bucket: Bucket, registry: Registry, api: TestClient, import_models: Callable[..., dict[str, Any]]
) -> None:
    running = registry.model("2.0.0", stages=(DEVELOPMENT, STAGING, PRODUCTION))
    put_model(bucket, "1.0.0-aaaaaaa", markers=dict.fromkeys(Stage, YEAR_AGO))
    put_model(bucket, "1.1.0-aaaaaaa", markers={"staging": YEAR_AGO + timedelta(days=5)})
    import_models()
    for stage in Stage:
        assert api.get(f"/models/{stage}/latest").json()["prefix"] == running
    assert api.get("/models/staging/latest?version=1.1.0").json()["prefix"] == "1.1.0-aaaaaaa"


def test_of_several_markers_the_newest_says_what_runs(
    bucket: Bucket, api: TestClient, import_models: Callable[..., dict[str, Any]]
) -> None:
    for position, prefix in enumerate(("1.0.0-ccccccc", "1.1.0-aaaaaaa", "1.2.0-bbbbbbb")):
        put_model(bucket, prefix, markers={"production": YEAR_AGO + timedelta(days=(5, 9, 1)[position])})
    import_models()
    assert api.get("/models/production/latest").json()["prefix"] == "1.1.0-aaaaaaa"


def test_without_digests_they_are_computed_by_a_later_import(
    bucket: Bucket,
    registry: Registry,
    api: TestClient,
    import_models: Callable[..., dict[str, Any]],
) -> None:
    put_model(bucket, "1.0.0-aaaaaaa", markers={"development": YEAR_AGO})
    assert import_models(digests=False)["digests"] == 0
    shown = api.get("/models/development/latest").json()["artifacts"]["model.zip"]
    assert (shown["sha256"], shown["size"]) == (None, len(b"the model 1.0.0-aaaaaaa"))
    assert import_models()["digests"] == 3
    assert registry.count("artifacts", "sha256 IS NULL") == 0


def test_a_file_that_changed_after_its_import_gets_no_digest_and_counts_as_gone(
    bucket: Bucket, registry: Registry, import_models: Callable[..., dict[str, Any]]
) -> None:
    put_model(bucket, "1.0.0-aaaaaaa")
    import_models(digests=False)
    put(bucket, "1.0.0-aaaaaaa/model.zip", b"shorter")
    bucket.delete("1.0.0-aaaaaaa/search-config.toml")
    assert import_models()["digests"] == 1
    assert registry.values("SELECT name FROM artifacts WHERE missing_since IS NOT NULL ORDER BY name") == [
        "model.zip",
        "search-config.toml",
    ]


def test_the_teams_figures_are_read_from_their_archive_where_there_is_no_xml(
    bucket: Bucket, registry: Registry, import_models: Callable[..., dict[str, Any]]
) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(
            "benchmarking_data/results/benchmark_results_classified.json",
            json.dumps({"result1Percent": 62.5, "inTop5Percent": 80, "answeredPercent": 90}),
        )
    put_model(
        bucket,
        "1.0.0-aaaaaaa",
        files={"benchmark_results.xml": None, "benchmark_results.zip": packed.getvalue()},
    )
    import_models()
    assert registry.value("SELECT metrics FROM models") == {
        "classified": {"top_1": 0.625, "top_5": 0.8, "no_result": pytest.approx(0.1)}
    }


def test_more_than_a_thousand_keys_are_read(
    bucket: Bucket, registry: Registry, import_models: Callable[..., dict[str, Any]]
) -> None:
    versions = [f"1.{minor}.0" for minor in range(410)]
    for version in versions:
        put_model(bucket, f"{version}-aaaaaaa", files={"benchmark_results.xml": None})
        put(bucket, f"{version}-aaaaaaa/development")
    assert sum(1 for _ in bucket.list()) == 1230
    result = import_models(digests=False)
    assert (result["prefixes"], result["adopted"], result["promotions"]) == (410, 410, 410)
    assert registry.count("models") == 410


def test_a_run_that_was_handed_over_goes_on_where_it_was(
    bucket: Bucket, database: Database, carrier: RunCarrier, registry: Registry, cloud: SimCloud
) -> None:
    for minor in range(210):
        put_model(
            bucket, f"1.{minor}.0-aaaaaaa", files={"benchmark_results.xml": None, "search-config.toml": None}
        )
    run_id = ask(database, digests=False)
    # The second part's first object cannot be read.
    fault = cloud.faults.add(
        "s3", "HeadObject", code="InternalError", status=500, times=None, match="1.99.0-aaaaaaa"
    )
    with pytest.raises(CloudUnavailable):
        carrier.carry(run_id)
    assert registry.count("models") == 200
    with database.transaction() as session:
        run = lifecycle.get(session, run_id)
        assert (run.state, run.takings) == ("running", 0)
        assert "500" in (run.last_error or "")
    cloud.faults.remove(fault)
    carrier.carry(run_id)
    assert ended(database, run_id)["adopted"] == registry.count("models") == 210


def test_a_stopped_run_changes_nothing_any_more(
    bucket: Bucket, database: Database, carrier: RunCarrier, registry: Registry, api: TestClient
) -> None:
    put_model(bucket, "1.0.0-aaaaaaa")
    run_id = ask(database)
    read = bucket.fetch

    def fetch(key: str, limit_bytes: int) -> Any:
        assert api.post(f"/runs/{run_id}/stop").json()["state"] == "stopped"
        return read(key, limit_bytes)

    carrier.runner.clouds.bucket.fetch = fetch  # type: ignore[method-assign]
    carrier.carry(run_id)
    assert registry.count("models") == 0
    run = api.get(f"/runs/{run_id}").json()
    assert (run["state"], run["stopped_by"]) == ("stopped", "anonymous")
    assert run["finished_at"] is not None


def test_a_worker_that_is_being_stopped_hands_its_run_over(
    bucket: Bucket, database: Database, carrier: RunCarrier, registry: Registry
) -> None:
    put_model(bucket, "1.0.0-aaaaaaa")
    run_id = ask(database)
    carrier.runner.stopping.set()
    with pytest.raises(HandOver):
        carrier.carry(run_id)
    carrier.runner.stopping.clear()
    carrier.carry(run_id)
    assert ended(database, run_id)["adopted"] == 1


def test_the_mirror_leaves_the_objects_of_an_imported_model_as_they_are(
    bucket: Bucket, database: Database, registry: Registry, import_models: Callable[..., dict[str, Any]]
) -> None:
    put_model(bucket, "1.0.0-aaaaaaa", markers={"development": YEAR_AGO, "passed": YEAR_AGO})
    before = list(bucket.listed())
    import_models()
    with database.transaction() as session:
        keys_to_look_at.ask(session, *(item.key for item in before))
    mirror.drain(database, bucket)
    assert list(bucket.listed()) == before
    assert registry.count("outbox") == 0


def test_an_imported_model_can_be_promoted_and_gets_its_marker(
    bucket: Bucket, database: Database, api: TestClient, import_models: Callable[..., dict[str, Any]]
) -> None:
    put_model(bucket, "1.0.0-aaaaaaa")
    import_models()
    answer = api.post("/models/1.0.0-aaaaaaa/promotions", json={"stage": "development"})
    assert answer.status_code == 201
    mirror.drain(database, bucket)
    assert bucket.head("1.0.0-aaaaaaa/development") is not None


def test_a_post_for_an_imported_prefix_says_that_its_model_exists(
    bucket: Bucket, registry: Registry, api: TestClient, import_models: Callable[..., dict[str, Any]]
) -> None:
    sha = "abcdef0" + "1" * 33
    body = registry.body("1.0.0", sha)
    put_model(bucket, "1.0.0-abcdef0", files={"search-config.toml": body["search_config"].encode()})
    import_models()
    answer = api.post("/builds", json=body)
    assert (answer.status_code, answer.json()["outcome"], answer.json()["build"]) == (200, "exists", None)
    other = api.post("/builds", json=body | {"search_config": body["search_config"] + "max_epochs = 3\n"})
    assert (other.status_code, other.json()["keys"]) == (409, ["max_epochs"])
    assert registry.count("builds") == 0


def test_a_post_that_races_with_an_import_launches_nothing_and_the_model_stays(
    bucket: Bucket,
    registry: Registry,
    api: TestClient,
    cloud: SimCloud,
    head: str,
    post: Callable[..., UUID],
    new_runner: Callable[[], Runner],
) -> None:
    prefix = Prefix("0.0.2", head[:7])
    config = CONFIG.format(version="0.0.2")
    put_model(bucket, str(prefix), files={"search-config.toml": config.encode()})
    objects = {there.key.partition("/")[2]: there for there in bucket.listed(f"{prefix}/")}
    found = imports.interpret(prefix, objects, config.encode(), {})
    assert isinstance(found, imports.FoundModel)
    with registry.database.transaction() as importing:
        assert imports.adopt(importing, [found]) == [found]
        # Neither transaction sees what the other one has not committed yet.
        build_id = post("0.0.2")
    new_runner().carry(build_id)
    build = api.get(f"/builds/{build_id}").json()
    assert (build["state"], build["failure"]["code"]) == ("failed", "prefix_taken")
    assert build["launches"] == []
    assert cloud.instances() == []
    assert api.get(f"/models/{prefix}").json()["origin"] == "imported"
    assert {there.key for there in bucket.listed(f"{prefix}/")} == {one.key for one in objects.values()}
    body = {"sha": head, "branch": "main", "search_config": config}
    assert api.post("/builds", json=body).json()["outcome"] == "exists"
