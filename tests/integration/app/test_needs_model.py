"""POST /builds: does this commit need a model, and what should its author know about the version?"""

import hashlib
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.main import create_app
from app.settings import Settings
from tests.integration.app.registry import Registry, config_of, sha_of

TOML = config_of("1.0.0")


def test_a_base_without_a_version_does_not_keep_a_repair_from_building_and_the_answer_says_so(
    api: TestClient, registry: Registry
) -> None:
    answer = api.post("/builds", json=registry.body(base_search_config=config_of("v1.0.0")))
    assert answer.status_code == 202
    assert "has the version 'v1.0.0', which cannot be compared" in answer.json()["base_problem"]
    assert api.post("/builds", json=registry.body()).json()["base_problem"] is None


@pytest.mark.parametrize(
    "base",
    ["", "fatal: invalid object name 'origin/main'.", '<<<<<<< HEAD\nversion = "0.0.1"\n', "a = 1"],
    ids=["empty", "an error of git", "merge markers", "another file"],
)
def test_a_base_that_is_not_a_configuration_costs_no_build(
    api: TestClient, registry: Registry, base: str
) -> None:
    body = registry.body(base_search_config=base)
    refused = api.post("/builds", json=body)
    assert refused.status_code == 422
    problem = refused.json()
    assert (problem["type"], problem["field"]) == ("/problems/invalid-search-config", "base_search_config")
    assert "base_search_config is not a search-config.toml" in problem["detail"]
    assert set(registry.counts().values()) == {0}
    # Whoever wants to build all the same can say so, and is told what is wrong.
    forced = api.post("/builds", json=body | {"force": True})
    assert forced.status_code == 202
    assert "base_search_config is not a search-config.toml" in forced.json()["base_problem"]


def test_a_dry_run_answers_as_a_post_would_and_leaves_nothing(api: TestClient, registry: Registry) -> None:
    def ask(**more: Any) -> dict[str, Any]:
        before = registry.counts()
        answer = api.post("/builds", json=registry.body(sha=sha_of(1)) | more | {"dry_run": True})
        assert answer.status_code == 200, answer.text
        assert registry.counts() == before
        found: dict[str, Any] = answer.json()
        return found

    assert (ask()["outcome"], ask()["build"]) == ("needed", None)
    assert ask(base_search_config=TOML)["outcome"] == "not_needed"
    assert ask(base_search_config=TOML, force=True)["outcome"] == "needed"
    queued = api.post("/builds", json=registry.body(sha=sha_of(1))).json()["build"]["id"]
    assert (ask()["outcome"], ask()["build"]["id"]) == ("exists", queued)
    registry.fail(registry.values("SELECT id FROM builds")[0])
    assert ask()["outcome"] == "needed"


@pytest.mark.parametrize(
    "change", [{"sha": sha_of(1)[:7] + "f" * 33}, {"search_config": TOML + "seed = 5\n"}, {"sha": "abc"}]
)
def test_a_dry_run_is_refused_as_a_post_would_be(
    api: TestClient, registry: Registry, change: dict[str, str]
) -> None:
    api.post("/builds", json=registry.body(sha=sha_of(1)))
    body = registry.body(sha=sha_of(1)) | change
    dry, real = api.post("/builds", json=body | {"dry_run": True}), api.post("/builds", json=body)
    assert (dry.status_code, dry.json()) == (real.status_code, real.json())
    assert dry.status_code in (409, 422)


def test_a_dry_run_needs_the_same_scopes(registry: Registry) -> None:
    """Whoever may not build must not find out by trying, and a token that may only read cannot post."""
    settings = Settings.model_validate(
        {
            "database_url": registry.database.conninfo,
            "aws_endpoint_url": "http://127.0.0.1:1",
            "api_tokens": f"reader={hashlib.sha256(b'token').hexdigest()}:read",
        }
    )
    with TestClient(create_app(settings)) as api:
        body = registry.body() | {"dry_run": True}
        assert api.post("/builds", json=body).status_code == 401
        refused = api.post("/builds", json=body, headers={"Authorization": "Bearer token"})
    assert refused.json()["required_scope"] == "build"


def test_the_answer_names_values_that_changed_although_the_version_did_not_rise(
    api: TestClient, registry: Registry
) -> None:
    def changed(base: str, **more: Any) -> list[str]:
        body = registry.body(search_config=TOML + "seed = 5\n", base_search_config=base, **more)
        keys: list[str] = api.post("/builds", json=body).json()["changed_keys"]
        return keys

    assert changed(TOML) == ["seed"]
    assert changed(TOML.replace("digits = 6", "digits = 8"), dry_run=True) == ["digits", "seed"]
    assert changed(TOML, force=True) == ["seed"]
    assert changed(config_of("1.0.1")) == ["seed"]
    # Layout, comments, order and line ends are not values, and neither is a default that is written out.
    same = (
        '# of the team\r\nseed=5\r\ndigits = 6\r\nversion="1.0.0"\r\nname = "small"\r\nhidden_size = 1024\r\n'
    )
    assert changed(same) == []
    # A value may change with the version.
    assert changed(config_of("0.9.0")) == []


def test_the_answer_names_other_commits_that_have_a_model_of_the_version(
    api: TestClient, registry: Registry
) -> None:
    def others(version: str, **more: Any) -> list[str]:
        names: list[str] = api.post("/builds", json=registry.body(version, **more)).json()[
            "other_models_of_this_version"
        ]
        return names

    assert others("1.25.3") == []
    models = [registry.model("1.25.3") for _ in range(2)]
    registry.model("1.25.30")
    assert others("1.25.3") == list(reversed(models))
    assert others("1.25.3", dry_run=True) == list(reversed(models))
    assert others("1.25.3", base_search_config=config_of("1.25.3")) == list(reversed(models))
    # The model of the commit itself is not another one.
    sha = registry.value("SELECT sha FROM models WHERE prefix = :prefix", prefix=models[0])
    assert others("1.25.3", sha=sha) == [models[1]]
    registry.execute(
        "INSERT INTO builds (prefix, version, sha, branch, search_config, requested_by, state, finished_at)"
        " SELECT '1.25.3-' || left(md5(n::text), 7), '1.25.3', md5(n::text), 'main', '', 'x', 'succeeded',"
        " now() FROM generate_series(1, 50) n"
    )
    registry.execute(
        "INSERT INTO models (prefix, version, sha, branch, build_id, metrics, verdict, verdict_reason)"
        " SELECT prefix, version, sha, branch, id, '{}', 'passed', '' FROM builds WHERE search_config = ''"
    )
    assert len(others("1.25.3")) == 20


def test_a_prerelease_is_refused_where_the_registry_is_set_to(settings: Settings, registry: Registry) -> None:
    changed = settings.model_copy(update={"allow_prereleases": False})
    with TestClient(create_app(changed)) as api:
        refused = api.post("/builds", json=registry.body("1.0.0-rc.1"))
        assert refused.status_code == 422
        assert "REGISTRY_ALLOW_PRERELEASES" in refused.json()["detail"]
        assert api.post("/builds", json=registry.body("1.0.0")).status_code == 202


def test_a_prerelease_is_built_unless_the_registry_refuses_them(api: TestClient, registry: Registry) -> None:
    assert api.post("/builds", json=registry.body("1.0.0-rc.1")).status_code == 202


def test_the_answer_warns_of_what_is_valid_and_surprising(api: TestClient, registry: Registry) -> None:
    text = f'# A version\n{TOML}device = "mps"\n'
    warnings = api.post("/builds", json=registry.body(search_config=text, dry_run=True)).json()["warnings"]
    assert ["mps" in warnings[0], "line 1" in warnings[1], len(warnings)] == [True, True, 2]
    assert api.post("/builds", json=registry.body(dry_run=True)).json()["warnings"] == []
