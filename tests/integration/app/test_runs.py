"""Runs as the API shows them: asked for, followed, stopped, one of each kind at a time."""

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from fastapi.testclient import TestClient
from sqlalchemy.orm import Session

from app.main import create_app
from app.registry.builds.lease import LeaseLost
from app.registry.runs import lifecycle
from app.registry.runs.lifecycle import RunLease
from app.settings import Settings, Token
from app.words import Access, RunKind
from tests.integration.app.registry import Registry

DURATION = timedelta(minutes=5)


def ask(api: TestClient, path: str = "/imports", **body: Any) -> dict[str, Any]:
    answer = api.post(path, json=body)
    assert answer.status_code == 202, answer.text
    return dict(answer.json())


def take(registry: Registry, run_id: str, duration: timedelta = DURATION) -> RunLease:
    with registry.database.transaction() as session:
        lease = lifecycle.take(session, UUID(run_id), duration, list(RunKind))
    assert lease is not None
    return lease


def save(registry: Registry, lease: RunLease) -> None:
    with registry.database.transaction() as session:
        lifecycle.save(session, lease, {"after": "x"}, {"prefixes": 1}, {"adopted": 1})


def test_a_run_is_queued_with_what_was_asked_for(api: TestClient, registry: Registry) -> None:
    made = ask(api, dry_run=True)
    assert (made["kind"], made["state"], made["requested_by"]) == ("import", "queued", "anonymous")
    assert made["options"] == {"dry_run": True, "digests": True}
    assert registry.value("SELECT args->>'run_id' FROM procrastinate_jobs") == made["id"]
    assert registry.value("SELECT queue_name FROM procrastinate_jobs") == "runs"
    assert api.get(f"/runs/{made['id']}").json() == made


def test_a_process_that_has_asked_for_many_runs_can_ask_for_another(api: TestClient) -> None:
    # After some executions on a connection, Postgres plans a statement once for all parameters.
    for _ in range(15):
        made = ask(api)
        assert api.post(f"/runs/{made['id']}/stop").json()["state"] == "stopped"


def test_runs_are_listed_newest_first_and_by_kind_and_state(api: TestClient) -> None:
    first, second = ask(api), ask(api, "/mirror/reconcile")
    api.post(f"/runs/{first['id']}/stop")
    third = ask(api)
    page = api.get("/runs?limit=2").json()
    assert [run["id"] for run in page["items"]] == [third["id"], second["id"]]
    rest = api.get("/runs", params={"limit": 2, "cursor": page["next"]}).json()
    assert [run["id"] for run in rest["items"]] == [first["id"]]
    of_kind = api.get("/runs?kind=reconciliation").json()["items"]
    assert [run["id"] for run in of_kind] == [second["id"]]
    assert [run["id"] for run in api.get("/runs?state=stopped").json()["items"]] == [first["id"]]
    between = {"since": second["created_at"], "until": third["created_at"]}
    assert [run["id"] for run in api.get("/runs", params=between).json()["items"]] == [second["id"]]


def test_the_list_has_the_counts_of_a_result_and_the_run_itself_has_what_it_names(
    api: TestClient, registry: Registry
) -> None:
    run = ask(api)
    lease = take(registry, run["id"])
    result = {"adopted": 1, "adopted_prefixes": ["1.0.0-aaaaaaa"]}
    with registry.database.transaction() as session:
        lifecycle.save(session, lease, {}, {}, result)
    assert api.get("/runs").json()["items"][0]["result"] == {"adopted": 1}
    assert api.get(f"/runs/{run['id']}").json()["result"] == result


def test_of_each_kind_one_run_is_under_way_however_many_ask(api: TestClient, registry: Registry) -> None:
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: api.post("/imports", json={}), range(8)))
    assert sorted(answer.status_code for answer in answers) == [202, *[409] * 7]
    problem = next(answer for answer in answers if answer.status_code == 409).json()
    assert problem["type"] == "/problems/run-active"
    assert problem["run"] == str(registry.value("SELECT id FROM runs"))
    assert registry.count("procrastinate_jobs") == 1
    ask(api, "/mirror/reconcile")


def test_a_run_that_does_not_exist_is_not_found(api: TestClient) -> None:
    nobody = "6f1c2b7e-0d5a-4c39-9a51-3e0c9d1f7b42"
    assert api.get(f"/runs/{nobody}").json()["type"] == "/problems/not-found"
    assert api.post(f"/runs/{nobody}/stop").status_code == 404


def test_a_queued_run_is_stopped_at_once_and_no_worker_takes_it(api: TestClient, registry: Registry) -> None:
    run = ask(api)
    stopped = api.post(f"/runs/{run['id']}/stop")
    assert (stopped.status_code, stopped.json()["state"]) == (200, "stopped")
    assert api.post(f"/runs/{run['id']}/stop").json() == stopped.json()
    with registry.database.transaction() as session:
        assert lifecycle.take(session, UUID(run["id"]), DURATION, list(RunKind)) is None


def test_a_worker_writes_nothing_for_a_run_that_was_stopped(api: TestClient, registry: Registry) -> None:
    run = ask(api)
    lease = take(registry, run["id"])
    save(registry, lease)
    shown = api.post(f"/runs/{run['id']}/stop").json()
    assert (shown["progress"], shown["result"]) == ({"prefixes": 1}, {"adopted": 1})
    writes: list[Callable[[Session], None]] = [
        lambda session: lifecycle.save(session, lease, {}, {}, {}),
        lambda session: lifecycle.renew(session, lease, DURATION),
        lambda session: lifecycle.succeed(session, lease),
        lambda session: lifecycle.put_off(session, lease, "late", counts=True),
    ]
    for write in writes:
        with pytest.raises(LeaseLost), registry.database.transaction() as session:
            write(session)
    assert api.get(f"/runs/{run['id']}").json() == shown


def test_a_worker_whose_lease_ran_out_cannot_write_over_its_successor(
    api: TestClient, registry: Registry
) -> None:
    run = ask(api)
    first = take(registry, run["id"], timedelta(seconds=-1))
    second = take(registry, run["id"])
    with pytest.raises(LeaseLost):
        save(registry, first)
    save(registry, second)
    with registry.database.transaction() as session:
        lifecycle.succeed(session, second)
    ended = api.get(f"/runs/{run['id']}").json()
    assert (ended["state"], ended["result"]) == ("succeeded", {"adopted": 1})


def test_a_run_that_gets_no_further_fails_with_what_stopped_its_workers(
    api: TestClient, registry: Registry
) -> None:
    run = ask(api)
    for _ in range(10):
        lease = take(registry, run["id"])
        with registry.database.transaction() as session:
            lifecycle.put_off(session, lease, "KeyError: 'x'", counts=True)
    assert api.get(f"/runs/{run['id']}").json()["waits_for"] == "KeyError: 'x'"
    with registry.database.transaction() as session:
        assert lifecycle.take(session, UUID(run["id"]), DURATION, list(RunKind)) is None
    ended = api.get(f"/runs/{run['id']}").json()
    assert (ended["state"], ended["waits_for"]) == ("failed", None)
    assert "KeyError: 'x'" in ended["failure"]


def test_a_run_waits_out_an_outage_however_often_it_is_tried(api: TestClient, registry: Registry) -> None:
    run = ask(api)
    for _ in range(15):
        lease = take(registry, run["id"])
        with registry.database.transaction() as session:
            lifecycle.put_off(session, lease, "CloudUnavailable: 503", counts=False)
    assert api.get(f"/runs/{run['id']}").json()["state"] == "running"


def test_an_active_run_without_worker_and_job_is_enqueued_again(api: TestClient, registry: Registry) -> None:
    run = ask(api)
    ask(api, "/mirror/reconcile")
    registry.execute("DELETE FROM procrastinate_jobs WHERE args->>'run_id' = :id", id=run["id"])
    for again in (1, 0):
        with registry.database.transaction() as session:
            assert lifecycle.requeue_unattended(session) == again
    assert registry.count("procrastinate_jobs") == 2


def test_a_worker_leaves_kinds_that_it_does_not_know_to_newer_ones(
    api: TestClient, registry: Registry
) -> None:
    run = ask(api)
    with registry.database.transaction() as session:
        assert lifecycle.take(session, UUID(run["id"]), DURATION, [RunKind.COLLECTION]) is None
    take(registry, run["id"])


@pytest.mark.parametrize("path", ["/imports", "/mirror/reconcile"])
def test_asking_for_and_stopping_a_run_needs_the_scope_admin(
    settings: Settings, registry: Registry, path: str
) -> None:
    entries = [
        Token.parse(f"{name}={hashlib.sha256(name.encode()).hexdigest()}:{scopes}")
        for name, scopes in (("chief", "admin"), ("other", "build+collect+override"))
    ]
    changed = settings.model_copy(update={"access": Access.READS, "api_tokens": tuple(entries)})
    with TestClient(create_app(changed)) as api:
        refused = api.post(path, json={}, headers={"Authorization": "Bearer other"})
        assert (refused.status_code, refused.json()["required_scope"]) == (403, "admin")
        run = api.post(path, json={}, headers={"Authorization": "Bearer chief"}).json()
        assert (run["requested_by"], run["requested_by_kind"]) == ("chief", "token")
        stop = f"/runs/{run['id']}/stop"
        assert api.post(stop).status_code == 401
        assert api.post(stop, headers={"Authorization": "Bearer other"}).status_code == 403
        stopped = api.post(stop, headers={"Authorization": "Bearer chief"}).json()
        assert (stopped["state"], stopped["stopped_by"]) == ("stopped", "chief")


def test_the_backlog_of_the_mirror_is_empty_at_first(unchanged_api: TestClient) -> None:
    assert unchanged_api.get("/mirror").json() == {"waiting": 0, "since": None, "first": []}
