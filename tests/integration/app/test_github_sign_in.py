"""Signing in from GitHub Actions, with a local issuer that signs as GitHub does."""

import hmac
import json
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient
from joserfc.jwk import RSAKey
from typer.testing import CliRunner

from app import identity
from app.api.common.admission import MAX_AGE_S
from app.main import create_app
from app.registry.access.publishers import EVENTS
from app.settings import Settings, SettingsError
from app.storage.bucket import Bucket
from app.words import Access, Scope
from cli.client import RegistryClient
from cli.identity import GithubIdentity
from cli.main import app as command_line
from tests.github import AUDIENCE, GitHub
from tests.integration.app.registry import Registry
from tests.integration.app.serving import free_port, served
from tests.integration.app.test_tokens import AS_ROOT, bearer, environment_entry

RULE: dict[str, Any] = {
    "name": "models of pull requests",
    "repository_id": 728113940,
    "repository_owner_id": 9919,
    "workflow": "model.yml",
    "ref": "refs/pull/*/merge",
    "scopes": ["build", "promote:development"],
}


@pytest.fixture(scope="module")
def _github() -> Iterator[GitHub]:
    github = GitHub()
    yield github
    github.close()


@pytest.fixture
def github(_github: GitHub) -> GitHub:
    _github.away, _github.keys = False, _github.keys[:1]
    return _github


@pytest.fixture
def guarded(settings: Settings, github: GitHub) -> Settings:
    return settings.model_copy(
        update={
            "access": Access.READS,
            "github_issuer": github.address,
            "github_audience": AUDIENCE,
            "api_tokens": (environment_entry("root", "r00t", *Scope),),
        }
    )


@pytest.fixture
def api(guarded: Settings) -> Iterator[TestClient]:
    with TestClient(create_app(guarded), raise_server_exceptions=False) as client:
        assert client.post("/trusted-publishers", json=RULE, headers=AS_ROOT).status_code == 201
        yield client


def signed_in(api: TestClient, token: str) -> dict[str, Any]:
    answer = api.post("/auth/github", json={"token": token})
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def refused(api: TestClient, token: str) -> str:
    answer = api.post("/auth/github", json={"token": token})
    assert (answer.status_code, answer.json()["type"]) == (401, "/problems/identity-refused"), answer.text
    return str(answer.json()["detail"])


def test_a_workflow_signs_in_and_may_do_what_its_rule_says(
    api: TestClient, github: GitHub, registry: Registry
) -> None:
    token = signed_in(api, github.token())
    assert token["scopes"] == ["build", "promote:development"]
    assert token["name"] == "customs/tariff-models:model.yml:42.1"
    asked = api.post("/builds", json=registry.body(), headers=bearer(token["token"]))
    assert asked.status_code == 202
    build = asked.json()["build"]
    assert (build["requested_by"], build["requested_by_kind"]) == (token["name"], "ci_workflow")
    forbidden = api.get("/tokens", headers=bearer(token["token"]))
    assert (forbidden.status_code, forbidden.json()["required_scope"]) == (403, "admin")
    [kept] = api.get("/tokens", params={"name": token["name"]}, headers=AS_ROOT).json()["items"]
    assert (kept["kind"], kept["created_by"]) == ("ci_workflow", f"trusted publisher {RULE['name']}")
    [entry] = api.get("/audit", params={"action": "signed_in"}, headers=AS_ROOT).json()["items"]
    assert (entry["after"]["ref"], entry["after"]["event"]) == ("refs/pull/12/merge", "pull_request")
    # The next job of the same run gets a token of the same name.
    assert signed_in(api, github.token())["name"] == token["name"]


def test_a_token_is_valid_for_fifteen_minutes_at_most(api: TestClient, github: GitHub) -> None:
    kept = signed_in(api, github.token(exp=int(time.time()) + 100_000))
    [listed] = api.get("/tokens", params={"name": kept["name"]}, headers=AS_ROOT).json()["items"]
    created, expires = (datetime.fromisoformat(listed[name]) for name in ("created_at", "expires_at"))
    assert expires - created <= timedelta(minutes=15, seconds=1)


NOW = time.time
WRONG: dict[str, tuple[Callable[[], dict[str, Any]], str]] = {
    "issuer": (lambda: {"iss": "https://issuer.example.org"}, "iss"),
    "no issuer": (lambda: {"iss": None}, "iss"),
    "audience": (lambda: {"aud": "https://other.example.org"}, "aud"),
    "two audiences": (lambda: {"aud": [AUDIENCE, "https://other.example.org"]}, "aud"),
    "no audience": (lambda: {"aud": None}, "aud"),
    "expired": (lambda: {"exp": int(NOW()) - 31}, "expired"),
    "no end": (lambda: {"exp": None}, "exp"),
    "from the future": (lambda: {"iat": int(NOW()) + 90, "nbf": None}, "issued in the future"),
    "not yet": (lambda: {"nbf": int(NOW()) + 90}, "not yet valid"),
    "no issue time": (lambda: {"iat": None}, "iat"),
    "no id": (lambda: {"jti": None}, "jti"),
    "repository": (lambda: {"repository_id": "1"}, "No trusted publisher"),
    "owner": (lambda: {"repository_owner_id": "1"}, "No trusted publisher"),
    "no repository": (lambda: {"repository_id": None}, "repository_id"),
    "workflow": (
        lambda: {"job_workflow_ref": "customs/tariff-models/.github/workflows/x.yml@refs/pull/12/merge"},
        "No trusted publisher",
    ),
    "workflow of another repository": (
        lambda: {"job_workflow_ref": "evil/shared/.github/workflows/model.yml@refs/heads/main"},
        "No trusted publisher",
    ),
    "ref": (lambda: {"ref": "refs/heads/main"}, "No trusted publisher"),
    "event of a fork": (lambda: {"event_name": "pull_request_target"}, "from a fork"),
    "no event": (lambda: {"event_name": None}, "event_name"),
}


@pytest.mark.parametrize(("changed", "named"), WRONG.values(), ids=WRONG)
def test_each_claim_must_be_right(
    api: TestClient, github: GitHub, changed: Callable[[], dict[str, Any]], named: str
) -> None:
    assert named in refused(api, github.token(**changed()))
    assert api.get("/audit", params={"action": "signed_in"}, headers=AS_ROOT).json()["items"] == []


def test_clocks_may_differ_by_half_a_minute(api: TestClient, github: GitHub) -> None:
    now = int(time.time())
    assert signed_in(api, github.token(exp=now - 20))
    assert signed_in(api, github.token(iat=now + 20, nbf=now + 20))


def test_only_the_issuers_signature_counts(api: TestClient, github: GitHub) -> None:
    stranger = RSAKey.generate_key(2048)
    assert "no key" in refused(api, github.token(stranger, {"alg": "RS256", "kid": "invented"}))
    known = github.keys[0].kid
    assert "does not hold" in refused(api, github.token(stranger, {"alg": "RS256", "kid": known}))
    # The public key as the secret of a symmetric signature.
    whole = github.token()
    head, said = (
        urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=")
        for part in ({"alg": "HS256", "kid": known}, github.claims())
    )
    code = hmac.digest(github.keys[0].as_pem(private=False), head + b"." + said, "sha256")
    confused = b".".join([head, said, urlsafe_b64encode(code).rstrip(b"=")]).decode()
    assert "RS256" in refused(api, confused)
    header = "eyJhbGciOiJub25lIn0"
    for broken in (whole[:-4], f"{header}.{whole.split('.')[1]}.", "x", "a.b.c", whole.replace(".", "", 1)):
        refused(api, broken)
    assert "kid" in refused(api, github.token(github.keys[0], {"alg": "RS256"}))


def test_an_identity_token_is_used_once(api: TestClient, github: GitHub) -> None:
    token = github.token()
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda _: api.post("/auth/github", json={"token": token}), range(4)))
    assert sorted(answer.status_code for answer in answers) == [201, 401, 401, 401]
    assert "used before" in refused(api, token)


def test_a_new_key_of_the_issuer_is_fetched_and_an_unknown_one_is_not_asked_for_each_time(
    api: TestClient, github: GitHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    signed_in(api, github.token())
    asked = github.asked
    signed_in(api, github.token())
    assert github.asked == asked
    github.keys.append(RSAKey.generate_key(2048, auto_kid=True))
    # A flood of tokens with invented keys does not reach the issuer.
    assert "no key" in refused(api, github.token())
    assert github.asked == asked
    monkeypatch.setattr(identity, "_SOONEST_S", 0.0)
    signed_in(api, github.token())
    assert github.asked == asked + 1


def test_an_issuer_that_is_away_is_told_and_its_kept_keys_go_on_counting(
    api: TestClient, github: GitHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    github.away = True
    answer = api.post("/auth/github", json={"token": github.token()})
    assert (answer.status_code, answer.json()["type"]) == (503, "/problems/identity-unavailable")
    assert answer.headers["retry-after"]
    github.away = False
    monkeypatch.setattr(identity, "_SOONEST_S", 0.0)
    signed_in(api, github.token())
    github.away = True
    monkeypatch.setattr(identity, "_KEYS_AGE_S", 0.0)
    signed_in(api, github.token())


def test_without_an_audience_nobody_signs_in(guarded: Settings, github: GitHub) -> None:
    off = guarded.model_copy(update={"github_audience": None})
    with TestClient(create_app(off)) as api:
        answer = api.post("/auth/github", json={"token": github.token()})
    assert (answer.status_code, answer.json()["type"]) == (409, "/problems/sign-in-off")


@pytest.mark.parametrize("event", sorted(EVENTS))
def test_workflows_that_only_writers_can_start_sign_in(api: TestClient, github: GitHub, event: str) -> None:
    assert signed_in(api, github.token(event_name=event))


def test_rules_add_up_and_each_limit_must_hold(api: TestClient, github: GitHub) -> None:
    more = RULE | {"environment": "production", "ref": None, "scopes": ["promote:production"]}
    assert api.post("/trusted-publishers", json=more, headers=AS_ROOT).status_code == 201
    assert "promote:production" not in signed_in(api, github.token())["scopes"]
    both = signed_in(api, github.token(environment="production"))
    assert both["scopes"] == ["build", "promote:development", "promote:production"]
    alone = signed_in(api, github.token(environment="production", ref="refs/heads/main"))
    assert alone["scopes"] == ["promote:production"]


def test_a_rule_that_is_removed_trusts_nobody(api: TestClient, github: GitHub) -> None:
    [rule] = api.get("/trusted-publishers", headers=AS_ROOT).json()["items"]
    assert api.delete(f"/trusted-publishers/{rule['id']}", headers=AS_ROOT).status_code == 200
    refused(api, github.token())
    again = api.delete(f"/trusted-publishers/{rule['id']}", headers=AS_ROOT)
    assert (again.status_code, again.json()["type"]) == (404, "/problems/not-found")


@pytest.mark.parametrize(
    "changed",
    [
        {"ref": None},
        {"scopes": ["admin"]},
        {"scopes": []},
        {"workflow": "folder/model.yml"},
        {"repository_id": "728113940"},
        {"repository_id": 1 << 63},
    ],
    ids=["no limit", "admin", "no scope", "path", "text", "large"],
)
def test_a_bad_rule_is_refused(api: TestClient, changed: dict[str, Any]) -> None:
    answer = api.post("/trusted-publishers", json=RULE | changed, headers=AS_ROOT)
    assert (answer.status_code, answer.json()["type"]) == (422, "/problems/invalid-request")


def test_the_issuer_must_use_tls() -> None:
    with pytest.raises((SettingsError, ValueError), match="https://"):
        Settings(database_url="postgresql://h/n", github_issuer="http://issuer.example.org")


def test_the_command_line_signs_in_by_itself_and_again_when_its_token_ends(
    guarded: Settings, github: GitHub, monkeypatch: pytest.MonkeyPatch, registry: Registry
) -> None:
    monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_URL", f"{github.address}/identity?api-version=2.0")
    monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "of-the-job")
    monkeypatch.setenv("REGISTRY_AUDIENCE", AUDIENCE)
    monkeypatch.delenv("REGISTRY_TOKEN", raising=False)
    registry.bucket = Bucket.of(guarded)
    prefix, port = registry.model(), free_port()
    url = f"http://127.0.0.1:{port}"
    with served(guarded, port):
        refusal = CliRunner().invoke(command_line, ["promote", prefix, "development", "--url", url])
        assert refusal.exit_code == 3
        assert "does not let this workflow sign in" in refusal.stderr
        assert httpx.post(f"{url}/trusted-publishers", json=RULE, headers=AS_ROOT).status_code == 201
        promoted = CliRunner().invoke(command_line, ["promote", prefix, "development", "--url", url])
        assert promoted.exit_code == 0, promoted.output
        listed = CliRunner().invoke(command_line, ["publisher", "list", "--url", url, "--token", "r00t"])
        assert "model.yml" in listed.stdout
        found = GithubIdentity.of_environment(url, AUDIENCE)
        assert found is not None
        with RegistryClient(url, identity=found) as client:
            body = {"stage": "development", "note": "again"}
            assert client.post(f"/models/{prefix}/promotions", body)["promoted_by_kind"] == "ci_workflow"
            # It was revoked, or has expired.
            registry.execute("UPDATE tokens SET expires_at = created_at + interval '1 millisecond'")
            time.sleep(MAX_AGE_S + 0.2)
            assert client.post(f"/models/{prefix}/promotions", body)["prefix"] == prefix
