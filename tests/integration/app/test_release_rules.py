"""Rules that release models: what they let go, what their end brings back, and what happens at once."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from fastapi.testclient import TestClient
from sqlalchemy.orm import Session

from app.main import create_app
from app.registry.collection import batches, plan, rules
from app.registry.collection.batches import Outcome
from app.registry.collection.rules import RuleRequest
from app.registry.errors import CollectionRefused
from app.registry.keeping import marks
from app.settings import Settings
from app.words import Actor, ModelState, Stage
from tests.integration.app.registry import Registry
from tests.integration.app.test_marks import meanwhile, state_of
from tests.integration.app.test_plan import know_branches, settings_of
from tests.integration.worker.collection_rules import move_into_the_past

RUN = UUID(int=7)
RETIRED = "Other models have long taken its place in the stages, and a rule of an administrator releases it"


@pytest.fixture
def settings(registry: Registry) -> Settings:
    return settings_of(
        registry, gc_retire_after="P30D", gc_rollback_targets=1, gc_keep_newest_passed=0, gc_grace="P0D"
    )


@pytest.fixture
def api(settings: Settings) -> Iterator[TestClient]:
    with TestClient(create_app(settings)) as client:
        yield client


@pytest.fixture
def retired(registry: Registry) -> list[str]:
    """Two models that were in staging long ago, whose branches are gone and which nobody has released."""
    stages = (Stage.DEVELOPMENT, Stage.STAGING)
    models = [registry.model(f"0.0.{number}", branch=f"feature/{number}", stages=stages) for number in (1, 2)]
    registry.model("1.0.0", stages=stages)
    know_branches(registry)
    move_into_the_past(registry, timedelta(days=90))
    know_branches(registry)
    registry.execute(
        "INSERT INTO runs (id, kind, options, requested_by, requested_by_kind)"
        " VALUES (:id, 'collection', '{}', 'x', 'token')",
        id=RUN,
    )
    return models


def post(api: TestClient, status: int = 201, **body: str) -> dict[str, Any]:
    answer = api.post("/gc/release-rules", json={"reason": "the audit is over", **body})
    assert answer.status_code == status, answer.text
    found: dict[str, Any] = answer.json()
    return found


def end(api: TestClient, rule: str) -> dict[str, Any]:
    answer = api.delete(f"/gc/release-rules/{rule}")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def mark(session: Session, settings: Settings) -> Outcome:
    return batches.mark(session, settings, list(plan.compute(session, settings).models()), RUN)


def marking(registry: Registry, settings: Settings) -> Outcome:
    with registry.database.transaction() as session:
        return mark(session, settings)


def sweep(session: Session, settings: Settings) -> Outcome:
    return batches.begin_sweep(session, settings, batches.due(session, settings.gc_grace, None), {})


def reasons_of(api: TestClient, prefix: str) -> list[str]:
    [one] = api.get("/gc/plan", params={"prefix": prefix}).json()["items"]
    return [reason["code"] for reason in one["reasons"]]


def test_rules_are_set_listed_and_revoked(api: TestClient, retired: list[str], registry: Registry) -> None:
    nothing = post(api, versions="9.*")
    assert (nothing["models"], nothing["state"], nothing["created_by"]) == (0, "active", "anonymous")
    both = post(api, versions="0.0.*", branches="feature/*")
    assert both["models"] == len(retired)
    # Of models that never needed a release, a rule says nothing.
    registry.model("0.0.3", branch="feature/3")
    assert post(api, 200, versions="0.0.*", branches="feature/*", reason="another") == both
    assert post(api, branches="*/2")["models"] == 1
    for refused in (
        {},
        {"versions": ""},
        {"versions": "*", "reason": " \u2800"},
        {"versions": "*", "more": 1},
    ):
        answer = api.post("/gc/release-rules", json={"reason": "why", **refused})
        assert answer.status_code == 422, answer.text
    page = api.get("/gc/release-rules", params={"limit": 2}).json()
    rest = api.get("/gc/release-rules", params={"cursor": page["next"]}).json()
    assert [rule["branches"] for rule in page["items"] + rest["items"]] == ["*/2", "feature/*", None]
    revoked = end(api, both["id"])
    assert (revoked["state"], revoked["revoked_by"], revoked["id"]) == ("revoked", "anonymous", both["id"])
    assert end(api, both["id"]) == revoked
    for state, count in (("active", 2), ("revoked", 1)):
        listed = api.get("/gc/release-rules", params={"state": state}).json()["items"]
        assert [rule["state"] for rule in listed] == [state] * count
    # What was revoked stays as it was, and the same rule can be set again.
    assert post(api, versions="0.0.*", branches="feature/*")["id"] != both["id"]
    assert api.delete(f"/gc/release-rules/{UUID(int=1)}").status_code == 404
    assert registry.count("audit", "action LIKE 'release_rule%'") == 5


def test_a_rule_becomes_the_release_of_what_is_marked_by_it_until_it_is_revoked(
    api: TestClient, retired: list[str], registry: Registry, settings: Settings
) -> None:
    one, two = retired
    assert reasons_of(api, one) == ["reached_staging", "not_released"]
    before = api.get("/gc/plan").json()["digest"]
    rule = post(api, versions="0.0.*")
    found = api.get("/gc/plan").json()
    assert found["digest"] != before
    assert found["reasons"]["retired_by_rule"] == 2
    assert api.get(f"/models/{one}").json()["release"] is None
    assert marking(registry, settings).marked.keys() == {one, two}
    assert api.get("/gc/plan").json()["digest"] == found["digest"]
    shown = api.get(f"/models/{one}").json()
    assert shown["mark"]["reason"] == "retired_by_rule"
    assert shown["mark"]["why"] == f"{RETIRED}: versions 0.0.*, set by anonymous."
    assert shown["release"]["by"] == "anonymous"
    assert shown["release"]["note"] == (
        f"Released by the rule {rule['id']} of anonymous (versions 0.0.*): the audit is over"
    )
    # A person's own release does not end with the rule.
    own = api.post(f"/models/{two}/release", json={"reason": "this one too"}).json()
    assert (own["state"], own["release"]["note"]) == ("marked", "this one too")
    end(api, rule["id"])
    shown = api.get(f"/models/{one}").json()
    assert (shown["state"], shown["mark"], shown["release"]) == ("kept", None, None)
    assert reasons_of(api, one) == ["reached_staging", "not_released", "restored_recently"]
    assert reasons_of(api, two) == ["retired"]
    assert (state_of(registry, two), marking(registry, settings).marked) == ("marked", {})
    actions = registry.values("SELECT action FROM audit WHERE subject = :p ORDER BY id", p=one)
    assert actions[-4:] == ["model_released", "model_marked", "release_withdrawn", "model_restored"]


def test_the_sweep_looks_at_the_rules_again(
    api: TestClient,
    retired: list[str],
    registry: Registry,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    post(api, branches="*/1")
    # A model that the database refuses to mark was not released either.
    with monkeypatch.context() as patched:

        def refuse(*_: object) -> None:
            raise CollectionRefused("no", prefix=retired[0], rule="a rule")

        patched.setattr(marks, "mark", refuse)
        assert marking(registry, settings).refused == {retired[0]: "no"}
    assert registry.count("models", "released_at IS NOT NULL OR released_by_rule IS NOT NULL") == 0
    assert marking(registry, settings).marked.keys() == {retired[0]}
    # Whoever has revoked it, and whatever is still with the model.
    registry.execute(
        "UPDATE release_rules SET revoked_at = now(), revoked_by = 'x', revoked_by_kind = 'token'"
    )
    with registry.database.transaction() as session:
        outcome = sweep(session, settings)
    assert (outcome.sweeping, list(outcome.restored)) == ([], [retired[0]])
    assert state_of(registry, retired[0]) == ModelState.KEPT


def test_a_mark_a_sweep_and_the_end_of_a_rule_wait_for_each_other(
    api: TestClient, retired: list[str], registry: Registry, settings: Settings
) -> None:
    settings = settings.model_copy(update={"gc_minimum_age": timedelta(0)})
    wanted = RuleRequest("0.0.*", None, "the audit is over")

    def add(session: Session) -> UUID:
        return rules.add(session, "anna", Actor.TOKEN, wanted)[0].id

    def revoke(session: Session) -> None:
        rules.revoke(session, rule, "anna", Actor.TOKEN)

    def states() -> set[str]:
        return {state_of(registry, prefix) for prefix in retired}

    found: list[UUID] = []

    def add_too() -> None:
        with registry.database.transaction() as session:
            found.append(add(session))

    def revoke_too() -> None:
        with registry.database.transaction() as session:
            revoke(session)

    # The same rule is set once.
    assert meanwhile(registry, lambda session: found.append(add(session)), add_too) == "done"
    rule, same = found
    assert rule == same
    # The end of the rule waits for the marks, and finds them.
    assert meanwhile(registry, lambda session: mark(session, settings), revoke_too) == "done"
    assert states() == {"kept"}
    assert registry.count("models", "released_at IS NOT NULL") == 0
    # The marks wait for the end of the rule, and find no release.
    add_too()
    rule = found[-1]
    assert meanwhile(registry, revoke, lambda: marking(registry, settings)) == "done"
    assert states() == {"kept"}
    # Once the files are being deleted, it is too late, and the model still says why it could go.
    add_too()
    rule = found[-1]
    marking(registry, settings)
    assert meanwhile(registry, lambda session: sweep(session, settings), revoke_too) == "done"
    assert states() == {"sweeping"}
    assert registry.count("models", "released_by_rule IS NOT NULL") == 2
