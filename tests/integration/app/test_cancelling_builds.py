"""POST /builds/{id}/cancel."""

from uuid import uuid4

import pytest
from fastapi.testclient import TestClient

from app.registry.builds import ending
from app.registry.builds.lease import LeaseLost
from app.words import BuildState
from tests.integration.app.registry import Registry


def test_a_queued_build_is_cancelled_in_the_answer_and_its_prefix_is_free(
    api: TestClient, registry: Registry
) -> None:
    body = registry.body()
    build = api.post("/builds", json=body).json()["build"]
    answer = api.post(f"/builds/{build['id']}/cancel")
    assert answer.status_code == 202
    assert answer.json()["state"] == "cancelled"
    assert answer.json()["cancel_requested_by"] == "anonymous"
    assert answer.json()["finished_at"] is not None
    again = api.post("/builds", json=body).json()
    assert (again["outcome"], again["prefix"]) == ("queued", build["prefix"])


def test_a_running_build_is_taken_from_its_worker(api: TestClient, registry: Registry) -> None:
    lease = registry.take(registry.queue())
    answer = api.post(f"/builds/{lease.build_id}/cancel")
    assert answer.status_code == 202
    assert answer.json()["state"] == "running"
    assert answer.json()["cancel_requested_at"] is not None
    with pytest.raises(LeaseLost), registry.database.transaction() as session:
        ending.end(session, lease, BuildState.SUCCEEDED)
    assert registry.values("SELECT queue_name FROM procrastinate_jobs WHERE task_name = 'end_cancelled'") == [
        "cancellations"
    ]
    assert api.post(f"/builds/{lease.build_id}/cancel").json() == answer.json()


def test_a_build_that_has_ended_is_refused(api: TestClient, registry: Registry) -> None:
    build_id = registry.queue()
    registry.fail(build_id)
    answer = api.post(f"/builds/{build_id}/cancel")
    assert answer.status_code == 409
    problem = answer.json()
    assert (problem["type"], problem["state"]) == ("/problems/build-ended", "failed")
    assert problem["build"] == str(build_id)


def test_a_build_that_does_not_exist_is_not_found(api: TestClient) -> None:
    assert api.post(f"/builds/{uuid4()}/cancel").status_code == 404
