"""The tokens of the database: what they allow, how they end, and what happens while Postgres is away."""

import asyncio
import hashlib
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pydantic import SecretStr
from sqlalchemy import text

from app.api.common import admission
from app.api.common.admission import Admission
from app.main import create_app
from app.registry.access import tokens
from app.server import log_access
from app.settings import Settings, Token
from app.storage.bucket import Bucket
from app.words import Access, Scope, Stage
from local.stack import free_port
from tests.integration.app.registry import Registry, listening

ROOT = Path(__file__).resolve().parents[3]
ROOT_SECRET = "r00t"
ALL = [scope.value for scope in Scope]


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


AS_ROOT = bearer(ROOT_SECRET)


def environment_entry(name: str, secret: str, *scopes: str) -> Token:
    return Token.parse(f"{name}={hashlib.sha256(secret.encode()).hexdigest()}:{'+'.join(scopes)}")


@pytest.fixture
def guarded(settings: Settings) -> Settings:
    """Everything needs a token, and the environment has one that may do everything."""
    entries = (environment_entry("root", ROOT_SECRET, *ALL),)
    return settings.model_copy(update={"access": Access.TOKENS, "api_tokens": entries})


@pytest.fixture
def closed(guarded: Settings) -> Iterator[TestClient]:
    with TestClient(create_app(guarded), raise_server_exceptions=False) as client:
        yield client


def created(api: TestClient, name: str = "ci", *scopes: str, **more: Any) -> dict[str, Any]:
    answer = api.post("/tokens", json={"name": name, "scopes": scopes or ("read",), **more}, headers=AS_ROOT)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def admission_of(api: TestClient) -> Admission:
    assert isinstance(api.app, FastAPI)
    found: Admission = api.app.state.admission
    return found


@contextmanager
def statements_of(api: TestClient) -> Iterator[list[str]]:
    """The statements that look tokens up."""
    database = admission_of(api)._database
    with listening(database, database._reader) as read:
        yield read.seen


# Creating


def test_a_token_is_shown_once_and_stored_only_as_its_digest(closed: TestClient, registry: Registry) -> None:
    token = created(closed, "ci", "build", "read")
    secret = token["token"]
    assert re.fullmatch(r"tmr_[0-9A-Za-z]{51}", secret)
    assert secret.startswith(token["starts_with"])
    assert registry.values("SELECT digest FROM tokens") == [hashlib.sha256(secret.encode()).hexdigest()]
    for table in ("tokens", "audit"):
        assert secret not in str(registry.values(f"SELECT {table}::text FROM {table}"))
    listed = closed.get("/tokens", headers=AS_ROOT)
    assert secret not in listed.text
    [shown] = listed.json()["items"]
    assert shown == {name: value for name, value in token.items() if name != "token"}
    assert (shown["scopes"], shown["state"], shown["created_by"]) == (["read", "build"], "active", "root")
    lifetime = datetime.fromisoformat(shown["expires_at"]) - datetime.fromisoformat(shown["created_at"])
    assert lifetime.days in (89, 90)


def test_secrets_have_a_checksum_and_are_never_the_same() -> None:
    made = {tokens.new_secret() for _ in range(100)}
    assert len(made) == 100
    assert all(tokens.is_well_formed(secret) for secret in made)
    for secret in made:
        other = "a" if secret[10] != "a" else "b"
        assert not tokens.is_well_formed(secret[:10] + other + secret[11:])
    for secret in ("", "tmr_", "tmr_" + "a" * 51, "a" * 55, "tmr_é" + "a" * 50):
        assert not tokens.is_well_formed(secret)


# A call that needs the scope.
NEEDS: dict[str, Callable[[TestClient, Registry, dict[str, str]], Any]] = {
    "read": lambda api, _, who: api.get("/models", headers=who),
    "build": lambda api, registry, who: api.post("/builds", json=registry.body(), headers=who),
    "promote:development": lambda api, registry, who: promote(api, registry, "development", who),
    "promote:staging": lambda api, registry, who: promote(api, registry, "staging", who),
    "promote:production": lambda api, registry, who: promote(api, registry, "production", who),
    "override": lambda api, registry, who: promote(
        api, registry, "production", who, override=True, note="why"
    ),
    "collect": lambda api, registry, who: api.post(f"/runs/{collection(registry)}/stop", headers=who),
    "admin": lambda api, _, who: api.get("/audit", headers=who),
}


def promote(api: TestClient, registry: Registry, stage: str, who: dict[str, str], **more: Any) -> Any:
    prefix = registry.model(stages=() if more else (Stage.DEVELOPMENT, Stage.STAGING))
    return api.post(f"/models/{prefix}/promotions", json={"stage": stage, **more}, headers=who)


def collection(registry: Registry) -> UUID:
    registry.execute(
        "INSERT INTO runs (kind, options, requested_by, requested_by_kind)"
        " VALUES ('collection', '{}', 'somebody', 'token') ON CONFLICT DO NOTHING"
    )
    found: UUID = registry.value("SELECT id FROM runs WHERE kind = 'collection'")
    return found


@pytest.mark.parametrize("scope", ALL)
def test_a_token_may_do_what_its_scopes_say_and_nothing_else(
    closed: TestClient, registry: Registry, settings: Settings, scope: str
) -> None:
    registry.bucket = Bucket.of(settings)
    # Some calls need two scopes.
    also = {"override": ["promote:production"], "admin": ["read"]}.get(scope, [])
    needed = [scope, *also]
    having = bearer(created(closed, "with", *needed)["token"])
    lacking = bearer(created(closed, "without", *(other for other in ALL if other != scope))["token"])
    refused = NEEDS[scope](closed, registry, lacking)
    assert (refused.status_code, refused.json()["required_scope"]) == (403, scope)
    assert "'without' lacks the scope" in refused.json()["detail"]
    assert NEEDS[scope](closed, registry, having).status_code in (200, 201, 202)


def test_what_is_done_with_a_token_is_recorded_under_its_name(closed: TestClient, registry: Registry) -> None:
    token = created(closed, "pipeline", "build", "read", "admin")
    who = bearer(token["token"])
    build = closed.post("/builds", json=registry.body(), headers=who).json()["build"]
    assert (build["requested_by"], build["requested_by_kind"]) == ("pipeline", "token")
    closed.delete(f"/tokens/{token['id']}", headers=AS_ROOT)
    revoked, requested, made = closed.get("/audit", headers=AS_ROOT).json()["items"]
    assert (requested["who"], requested["kind"]) == ("pipeline", "token")
    assert (made["action"], made["subject"], made["who"]) == ("token_created", token["id"], "root")
    assert made["after"] == {
        "name": "pipeline",
        "scopes": ["read", "build", "admin"],
        "expires_at": made["after"]["expires_at"],
    }
    assert (revoked["action"], revoked["subject"]) == ("token_revoked", token["id"])
    assert revoked["before"]["name"] == "pipeline"


def test_nobody_can_give_a_scope_that_they_lack(closed: TestClient, registry: Registry) -> None:
    some = bearer(created(closed, "some", "admin", "read")["token"])
    refused = closed.post("/tokens", json={"name": "more", "scopes": ["read", "build"]}, headers=some)
    assert (refused.status_code, refused.json()["required_scope"]) == (403, "build")
    assert "cannot give it to another token" in refused.json()["detail"]
    assert registry.count("tokens") == 1
    fine = closed.post("/tokens", json={"name": "less", "scopes": ["read"]}, headers=some)
    assert (fine.status_code, fine.json()["created_by"]) == (201, "some")


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ({"scopes": []}, "scopes"),
        ({"scopes": ["everything"]}, "scopes.0"),
        ({"name": ""}, "name"),
        ({"name": "a b"}, "name"),
        ({"name": "a=b"}, "name"),
        ({"name": "x" * 101}, "name"),
        ({"expires_in_days": 0}, "expires_in_days"),
        ({"expires_in_days": 366}, "expires_in_days"),
        ({"expires_in_days": True}, "expires_in_days"),
        ({"expires_in_days": None}, "expires_in_days"),
        ({"kind": "system"}, "kind"),
    ],
)
def test_a_token_that_cannot_be_is_refused(closed: TestClient, body: dict[str, Any], where: str) -> None:
    answer = closed.post("/tokens", json={"name": "ci", "scopes": ["read"], **body}, headers=AS_ROOT)
    assert answer.status_code == 422
    assert answer.json()["problems"][0]["where"] == f"body.{where}"


# Names


def test_two_active_tokens_never_have_the_same_name(closed: TestClient, registry: Registry) -> None:
    with ThreadPoolExecutor(6) as threads:
        answers = list(
            threads.map(
                lambda _: closed.post("/tokens", json={"name": "ci", "scopes": ["read"]}, headers=AS_ROOT),
                range(6),
            )
        )
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 5
    refused = next(answer for answer in answers if answer.status_code == 409).json()
    assert (refused["type"], refused["name"]) == ("/problems/token-name-taken", "ci")
    assert registry.count("tokens") == 1


def test_a_name_of_the_environment_is_taken(closed: TestClient) -> None:
    refused = closed.post("/tokens", json={"name": "root", "scopes": ["read"]}, headers=AS_ROOT)
    assert refused.json()["type"] == "/problems/token-name-taken"
    assert "REGISTRY_API_TOKENS" in refused.json()["detail"]


def test_a_name_is_free_again_when_its_token_was_revoked_or_has_expired(
    closed: TestClient, registry: Registry
) -> None:
    first = created(closed)
    closed.delete(f"/tokens/{first['id']}", headers=AS_ROOT)
    second = created(closed)
    registry.execute(
        "UPDATE tokens SET created_at = now() - interval '2 days', expires_at = now() - interval '1 second'"
        " WHERE id = :id",
        id=second["id"],
    )
    third = created(closed)
    items = closed.get("/tokens", params={"name": "ci"}, headers=AS_ROOT).json()["items"]
    assert {item["id"]: item["state"] for item in items} == {
        first["id"]: "revoked",
        second["id"]: "expired",
        third["id"]: "active",
    }
    for token, state in ((first, "revoked"), (second, "expired"), (third, "active")):
        found = closed.get("/tokens", params={"state": state}, headers=AS_ROOT).json()["items"]
        assert [item["id"] for item in found] == [token["id"]]
    # An expired token can be revoked too, and takes nobody's name away by that.
    assert closed.delete(f"/tokens/{second['id']}", headers=AS_ROOT).json()["state"] == "revoked"
    assert closed.get("/models", headers=bearer(third["token"])).status_code == 200


def test_the_list_comes_in_pages_newest_first(closed: TestClient) -> None:
    made = [created(closed, f"ci-{number}")["id"] for number in range(5)]
    page = closed.get("/tokens", params={"limit": 3}, headers=AS_ROOT).json()
    rest = closed.get("/tokens", params={"limit": 3, "cursor": page["next"]}, headers=AS_ROOT).json()
    assert [item["id"] for item in page["items"] + rest["items"]] == made[::-1]
    assert rest["next"] is None


# Ending


def test_a_revoked_token_is_refused_at_once_and_stays_in_the_list(closed: TestClient) -> None:
    token = created(closed)
    who = bearer(token["token"])
    assert closed.get("/models", headers=who).status_code == 200
    answers = [closed.delete(f"/tokens/{token['id']}", headers=AS_ROOT) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].json() == answers[1].json()
    assert (answers[0].json()["state"], answers[0].json()["revoked_by"]) == ("revoked", "root")
    refused = closed.get("/models", headers=who)
    assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
    assert "The token 'ci' was revoked at" in refused.json()["detail"]
    [listed] = closed.get("/tokens", headers=AS_ROOT).json()["items"]
    assert listed["state"] == "revoked"
    actions = [entry["action"] for entry in closed.get("/audit", headers=AS_ROOT).json()["items"]]
    assert actions == ["token_revoked", "token_created"]


def test_a_token_that_does_not_exist_cannot_be_revoked(closed: TestClient) -> None:
    answer = closed.delete(f"/tokens/{UUID(int=1)}", headers=AS_ROOT)
    assert (answer.status_code, answer.json()["type"]) == (404, "/problems/not-found")


def test_a_token_expires_at_its_time_although_it_is_kept_in_memory(
    closed: TestClient, registry: Registry
) -> None:
    token = created(closed)
    who = bearer(token["token"])
    admission_of(closed)._max_age_s = 3600.0
    registry.execute("UPDATE tokens SET expires_at = now() + interval '1 second'")
    with statements_of(closed) as asked:
        until = time.monotonic() + 30
        while (answer := closed.get("/tokens", headers=who)).status_code == 403 and time.monotonic() < until:
            time.sleep(0.05)
    assert answer.status_code == 401
    assert "The token 'ci' expired at" in answer.json()["detail"]
    assert len(asked) == 1


@contextmanager
def served(settings: Settings) -> Iterator[str]:
    """A process of the API that has no token in its environment."""
    port = free_port()
    variables = os.environ | {
        "DATABASE_URL": settings.database_url.get_secret_value(),
        "AWS_ENDPOINT_URL": settings.aws_endpoint_url or "",
        "AWS_REGION": settings.region,
        "REGISTRY_ACCESS": "tokens",
    }
    command = [sys.executable, "-m", "app", "api", "--port", str(port)]
    with subprocess.Popen(command, cwd=ROOT, env=variables, stderr=subprocess.DEVNULL) as process:
        try:
            url = f"http://127.0.0.1:{port}"
            for _ in range(600):
                try:
                    httpx.get(f"{url}/healthz")
                    break
                except httpx.HTTPError:
                    assert process.poll() is None, "the API ended"
                    time.sleep(0.1)
            yield url
        finally:
            process.kill()


def test_another_process_refuses_a_revoked_token_within_the_documented_time(
    closed: TestClient, guarded: Settings
) -> None:
    token = created(closed)
    who = bearer(token["token"])
    with served(guarded) as url, httpx.Client(base_url=url, headers=who) as other:
        assert other.get("/models").status_code == 200
        revoked = closed.delete(f"/tokens/{token['id']}", headers=AS_ROOT)
        assert revoked.status_code == 200
        revoked_at = time.monotonic()
        accepted = 0.0
        while (asked := time.monotonic()) - revoked_at < 60:
            if other.get("/models").status_code == 401:
                break
            accepted = asked - revoked_at
            time.sleep(0.1)
        else:
            pytest.fail("the token was never refused")
        # The last request that was accepted came in before the time had passed.
        assert accepted <= admission.MAX_AGE_S


# What it costs


def test_a_caller_who_asks_often_costs_the_database_one_look_up(closed: TestClient) -> None:
    who = bearer(created(closed)["token"])
    admission_of(closed)._max_age_s = 3600.0
    with statements_of(closed) as asked:
        for _ in range(20):
            assert closed.get("/tokens", headers=who).status_code == 403
    assert len(asked) == 1


def test_the_last_use_is_noted_now_and_then(closed: TestClient, registry: Registry) -> None:
    who = bearer(created(closed)["token"])
    admission_of(closed)._max_age_s = 0.0
    closed.get("/models", headers=who)
    registry.await_value("SELECT last_used_at IS NOT NULL FROM tokens")
    first = registry.value("SELECT last_used_at FROM tokens")
    closed.get("/models", headers=who)
    assert registry.value("SELECT last_used_at FROM tokens") == first
    registry.execute("UPDATE tokens SET last_used_at = now() - interval '11 minutes'")
    closed.get("/models", headers=who)
    registry.await_value("SELECT last_used_at > now() - interval '5 minutes' FROM tokens")


def test_what_is_not_formed_like_a_token_is_refused_without_the_database(closed: TestClient) -> None:
    with statements_of(closed) as asked:
        for number in range(200):
            assert closed.get("/models", headers=bearer(f"tmr_{number}")).status_code == 401
    assert asked == []


def test_a_flood_of_invented_tokens_costs_few_questions_and_does_not_shut_others_out(
    closed: TestClient, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of them are well formed, and no two are the same."""
    monkeypatch.setattr(admission, "_MAX_KEPT", 50)
    good = created(closed)["token"]
    gate = admission_of(closed)
    admitted: list[str] = []

    async def flood() -> list[object]:
        async def good_one() -> None:
            admitted.append((await gate.admit(good, writes=False)).name)

        calls = [gate.admit(tokens.new_secret(), writes=False) for _ in range(1_200)]
        return await asyncio.gather(*calls[:600], good_one(), *calls[600:], return_exceptions=True)

    with statements_of(closed) as asked:
        assert closed.portal is not None
        answers = closed.portal.call(flood)
    assert admitted == ["ci"]
    assert {type(answer).__name__ for answer in answers} == {"Unauthorized", "NoneType"}
    # 1,201 tokens in questions about 500 each, and one more for those that came before the rest.
    assert len(asked) <= 5
    assert len(gate._unknown) == 50
    with statements_of(closed) as asked:
        assert closed.get("/models", headers=bearer(good)).status_code == 200
    assert not any("digest" in statement for statement in asked)


def test_the_same_unknown_token_again_and_again_is_one_question(closed: TestClient) -> None:
    admission_of(closed)._max_age_s = 3600.0
    invented = bearer(tokens.new_secret())
    with statements_of(closed) as asked:
        for _ in range(20):
            assert closed.get("/models", headers=invented).status_code == 401
    assert len(asked) == 1


# While Postgres is away


def test_without_the_database_a_token_of_the_environment_is_known_and_others_are_not_refused(
    guarded: Settings,
) -> None:
    away = guarded.model_copy(update={"database_url": SecretStr("postgresql://127.0.0.1:1/x")})
    with TestClient(create_app(away), raise_server_exceptions=False) as api:
        of_environment = api.get("/models", headers=AS_ROOT)
        # The token is accepted; what the call itself needs is not there.
        assert of_environment.json()["type"] == "/problems/database-unavailable"
        assert "token" not in of_environment.json()["detail"]
        # This needs no database.
        assert api.get("/models/moon/latest", headers=AS_ROOT).status_code == 422
        unknown = api.get("/models", headers=bearer(tokens.new_secret()))
        assert (unknown.status_code, unknown.headers["retry-after"]) == (503, "5")
        assert unknown.json()["type"] == "/problems/database-unavailable"
        assert "whether it knows the token" in unknown.json()["detail"]
        assert api.get("/models", headers=bearer("wrong")).status_code == 401
        assert "root" not in api.get("/readyz").json()["access"]


def test_a_token_in_memory_outlives_an_outage_for_its_time(
    closed: TestClient, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    who = bearer(created(closed)["token"])
    gate = admission_of(closed)
    gate._max_age_s = 3600.0
    assert closed.get("/models", headers=who).status_code == 200
    away = create_app(
        Settings.model_validate({"database_url": "postgresql://127.0.0.1:1/x", "access": "tokens"})
    )
    monkeypatch.setattr(gate, "_database", away.state.database)
    assert closed.get("/models", headers=who).status_code == 200
    gate._max_age_s = 0.0
    assert closed.get("/models", headers=who).status_code == 503


def test_a_database_that_hangs_holds_up_nobody_else(
    closed: TestClient, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "_PATIENCE_S", 0.5)
    who = bearer(created(closed)["token"])
    with registry.database.engine.begin() as connection:
        connection.execute(text("LOCK TABLE tokens IN ACCESS EXCLUSIVE MODE"))
        with ThreadPoolExecutor(4) as threads:
            hanging = [threads.submit(closed.get, "/models", headers=who) for _ in range(4)]
            assert closed.get("/models", headers=AS_ROOT).status_code == 200
            assert {answer.result().status_code for answer in hanging} == {503}
    monkeypatch.setattr(admission, "_PATIENCE_S", 60.0)
    assert closed.get("/models", headers=who).status_code == 200


# The first administrator


def test_a_registry_says_whether_anybody_can_write(
    settings: Settings, registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    entries = (environment_entry("reader", "r", "read"),)
    empty = settings.model_copy(update={"access": Access.READS, "api_tokens": entries})
    caplog.set_level("INFO", logger="app.server")

    def said(api: TestClient) -> tuple[str, str]:
        caplog.clear()
        log_access(admission_of(api).policy, admission_of(api)._database)
        [record] = caplog.records
        access: str = api.get("/readyz").json()["access"]
        assert access in record.getMessage()
        return record.levelname, access

    with ExitStack() as opened:
        api = opened.enter_context(TestClient(create_app(empty)))
        assert said(api)[0] == "WARNING"
        assert "nobody can write" in said(api)[1]
        first = empty.model_copy(update={"api_tokens": (environment_entry("root", ROOT_SECRET, *ALL),)})
        rooted = opened.enter_context(TestClient(create_app(first)))
        assert said(rooted) == ("INFO", "reads: reading is open, and writing needs a token")
        created(rooted, "auditor", "read")
        assert "nobody can write" in said(api)[1]
        token = created(rooted, "ci", "build")
        assert said(api) == ("INFO", "reads: reading is open, and writing needs a token")
        rooted.delete(f"/tokens/{token['id']}", headers=AS_ROOT)
        assert "nobody can write" in said(api)[1]


def test_where_access_is_open_a_token_still_names_its_caller(settings: Settings, registry: Registry) -> None:
    with TestClient(create_app(settings)) as api:
        token = api.post("/tokens", json={"name": "me", "scopes": ["read"]}).json()
        build = api.post("/builds", json=registry.body(), headers=bearer(token["token"])).json()["build"]
        assert build["requested_by"] == "me"
        other = api.post("/builds", json=registry.body(), headers=bearer(tokens.new_secret()))
        assert other.json()["build"]["requested_by"] == "anonymous"


def test_a_scope_that_only_a_newer_release_knows_allows_nothing_here(
    closed: TestClient, registry: Registry
) -> None:
    who = bearer(created(closed)["token"])
    registry.execute("UPDATE tokens SET scopes = ARRAY['fly', 'read']")
    assert closed.get("/models", headers=who).status_code == 200
    assert closed.get("/tokens", headers=AS_ROOT).json()["items"][0]["scopes"] == ["fly", "read"]


def test_callers_who_come_together_share_one_look_up(closed: TestClient) -> None:
    who = bearer(created(closed)["token"])
    together = threading.Barrier(8)

    def ask() -> int:
        together.wait()
        return closed.get("/tokens", headers=who).status_code

    admission_of(closed)._max_age_s = 3600.0
    with statements_of(closed) as asked, ThreadPoolExecutor(8) as threads:
        assert {each.result() for each in [threads.submit(ask) for _ in range(8)]} == {403}
    assert len(asked) == 1
