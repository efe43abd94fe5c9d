"""GET /models/{stage}/latest and the downloads that it names, which the deploy job uses."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.db.session import Database
from app.registry.stages import history, latest
from app.registry.stages.latest import Asked
from app.settings import Settings
from app.storage import bucket as storage
from app.storage.bucket import Bucket
from app.storage.keys import artifact_key
from app.words import Stage
from local.simcloud.server import SimCloud
from tests.integration.app.registry import Registry, digest_of, listening

DEVELOPMENT, STAGING, PRODUCTION = Stage


def test_the_model_most_recently_promoted_is_named_with_its_files(
    api: TestClient, registry: Registry
) -> None:
    registry.model("1.0.0", stages=(DEVELOPMENT,))
    prefix = registry.model("1.1.0", stages=(DEVELOPMENT,))
    registry.model("1.2.0")
    answer = api.get("/models/development/latest")
    assert answer.status_code == 200
    found = answer.json()
    assert (found["prefix"], found["version"]) == (prefix, "1.1.0")
    assert found["sha"].startswith(prefix[-7:])
    assert found["verdict"] == "passed"
    assert found["promoted_by"] == "someone"
    assert found["promoted_at"].endswith("Z")
    assert found["artifacts"]["model.zip"]["sha256"] == digest_of("model.zip", 10)
    assert found["artifacts"]["model.zip"]["size"] == 10


def test_one_version_can_be_asked_for(api: TestClient, registry: Registry) -> None:
    old = registry.model("1.0.0", stages=(DEVELOPMENT,))
    registry.model("1.1.0", stages=(DEVELOPMENT,))
    assert api.get("/models/development/latest", params={"version": "1.0.0"}).json()["prefix"] == old
    missing = api.get("/models/development/latest", params={"version": "9.9.9"})
    assert missing.status_code == 404
    assert "No model of version 9.9.9 was ever promoted to development" in missing.json()["detail"]


def test_a_version_means_exactly_that_version(api: TestClient, registry: Registry) -> None:
    other = registry.model("1.25.30", stages=(DEVELOPMENT,))
    for version in ("1.25.3", "1.25", "1.25.30-rc.1", "01.25.30"):
        assert api.get("/models/development/latest", params={"version": version}).status_code == 404
    found = api.get("/models/development/latest", params={"version": "1.25.30"})
    assert found.json()["prefix"] == other


def test_a_stage_that_runs_nothing_is_not_found(api: TestClient, registry: Registry) -> None:
    registry.model(stages=(DEVELOPMENT,))
    missing = api.get("/models/production/latest")
    assert missing.status_code == 404
    assert missing.headers["content-type"] == "application/problem+json"
    assert missing.json()["type"] == "/problems/nothing-promoted"
    assert "POST /models/{prefix}/promotions" in missing.json()["detail"]


def test_an_unknown_stage_is_refused_with_the_ones_there_are(api: TestClient) -> None:
    answer = api.get("/models/moon/latest")
    assert answer.status_code == 422
    assert "'development', 'staging' or 'production'" in answer.json()["detail"]


def test_what_is_known_already_is_not_sent_again(api: TestClient, registry: Registry) -> None:
    registry.model(stages=(DEVELOPMENT,))
    tag = api.get("/models/development/latest").headers["etag"]
    assert tag.startswith("W/")
    strong = tag.removeprefix("W/")
    number = strong.strip('"')
    marked = (f'"{number}-gzip"', f'W/"{number}-br"', f'"{number};gzip"')
    for known in (tag, strong, *marked, f'"other", {tag}', "*"):
        same = api.get("/models/development/latest", headers={"If-None-Match": known})
        assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", tag)
    for other in (f'"{number}1"', f'"0{number}"', number, '""', "", "x" * 100):
        assert api.get("/models/development/latest", headers={"If-None-Match": other}).status_code == 200
    registry.model(stages=(DEVELOPMENT,))
    changed = api.get("/models/development/latest", headers={"If-None-Match": tag})
    assert changed.status_code == 200
    assert changed.headers["etag"] != tag


def test_no_cache_may_keep_an_answer_whose_urls_run_out(api: TestClient, registry: Registry) -> None:
    prefix = registry.model(stages=(DEVELOPMENT,))
    for path in ("/models/development/latest", f"/models/{prefix}/artifacts/model.zip"):
        assert api.get(path, follow_redirects=False).headers["cache-control"] == "no-store"


def test_its_urls_really_download_the_files(
    api: TestClient, registry: Registry, settings: Settings, tmp_path: Path
) -> None:
    prefix = registry.model(stages=(DEVELOPMENT,))
    content = tmp_path / "model.zip"
    content.write_bytes(b"a model")
    bucket = Bucket.of(settings)
    bucket.put_once(
        artifact_key(prefix, "model.zip"), content, storage.digest_of(content), content_type="application/zip"
    )
    url = api.get("/models/development/latest").json()["artifacts"]["model.zip"]["url"]
    assert "X-Amz-Expires=3600" in url
    assert httpx.get(url).content == b"a model"
    redirect = api.get(f"/models/{prefix}/artifacts/model.zip", follow_redirects=False)
    assert redirect.status_code == 307
    assert redirect.headers["cache-control"] == "no-store"
    assert httpx.get(redirect.headers["location"]).content == b"a model"


def test_a_url_is_signed_once_for_a_while(api: TestClient, registry: Registry) -> None:
    registry.model(stages=(DEVELOPMENT,))
    first, second = (api.get("/models/development/latest").json() for _ in range(2))
    assert first == second


def test_an_unknown_artifact_is_refused_with_the_ones_there_are(api: TestClient, registry: Registry) -> None:
    prefix = registry.model()
    answer = api.get(f"/models/{prefix}/artifacts/modle.zip", follow_redirects=False)
    assert answer.status_code == 404
    assert answer.json()["detail"] == f"Model {prefix} has no artifact 'modle.zip'. It has: model.zip."


def test_a_model_may_have_no_artifacts_left(api: TestClient, registry: Registry) -> None:
    registry.model(stages=(DEVELOPMENT,))
    registry.execute("DELETE FROM artifacts")
    assert api.get("/models/development/latest").json()["artifacts"] == {}


@pytest.mark.parametrize("version", [None, "1.0.0"])
def test_it_takes_one_statement(database: Database, registry: Registry, version: str | None) -> None:
    prefix = registry.model("1.0.0", stages=(DEVELOPMENT,))
    with database.transaction() as session, listening(database) as statements:
        assert latest.find(session, Asked(DEVELOPMENT, version)).prefix == prefix
    assert len(statements.seen) == 1


def test_a_request_takes_one_statement(api: TestClient, registry: Registry) -> None:
    registry.model(stages=(DEVELOPMENT,))
    assert isinstance(api.app, FastAPI)
    database: Database = api.app.state.database
    with listening(database) as statements, listening(database, database._reader) as read:
        assert api.get("/models/development/latest").status_code == 200
    assert (len(statements.seen), len(read.seen)) == (0, 1)


def test_a_cut_connection_is_replaced(api: TestClient, registry: Registry) -> None:
    """As after a restart of Postgres, between two requests."""
    registry.model(stages=(DEVELOPMENT,))
    for _ in range(2):
        assert api.get("/models/development/latest").status_code == 200
        registry.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    assert api.get("/models/development/latest").status_code == 200


@pytest.fixture
def many(registry: Registry) -> Registry:
    """40 models of 8 versions with 5,000 promotions."""
    for number in range(8):
        registry.model(f"1.{number}.0")
    registry.execute(
        """
        INSERT INTO builds (prefix, version, sha, branch, search_config, requested_by, state, finished_at)
        SELECT version || '-' || left(md5(version || n), 7), version, md5(version || n), 'main', '', 'x',
               'succeeded', now()
          FROM models, generate_series(1, 4) n
        """
    )
    registry.execute(
        """
        INSERT INTO models (prefix, version, sha, branch, build_id, metrics, verdict, verdict_reason)
        SELECT prefix, version, sha, branch, id, '{}', 'passed', '' FROM builds
         WHERE id NOT IN (SELECT build_id FROM models)
        """
    )
    registry.execute(
        """
        INSERT INTO promotions (model_id, version, stage, promoted_by)
        SELECT m.id, m.version, stage, 'x'
          FROM generate_series(1, 42) n, (SELECT id, version FROM models ORDER BY prefix) m,
               unnest(ARRAY['development', 'staging', 'production']) stage
        """
    )
    registry.execute("ANALYZE")
    return registry


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for below in plan.get("Plans", []):
        yield from nodes(below)


def explain(registry: Registry, stage: Stage, version: str | None = None) -> dict[str, Any]:
    query = latest.OF_STAGES if version is None else latest.OF_VERSIONS
    values = latest.parameters([Asked(stage, version)])
    with registry.database.engine.connect() as connection:
        explained = f"EXPLAIN (ANALYZE, FORMAT JSON) {query.compile(connection)}"
        plan: dict[str, Any] = connection.exec_driver_sql(explained, values).scalar_one()[0]["Plan"]
    return plan


@pytest.mark.parametrize(
    ("version", "index"),
    [(None, "ix_promotions_stage_newest"), ("1.3.0", "ix_promotions_stage_version_newest")],
)
def test_it_walks_one_index_to_its_first_row(many: Registry, version: str | None, index: str) -> None:
    plan = explain(many, PRODUCTION, version)
    (scan,) = (node for node in nodes(plan) if node.get("Relation Name") == "promotions")
    assert (scan["Node Type"], scan["Index Name"], scan["Actual Rows"]) == ("Index Scan", index, 1)
    assert scan.get("Rows Removed by Filter", 0) == 0
    sorts = [node for node in nodes(plan) if node["Node Type"] == "Sort"]
    assert not [node for sort in sorts for node in nodes(sort) if node.get("Relation Name") == "promotions"]


def test_a_stage_that_others_have_outrun_costs_no_more(many: Registry) -> None:
    """Its last promotion lies 3,000 rows back."""
    many.execute(
        "INSERT INTO promotions (model_id, version, stage, promoted_by)"
        " SELECT m.id, m.version, 'development', 'x' FROM generate_series(1, 75) n, models m"
    )
    (scan,) = (node for node in nodes(explain(many, PRODUCTION)) if node.get("Relation Name") == "promotions")
    assert scan["Actual Rows"] == 1
    assert scan.get("Rows Removed by Filter", 0) == 0


def test_it_agrees_with_sorting_everything(many: Registry) -> None:
    expected = many.value(
        "SELECT prefix FROM promotions JOIN models m ON m.id = model_id"
        " WHERE stage = 'staging' ORDER BY promoted_at DESC, promotions.id DESC LIMIT 1"
    )
    with many.database.transaction() as session:
        assert latest.find(session, Asked(STAGING)).prefix == expected
        in_production = history.running(session, PRODUCTION)
    assert in_production is not None


def test_it_needs_no_aws(api: TestClient, registry: Registry, cloud: SimCloud) -> None:
    """Signing is done here: a deployment goes on while S3 has a bad day."""
    registry.model(stages=(DEVELOPMENT,))
    cloud.faults.add("s3", code="ServiceUnavailable", status=503, times=None)
    assert api.get("/models/development/latest").status_code == 200
