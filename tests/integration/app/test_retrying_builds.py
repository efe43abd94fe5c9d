"""POST /builds/{id}/retry."""

from collections.abc import Callable
from dataclasses import fields
from typing import Any
from uuid import UUID, uuid4

import pytest
from fastapi.testclient import TestClient

from app.registry.builds.queueing import NewBuild
from tests.integration.app.registry import Registry, sha_of


def failed(registry: Registry, sha: str | None = None) -> UUID:
    build_id = registry.queue(sha=sha)
    registry.fail(build_id)
    return build_id


def test_a_failed_build_is_queued_again_with_all_that_was_posted(api: TestClient, registry: Registry) -> None:
    body = registry.body(promote_to="development", force=True, base_search_config='version = "0.0.1"\n')
    first = api.post("/builds", json=body).json()["build"]
    registry.fail(UUID(first["id"]))
    assert api.get(f"/builds/{first['id']}").json()["retry_with"] == f"POST /builds/{first['id']}/retry"

    answer = api.post(f"/builds/{first['id']}/retry")
    assert answer.status_code == 202
    again = answer.json()
    assert (again["state"], again["retry_of"], again["retry_with"]) == ("queued", first["id"], None)
    assert again["id"] != first["id"]

    def posted(build_id: str) -> dict[str, Any]:
        names = {field.name for field in fields(NewBuild)} - {"retry_of"}
        row = registry.value("SELECT to_jsonb(builds) FROM builds WHERE id = :id", id=build_id)
        return {name: row[name] for name in names}

    assert posted(again["id"]) == posted(first["id"])
    jobs = registry.values("SELECT args ->> 'build_id' FROM procrastinate_jobs WHERE task_name = 'run_build'")
    assert again["id"] in jobs
    [entry] = api.get("/audit", params={"action": "build_retried"}).json()["items"]
    assert entry["subject"] == again["id"]
    assert entry["before"] == {"build": first["id"], "state": "failed"}
    assert entry["after"] == {"prefix": first["prefix"], "retry_of": first["id"]}


def test_repeating_the_request_gives_the_same_build_until_that_has_failed(
    api: TestClient, registry: Registry
) -> None:
    build_id = failed(registry)
    first = api.post(f"/builds/{build_id}/retry")
    second = api.post(f"/builds/{build_id}/retry")
    assert (first.status_code, second.status_code) == (202, 200)
    assert first.json() == second.json()
    registry.fail(UUID(first.json()["id"]))
    third = api.post(f"/builds/{build_id}/retry")
    assert third.status_code == 202
    assert third.json()["id"] != first.json()["id"]
    registry.publish(UUID(third.json()["id"]))
    fourth = api.post(f"/builds/{build_id}/retry")
    assert (fourth.status_code, fourth.json()["id"]) == (200, third.json()["id"])


def test_a_cancelled_build_can_be_retried(api: TestClient, registry: Registry) -> None:
    build_id = registry.queue()
    assert api.post(f"/builds/{build_id}/cancel").json()["retry_with"] is not None
    assert api.post(f"/builds/{build_id}/retry").status_code == 202


def an_active_one(registry: Registry) -> tuple[UUID, UUID | None]:
    return registry.queue(), None


def one_that_succeeded(registry: Registry) -> tuple[UUID, UUID | None]:
    build_id = registry.queue()
    registry.publish(build_id)
    return build_id, None


def one_whose_commit_was_posted_again(registry: Registry) -> tuple[UUID, UUID | None]:
    sha = sha_of(7)
    return failed(registry, sha), registry.queue(sha=sha)


def one_whose_commit_has_a_model(registry: Registry) -> tuple[UUID, UUID | None]:
    build_id, other = one_whose_commit_was_posted_again(registry)
    assert other is not None
    registry.publish(other)
    return build_id, other


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (an_active_one, "active"),
        (one_that_succeeded, "succeeded"),
        (one_whose_commit_was_posted_again, "prefix_held"),
        (one_whose_commit_has_a_model, "model_exists"),
    ],
)
def test_what_cannot_be_retried_is_refused_with_the_reason(
    api: TestClient,
    registry: Registry,
    make: Callable[[Registry], tuple[UUID, UUID | None]],
    reason: str,
) -> None:
    build_id, holder = make(registry)
    before = registry.counts()
    answer = api.post(f"/builds/{build_id}/retry")
    assert answer.status_code == 409
    problem = answer.json()
    assert (problem["type"], problem["reason"]) == ("/problems/retry-refused", reason)
    assert problem.get("held_by") == (None if holder is None else str(holder))
    assert str(build_id) in problem["detail"]
    assert registry.counts() == before


def test_a_build_that_does_not_exist_is_not_found(api: TestClient) -> None:
    assert api.post(f"/builds/{uuid4()}/retry").status_code == 404
