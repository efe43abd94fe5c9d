"""Who may call, and that every error is answered with a problem document."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any
from uuid import UUID

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text

from app import aws
from app.db.session import Database
from app.main import create_app
from app.registry.inputs import InputRecord
from app.settings import Settings, Token
from app.storage.bucket import Bucket
from app.words import Access, InputKind, Stage
from tests.integration.app.registry import Registry
from tests.integration.app.snapshot import document

TOKENS = {
    "ci": "c1-token",
    "deploy": "d3ploy:read+promote:development+promote:staging",
    "auditor": "4udit:read",
    "builder": "bu1ld:build",
    "chief": "ch1ef:promote:production+override",
    "root": "r00t:read+admin",
    "keeper": "k33per:collect",
}


def entry(who: str) -> Token:
    token, colon, scopes = TOKENS[who].partition(":")
    return Token.parse(f"{who}={hashlib.sha256(token.encode()).hexdigest()}{colon}{scopes}")


def as_(who: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {TOKENS[who].partition(':')[0]}"}


@pytest.fixture
def make_api(settings: Settings) -> Iterator[Callable[..., TestClient]]:
    """An API with this access, and with the tokens."""
    with ExitStack() as opened:

        def make(access: Access, *, tokens: bool = True) -> TestClient:
            entries = tuple(entry(who) for who in TOKENS) if tokens else ()
            changed = settings.model_copy(update={"access": access, "api_tokens": entries})
            return opened.enter_context(TestClient(create_app(changed), raise_server_exceptions=False))

        yield make


@pytest.fixture
def guarded(make_api: Callable[..., TestClient]) -> TestClient:
    """The API where reading is open and writing needs a token."""
    return make_api(Access.READS)


@pytest.fixture(autouse=True)
def files(registry: Registry, settings: Settings) -> None:
    """Published models have their files in the bucket, which promotions ask for."""
    registry.bucket = Bucket.of(settings)


WRITES = [
    ("post", "/builds"),
    ("post", "/builds/{id}/cancel"),
    ("post", "/builds/{id}/retry"),
    ("post", "/models/{prefix}/verdict"),
    ("post", "/models/{prefix}/reproduce"),
    ("post", "/models/{prefix}/sign"),
    ("post", "/models/{prefix}/restore"),
    ("post", "/models/{prefix}/pin"),
    ("delete", "/models/{prefix}/pin"),
    ("post", "/models/{prefix}/release"),
    ("delete", "/models/{prefix}/release"),
    ("post", "/models/{prefix}/promotions"),
    ("post", "/stages/{stage}/rollback"),
    ("post", "/images/clean"),
    ("post", "/gc/release-rules"),
    ("delete", "/gc/release-rules/{id}"),
    ("post", "/runs/{id}/stop"),
    ("post", "/mirror/reconcile"),
    ("post", "/imports"),
    ("post", "/gc/runs"),
    ("post", "/tokens"),
    ("delete", "/tokens/{id}"),
    ("post", "/trusted-publishers"),
    ("delete", "/trusted-publishers/{id}"),
    ("post", "/notifications/test"),
]
# It is how a workflow gets a token.
WITHOUT_TOKEN = [("post", "/auth/github")]
# These reads need the scope `admin`.
FOR_ADMINS = ["/tokens", "/trusted-publishers", "/audit", "/notifications"]
PUBLIC = ["/healthz", "/readyz", "/docs", "/redoc", "/openapi.json", "/"]
BAD_TOKENS: dict[str, dict[str, str]] = {
    "none": {},
    "wrong": {"Authorization": "Bearer wrong"},
    "basic": {"Authorization": "Basic Y2k6YzEtdG9rZW4="},
    "bare": {"Authorization": "c1-token"},
    "digest": {"Authorization": "Bearer " + hashlib.sha256(b"c1-token").hexdigest()},
}


def operations(*, writing: bool) -> list[tuple[str, str]]:
    return [
        (method, path)
        for path, methods in document()["paths"].items()
        for method in methods
        if (method not in ("get", "head")) is writing
    ]


def reads(registry: Registry) -> list[str]:
    """An address of every call that only reads, with something to read behind it."""
    raw = InputRecord(InputKind.RAW_DATA, "raw_source_data.zip", "a" * 64, 10)
    build_id = registry.queue("1.0.0")
    registry.use(build_id, raw)
    prefix = registry.publish(build_id, model_zip=8, provenance_json=8)
    registry.promote(prefix, Stage.DEVELOPMENT)
    build = registry.values("SELECT id FROM builds")[0]
    # The run has the build's id, because both have a place of the same name.
    registry.execute(
        "INSERT INTO runs (id, kind, options, requested_by, requested_by_kind)"
        " VALUES (:id, 'import', '{}', 'somebody', 'token')",
        id=build,
    )
    places = {
        "id": build,
        "prefix": prefix,
        "other": prefix,
        "stage": "development",
        "name": "provenance.json",
    }
    places["sha256"] = str(raw.sha256)
    # What the query must have.
    queries = {"/inputs": f"?name={raw.name}"}
    found = [path.format(**places) + queries.get(path, "") for _, path in operations(writing=False)]
    assert len(found) >= 9
    return [path for path in found if path not in (*PUBLIC, *FOR_ADMINS)]


@pytest.mark.parametrize("path", FOR_ADMINS)
@pytest.mark.parametrize("access", [Access.READS, Access.TOKENS])
def test_some_reads_need_an_administrator(
    make_api: Callable[..., TestClient], access: Access, path: str
) -> None:
    api = make_api(access)
    assert api.get(path).status_code == (403 if access is Access.READS else 401)
    refused = api.get(path, headers=as_("auditor"))
    assert (refused.status_code, refused.json()["required_scope"]) == (403, "admin")
    assert api.get(path, headers=as_("root")).status_code == 200


def test_these_are_all_the_calls_that_write() -> None:
    assert [call for call in operations(writing=True) if call not in WITHOUT_TOKEN] == WRITES


@pytest.mark.parametrize("access", [Access.READS, Access.TOKENS])
def test_changes_need_a_token(
    make_api: Callable[..., TestClient],
    registry: Registry,
    access: Access,
    caplog: pytest.LogCaptureFixture,
) -> None:
    prefix, api = registry.model(), make_api(access)
    before = registry.counts()
    bodies = {"/builds": registry.body(), "/models/{prefix}/promotions": {"stage": "development"}}
    for method, path in WRITES:
        address, body = path.format(stage="development", prefix=prefix, id=UUID(int=1)), bodies.get(path, {})
        for name, headers in BAD_TOKENS.items():
            caplog.clear()
            answer = api.request(method, address, json=body, headers=headers)
            assert answer.status_code == 401, (method, path, name)
            assert answer.headers["www-authenticate"] == "Bearer"
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.json()["type"] == "/problems/unauthorized"
            assert "REGISTRY_API_TOKENS" in answer.json()["detail"]
            # A refused change leaves a line in the log, and a token leaves none.
            logged = [record.getMessage() for record in caplog.records]
            [line] = [line for line in logged if f"refused {method.upper()}" in line]
            assert address in line
            assert "wrong" not in caplog.text
            assert "c1-token" not in caplog.text
    assert registry.counts() == before


def test_the_token_is_asked_for_before_the_body_is_read(guarded: TestClient) -> None:
    broken = guarded.post("/builds", content="{", headers={"Content-Type": "application/json"})
    assert broken.status_code == 401


def test_the_name_that_belongs_to_the_token_is_recorded(guarded: TestClient, registry: Registry) -> None:
    build = guarded.post("/builds", json=registry.body(), headers=as_("ci")).json()["build"]
    assert build["requested_by"] == "ci"
    prefix = registry.publish(UUID(build["id"]))
    path, body = f"/models/{prefix}/promotions", {"stage": "development"}
    assert guarded.post(path, json=body, headers=as_("deploy")).json()["promoted_by"] == "deploy"


def test_a_model_that_is_promoted_with_its_build_names_who_asked_for_the_build(
    guarded: TestClient, registry: Registry
) -> None:
    body = registry.body(promote_to="development")
    build = guarded.post("/builds", json=body, headers=as_("ci")).json()["build"]
    registry.publish(UUID(build["id"]))
    assert guarded.get("/models/development/latest").json()["promoted_by"] == "ci"


@pytest.mark.parametrize(
    ("who", "body", "missing"),
    [
        ("deploy", {}, "build"),
        ("auditor", {}, "build"),
        ("builder", {"promote_to": "development"}, "promote:development"),
        ("builder", {}, None),
        ("ci", {"promote_to": "development"}, None),
    ],
)
def test_building_needs_its_scope_and_that_of_the_stage_to_promote_to(
    guarded: TestClient, registry: Registry, who: str, body: dict[str, str], missing: str | None
) -> None:
    answer = guarded.post("/builds", json=registry.body() | body, headers=as_(who))
    assert answer.status_code == (403 if missing else 202)
    if missing:
        problem = answer.json()
        assert problem["type"] == "/problems/forbidden"
        assert problem["required_scope"] == missing
        assert f"'{who}' lacks the scope {missing}" in problem["detail"]
        assert registry.count("builds") == 0


def test_a_retry_needs_the_scopes_that_the_post_needed(guarded: TestClient, registry: Registry) -> None:
    body = registry.body(promote_to="development")
    build = guarded.post("/builds", json=body, headers=as_("ci")).json()["build"]
    registry.fail(UUID(build["id"]))
    path = f"/builds/{build['id']}/retry"
    for who, missing in (("deploy", "build"), ("builder", "promote:development")):
        refused = guarded.post(path, headers=as_(who))
        assert (refused.status_code, refused.json()["required_scope"]) == (403, missing)
    assert guarded.post(path, headers=as_("ci")).status_code == 202


@pytest.mark.parametrize(
    ("who", "body", "missing"),
    [
        ("deploy", {"stage": "staging"}, None),
        ("deploy", {"stage": "production"}, "promote:production"),
        ("chief", {"stage": "staging"}, "promote:staging"),
        ("builder", {"stage": "staging"}, "promote:staging"),
        ("deploy", {"stage": "staging", "override": True, "note": "urgent"}, "override"),
        ("chief", {"stage": "production", "override": True, "note": "urgent"}, None),
        ("ci", {"stage": "production", "override": True, "note": "urgent"}, None),
    ],
)
def test_promoting_needs_the_scope_of_the_stage_and_an_override_its_own(
    guarded: TestClient, registry: Registry, who: str, body: dict[str, Any], missing: str | None
) -> None:
    prefix = registry.model(stages=(Stage.DEVELOPMENT,))
    before = registry.counts()
    answer = guarded.post(f"/models/{prefix}/promotions", json=body, headers=as_(who))
    assert answer.status_code == (403 if missing else 201)
    if missing:
        assert answer.json()["required_scope"] == missing
        assert registry.counts() == before


def test_a_refused_change_and_an_override_leave_a_line_in_the_log(
    guarded: TestClient, registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    prefix = registry.model()
    path = f"/models/{prefix}/promotions"
    guarded.post(path, json={"stage": "production"}, headers=as_("deploy"))
    assert "'deploy' lacks the scope promote:production" in caplog.text
    guarded.post(path, json={"stage": "staging"}, headers=as_("deploy"))
    assert f"{prefix} was never in development" in caplog.text
    body = {"stage": "production", "override": True, "note": "the old one is on fire"}
    assert guarded.post(path, json=body, headers=as_("chief")).status_code == 201
    [line] = [record.getMessage() for record in caplog.records if "override" in record.getMessage()][-1:]
    assert f"chief promotes {prefix}" in line
    assert "was never in staging" in line
    assert "'the old one is on fire'" in line


@pytest.mark.parametrize("headers", BAD_TOKENS.values(), ids=BAD_TOKENS)
def test_reads_stay_open_unless_tokens_are_asked_for(
    guarded: TestClient, registry: Registry, headers: dict[str, str]
) -> None:
    for path in (*reads(registry), *PUBLIC):
        assert guarded.get(path, headers=headers, follow_redirects=False).status_code in (200, 307), path


def test_where_everything_needs_a_token_only_health_and_documentation_are_open(
    make_api: Callable[..., TestClient], registry: Registry
) -> None:
    closed = make_api(Access.TOKENS)
    for path in PUBLIC:
        assert closed.get(path, follow_redirects=False).status_code in (200, 307), path
    for path in reads(registry):
        for headers in BAD_TOKENS.values():
            assert closed.get(path, headers=headers, follow_redirects=False).status_code == 401, path
        assert closed.get(path, headers=as_("auditor"), follow_redirects=False).status_code in (200, 307), (
            path
        )
        refused = closed.get(path, headers=as_("builder"), follow_redirects=False)
        assert (refused.status_code, refused.json()["required_scope"]) == (403, "read")


@pytest.mark.parametrize("access", [Access.READS, Access.TOKENS])
def test_without_any_token_nobody_can_write(
    make_api: Callable[..., TestClient], registry: Registry, access: Access
) -> None:
    """An unset secret must not let everyone in."""
    empty = make_api(access, tokens=False)
    for headers in BAD_TOKENS.values():
        refused = empty.post("/builds", json=registry.body(), headers=headers)
        assert refused.status_code == 401
        assert "one of REGISTRY_API_TOKENS" in refused.json()["detail"]
    assert empty.get("/builds").status_code == (200 if access is Access.READS else 401)
    assert "nobody can write, because no token may" in empty.get("/readyz").json()["access"]
    assert set(registry.counts().values()) == {0}


def test_where_access_is_open_everybody_may_do_everything(
    make_api: Callable[..., TestClient], registry: Registry
) -> None:
    opened = make_api(Access.OPEN)
    anonymous = opened.post("/builds", json=registry.body(), headers={"Authorization": "Bearer any"})
    assert anonymous.json()["build"]["requested_by"] == "anonymous"
    known = opened.post("/builds", json=registry.body(), headers=as_("auditor"))
    assert known.json()["build"]["requested_by"] == "auditor"


JSON = {"Content-Type": "application/json"}
PROBLEMS: list[tuple[str, str, dict[str, Any], int, str, str]] = [
    ("GET", "/nowhere", {}, 404, "path-not-found", "GET /docs"),
    ("DELETE", "/builds", {}, 405, "method-not-allowed", "takes only GET, HEAD, POST"),
    ("PUT", "/models/1.0.0-abcdef1", {}, 405, "method-not-allowed", "takes only GET, HEAD"),
    ("POST", "/builds", {"content": "{", "headers": JSON}, 422, "invalid-request", "is not readable JSON"),
    ("POST", "/builds", {"content": b"\xff\xfe", "headers": JSON}, 422, "invalid-request", "body"),
    ("POST", "/builds", {"json": []}, 422, "invalid-request", "body"),
    ("POST", "/builds", {"json": {}}, 422, "invalid-request", "body.sha: Field required"),
    ("POST", "/builds", {"data": {"sha": "x"}}, 415, "unsupported-media-type", "x-www-form-urlencoded"),
    ("GET", "/builds?limit=0", {}, 422, "invalid-request", "query.limit"),
    ("GET", "/builds?limit=201", {}, 422, "invalid-request", "query.limit"),
    ("GET", "/builds?cursor=me", {}, 422, "invalid-request", "Pass the `next` of the previous page"),
    ("GET", "/builds?state=done", {}, 422, "invalid-request", "'queued'"),
    ("GET", "/builds?branch=%00", {}, 422, "invalid-request", "U+0000"),
    ("GET", "/builds?prefix=%00", {}, 422, "invalid-request", "U+0000"),
    ("GET", "/models?version=%00", {}, 422, "invalid-request", "U+0000"),
    ("GET", "/models?branch=%00", {}, 422, "invalid-request", "U+0000"),
    ("GET", "/models?stage=moon", {}, 422, "invalid-request", "'production'"),
    ("GET", "/models/development/latest?version=%00", {}, 422, "invalid-request", "U+0000"),
    ("GET", "/models/%00", {}, 422, "invalid-request", "is not a prefix"),
    ("GET", "/models/1.0.0-abcdef1/artifacts/%00", {}, 404, "not-found", "There is no model"),
]


@pytest.mark.parametrize(
    ("method", "path", "content", "status", "kind", "says"),
    PROBLEMS,
    ids=[f"{method} {path} {content}" for method, path, content, *_ in PROBLEMS],
)
def test_every_error_is_a_problem_document(
    unchanged_api: TestClient,
    method: str,
    path: str,
    content: dict[str, Any],
    status: int,
    kind: str,
    says: str,
) -> None:
    answer = unchanged_api.request(method, path, **content)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["type"] == f"/problems/{kind}"
    assert problem["status"] == status
    assert problem["title"]
    assert says in problem["detail"]


def test_a_defect_is_a_problem_document_that_gives_nothing_away(
    api: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        msg = "the password is hunter2"
        raise ZeroDivisionError(msg)

    monkeypatch.setattr("app.registry.stages.latest.find", broken)
    answer = api.get("/models/development/latest")
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["type"] == "/problems/internal-error"
    assert "hunter2" not in answer.text


def test_a_registry_without_aws_credentials_says_what_it_lacks(
    settings: Settings, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.model(stages=(Stage.DEVELOPMENT,))
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    # A process looks for its credentials once.
    aws.session.cache_clear()
    with TestClient(create_app(settings)) as client:
        answer = client.get("/models/development/latest")
    aws.session.cache_clear()
    assert answer.status_code == 502
    assert answer.json()["type"] == "/problems/cloud-error"
    assert "IAM role" in answer.json()["detail"]


def test_while_the_database_is_away_callers_are_asked_to_retry(settings: Settings) -> None:
    away = settings.model_copy(
        update={"database_url": type(settings.database_url)("postgresql://127.0.0.1:1/x")}
    )
    with TestClient(create_app(away)) as client:
        for answer in (client.get("/models"), client.post("/builds", json=Registry(None).body())):  # type: ignore[arg-type]
            assert answer.status_code == 503
            assert answer.headers["retry-after"] == "5"
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.json()["type"] == "/problems/database-unavailable"


def test_a_cut_connection_is_replaced(api: TestClient, database: Database, registry: Registry) -> None:
    """As after a restart of Postgres, between two requests."""
    assert api.get("/models").status_code == 200
    with database.engine.begin() as connection:
        connection.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        )
    assert api.get("/models").status_code == 200
    assert api.post("/builds", json=registry.body()).status_code == 202


@pytest.mark.parametrize(
    ("call", "body", "scope", "may"),
    [
        (("post", "restore"), {}, "collect", "keeper"),
        (("post", "pin"), {"note": "mine"}, "collect", "keeper"),
        (("delete", "pin"), None, "collect", "keeper"),
        (("post", "release"), {"reason": "it was replaced"}, "admin", "root"),
        (("delete", "release"), None, "admin", "root"),
    ],
)
def test_what_decides_about_a_model_needs_its_scope(
    guarded: TestClient,
    registry: Registry,
    call: tuple[str, str],
    body: dict[str, str] | None,
    scope: str,
    may: str,
) -> None:
    method, what = call
    path = f"/models/{registry.model()}/{what}"
    for who in ("chief", "builder", "root" if may == "keeper" else "keeper"):
        refused = guarded.request(method, path, json=body, headers=as_(who))
        assert (refused.status_code, refused.json()["required_scope"]) == (403, scope)
    assert guarded.request(method, path, json=body, headers=as_(may)).status_code == 200


def test_a_change_of_a_verdict_needs_the_scope_override_and_a_model(
    guarded: TestClient, registry: Registry
) -> None:
    prefix, body = registry.model(), {"verdict": "failed", "reason": "bad"}
    for who in ("deploy", "root", "builder"):
        refused = guarded.post(f"/models/{prefix}/verdict", json=body, headers=as_(who))
        assert (refused.status_code, refused.json()["required_scope"]) == (403, "override")
    assert guarded.post(f"/models/{prefix}/verdict", json=body, headers=as_("chief")).status_code == 200
    missing = guarded.post("/models/9.9.9-aaaaaaa/verdict", json=body, headers=as_("chief"))
    assert missing.status_code == 404
    assert guarded.get("/models/9.9.9-aaaaaaa/validation").status_code == 404
