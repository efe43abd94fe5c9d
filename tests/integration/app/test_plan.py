"""The plan of garbage collection, from what is in a real Postgres."""

from collections.abc import Collection, Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy.orm import Session

from app.main import create_app
from app.registry.collection import facts, plan
from app.registry.collection.kept_plan import KeptPlan
from app.registry.collection.plan import Plan
from app.registry.keeping import marks
from app.registry.keeping.marks import MarkReason
from app.settings import Settings
from app.words import KeepReason, PlanVerdict, Stage, Verdict
from tests.integration.app.registry import Registry

DEVELOPMENT, STAGING, PRODUCTION = Stage


def settings_of(registry: Registry, **more: object) -> Settings:
    given = {
        "database_url": registry.database.conninfo,
        "aws_endpoint_url": "http://127.0.0.1:1",
        "access": "open",
        "gc_keep_newest_passed": 1,
        **more,
    }
    return Settings.model_validate(given)


def planned(registry: Registry, **more: object) -> Plan:
    with registry.database.transaction() as session:
        return plan.compute(session, settings_of(registry, **more))


def reasons(found: Plan) -> dict[str, list[str]]:
    return {each.prefix: [str(reason) for reason in each.judgement.reasons] for each in found.models()}


def know_branches(registry: Registry, *names: str) -> None:
    """As a look at the git repository leaves it. Every commit has been seen, and no branch has it."""
    registry.execute("DELETE FROM git_branches")
    for name in ("main", *names):
        registry.execute("INSERT INTO git_branches VALUES (:n, repeat('a', 40), true)", n=name)
    registry.execute(
        "INSERT INTO git_repository (remote, main_branch, main_names, fetched_at, fingerprint, attempted_at)"
        " VALUES ('https://git.example.org/x', 'main', '{main}', now(), 'x', now())"
        " ON CONFLICT (id) DO UPDATE SET fetched_at = now()"
    )
    registry.execute(
        "INSERT INTO model_commits (model_id, sha) SELECT id, rpad(sha, 40, '0') FROM models"
        " ON CONFLICT DO NOTHING"
    )


def age(registry: Registry, days: int = 90) -> None:
    for column, table in (("published_at", "models"), ("finished_at", "builds")):
        registry.execute(f"UPDATE {table} SET {column} = {column} - make_interval(days => {days})")


@pytest.fixture
def models(registry: Registry) -> dict[str, str]:
    """Old models of branches that are gone, by what is special about each; the newest come last."""
    made = {
        what: registry.model(branch=f"feature/{what}", verdict=verdict, stages=stages)
        for what, verdict, stages in (
            ("plain", Verdict.FAILED, ()),
            ("former-development", Verdict.FAILED, (DEVELOPMENT,)),
            ("staged", Verdict.PASSED, (DEVELOPMENT, STAGING)),
            ("produced", Verdict.PASSED, (DEVELOPMENT, STAGING, PRODUCTION)),
            ("development", Verdict.FAILED, (DEVELOPMENT,)),
            ("lives", Verdict.FAILED, ()),
            ("held", Verdict.FAILED, ()),
            ("unseen", Verdict.FAILED, ()),
            ("pinned", Verdict.FAILED, ()),
            ("passed", Verdict.PASSED, ()),
            ("newest-passed", Verdict.PASSED, ()),
        )
    }
    know_branches(registry, "feature/lives")
    of = "model_id = (SELECT id FROM models WHERE prefix = :p)"
    registry.execute(f"UPDATE model_commits SET holders = '{{feature/x}}' WHERE {of}", p=made["held"])
    registry.execute(f"DELETE FROM model_commits WHERE {of}", p=made["unseen"])
    registry.execute(
        "UPDATE models SET pinned_at = now(), pinned_by = 'x', pinned_by_kind = 'token', pin_note = 'y'"
        " WHERE prefix = :p",
        p=made["pinned"],
    )
    age(registry)
    made["young"] = registry.model(branch="feature/young", verdict=Verdict.FAILED)
    registry.execute(
        "INSERT INTO model_commits (model_id, sha) SELECT id, sha FROM models WHERE prefix = :p",
        p=made["young"],
    )
    return made


def test_each_model_is_judged_by_what_is_recorded_of_it(registry: Registry, models: dict[str, str]) -> None:
    found = planned(registry)
    by_name = {what: reasons(found)[prefix] for what, prefix in models.items()}
    assert by_name == {
        "plain": ["branch_gone"],
        "former-development": ["branch_gone"],
        "staged": ["reached_staging"],
        "produced": ["reached_staging", "reached_production", "validation_baseline"],
        "development": ["latest_in_development"],
        "lives": ["branch_exists"],
        "held": ["commit_on_branch"],
        "unseen": ["commit_unknown"],
        "pinned": ["pinned"],
        "passed": ["branch_gone"],
        "newest-passed": ["newest_passed"],
        "young": ["too_young"],
    }
    with registry.database.transaction() as session:
        for prefix in models.values():
            [again] = plan.recheck(session, settings_of(registry), [prefix]).values()
            assert again.judgement.reasons == tuple(reasons(found)[prefix])
    # A file, and the markers of its verdict and of development.
    [one] = [each for each in found.models() if each.prefix == models["former-development"]]
    assert (one.objects, one.size_bytes) == (3, registry.value("SELECT min(size_bytes) FROM artifacts"))
    assert found.totals[PlanVerdict.DOOMED].prefixes == 3


def test_builds_that_need_a_model_keep_it(registry: Registry, models: dict[str, str]) -> None:
    insert = (
        "INSERT INTO builds (kind, reproduces, prefix, version, sha, branch, search_config, requested_by,"
        " state, finished_at, failure_step, failure_code, failure_message)"
        " SELECT 'reproduce', id, prefix, version, sha, branch, '', 'x', :s, {}, {}, {}, {} FROM models"
        " WHERE prefix = :p"
    )
    registry.execute(insert.format("NULL", "NULL", "NULL", "NULL"), s="queued", p=models["plain"])
    assert reasons(planned(registry))[models["plain"]] == ["active_reproduction"]
    registry.execute("DELETE FROM builds WHERE kind = 'reproduce'")
    ended = insert.format("now() - interval '2 hours'", "'train'", "'killed'", "'Try again.'")
    registry.execute(ended, s="failed", p=models["plain"])
    assert reasons(planned(registry))[models["plain"]] == ["retry_window"]
    assert reasons(planned(registry, retry_window="PT1H"))[models["plain"]] == ["branch_gone"]


def test_without_production_the_newest_model_that_passed_is_the_baseline(registry: Registry) -> None:
    older, newest = registry.model(branch="a"), registry.model(branch="b")
    know_branches(registry)
    age(registry)
    found = reasons(planned(registry, gc_keep_newest_passed=0))
    assert found == {older: ["branch_gone"], newest: ["validation_baseline"]}


def test_models_of_the_stages_retire_by_their_place_and_their_release(registry: Registry) -> None:
    stages = (DEVELOPMENT, STAGING)
    prefixes = [registry.model(branch="gone", verdict=Verdict.FAILED) for _ in range(4)]
    for prefix in prefixes:
        registry.execute("UPDATE models SET verdict = 'passed' WHERE prefix = :p", p=prefix)
        for stage in stages:
            registry.promote(prefix, stage)
    know_branches(registry)
    age(registry)
    retiring = {"gc_retire_after": "P30D", "gc_rollback_targets": 2, "gc_keep_newest_passed": 0}
    assert reasons(planned(registry, **retiring))[prefixes[0]] == [
        "reached_staging",
        "not_released",
        "superseded_recently",
    ]
    registry.execute("ALTER TABLE promotions DISABLE TRIGGER USER")
    registry.execute("UPDATE promotions SET promoted_at = promoted_at - interval '90 days'")
    registry.execute(
        "UPDATE models SET released_at = now(), released_by = 'x', released_by_kind = 'token',"
        " release_note = 'y'"
    )
    found = reasons(planned(registry, **retiring))
    assert found[prefixes[0]] == found[prefixes[1]] == ["retired"]
    assert found[prefixes[2]] == ["reached_staging", "rollback_target"]
    # A release covers only promotions that are older than it.
    registry.execute(
        "UPDATE models SET released_at = now() - interval '91 days' WHERE prefix = :p", p=prefixes[0]
    )
    assert "not_released" in reasons(planned(registry, **retiring))[prefixes[0]]


def test_old_knowledge_of_the_branches_dooms_nothing(registry: Registry, models: dict[str, str]) -> None:
    registry.execute("UPDATE git_repository SET fetched_at = now() - interval '61 minutes'")
    found = planned(registry)
    assert found.totals[PlanVerdict.DOOMED].prefixes == 0
    assert reasons(found)[models["plain"]] == [KeepReason.BRANCHES_UNKNOWN]


def test_branches_that_change_while_the_plan_is_computed_doom_nothing(
    registry: Registry, models: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    read = facts.rows

    def read_late(session: Session, prefixes: Collection[str] | None = None) -> list[facts.Plain]:
        registry.execute("UPDATE git_repository SET fingerprint = 'another'")
        return read(session, prefixes)

    monkeypatch.setattr(facts, "rows", read_late)
    assert planned(registry).totals[PlanVerdict.DOOMED].prefixes == 0
    # The next plan finds the new ones from its beginning on.
    assert planned(registry).totals[PlanVerdict.DOOMED].prefixes == 3


def test_a_mark_does_not_change_the_digest_and_a_collected_model_leaves_the_plan(
    registry: Registry, models: dict[str, str]
) -> None:
    before = planned(registry)
    with registry.database.transaction() as session:
        [doomed] = plan.recheck(session, settings_of(registry), [models["plain"]]).values()
        marks.mark(session, doomed.model_id, MarkReason("branch_gone", "gone"), None)
    assert planned(registry).digest == before.digest
    with registry.database.transaction() as session:
        marks.begin_sweep(session, doomed.model_id, {})
    after = planned(registry)
    assert after.digest != before.digest
    assert models["plain"] not in reasons(after)


def test_the_sizes_of_models_follow_their_files(registry: Registry, models: dict[str, str]) -> None:
    counted = (
        "SELECT bool_and(file_count = files AND file_bytes = bytes) FROM models JOIN (SELECT model_id,"
        " count(*) AS files, sum(size_bytes) AS bytes FROM artifacts GROUP BY model_id) f ON model_id = id"
    )
    assert registry.value(counted)
    registry.execute("UPDATE artifacts SET size_bytes = size_bytes + 7, missing_since = now()")
    assert registry.value(counted)
    registry.execute(
        "DELETE FROM artifacts WHERE model_id = (SELECT id FROM models WHERE prefix = :p)", p=models["plain"]
    )
    assert registry.value(counted)
    assert registry.value("SELECT file_bytes FROM models WHERE prefix = :p", p=models["plain"]) == 0


@pytest.fixture
def api(registry: Registry) -> Iterator[TestClient]:
    with TestClient(create_app(settings_of(registry))) as client:
        yield client


def test_the_plan_is_paged_and_says_the_same_of_the_whole_on_each_page(
    api: TestClient, registry: Registry, models: dict[str, str]
) -> None:
    whole = api.get("/gc/plan").json()
    assert [item["prefix"] for item in whole["items"]] == list(reversed(models.values()))
    assert whole["doomed"]["prefixes"] + whole["kept"]["prefixes"] == len(models)
    assert whole["branches"]["current"]
    assert whole["reasons"]["branch_gone"] == 3
    items: list[Any] = []
    page: dict[str, Any] = {"next": None}
    while not items or page["next"]:
        page = api.get("/gc/plan", params={"limit": 5, **({"cursor": page["next"]} if items else {})}).json()
        assert [page[name] for name in ("digest", "doomed", "kept", "reasons")] == [
            whole[name] for name in ("digest", "doomed", "kept", "reasons")
        ]
        items += page["items"]
    assert items == whole["items"]
    # Pages follow the first one, whatever changes meanwhile, unless the plan is not kept any more.
    first = api.get("/gc/plan", params={"limit": 5}).json()
    registry.execute("UPDATE git_branches SET name = 'feature/plain' WHERE name = 'feature/lives'")
    second = api.get("/gc/plan", params={"limit": 5, "cursor": first["next"]}).json()
    assert (second["computed_at"], second["items"]) == (first["computed_at"], whole["items"][5:10])
    api.app.state.kept_plan = KeptPlan()  # type: ignore[attr-defined]
    anew = api.get("/gc/plan", params={"limit": 5, "cursor": first["next"]}).json()
    assert anew["digest"] != first["digest"]
    assert [item["prefix"] for item in anew["items"]] == [item["prefix"] for item in second["items"]]
    registry.execute("UPDATE git_branches SET name = 'feature/lives' WHERE name = 'feature/plain'")
    doomed = api.get("/gc/plan", params={"verdict": "doomed"}).json()["items"]
    assert [item["prefix"] for item in doomed] == [
        models[name] for name in ("passed", "former-development", "plain")
    ]
    [one] = api.get("/gc/plan", params={"prefix": models["lives"]}).json()["items"]
    assert one["reasons"] == [{"code": "branch_exists", "text": "Its branch exists: feature/lives."}]
    assert api.get("/gc/plan", params={"prefix": "9.9.9-0000000"}).json()["items"] == []


def test_before_any_look_at_the_branches_the_plan_says_so(api: TestClient, registry: Registry) -> None:
    prefix = registry.model(verdict=Verdict.FAILED)
    age(registry)
    found = api.get("/gc/plan").json()
    assert (found["doomed"]["prefixes"], found["branches"]["current"]) == (0, False)
    assert "No worker" in found["branches"]["problem"]
    assert [reason["code"] for reason in found["items"][0]["reasons"]] == ["branches_unknown"]
    assert found["items"][0]["prefix"] == prefix
