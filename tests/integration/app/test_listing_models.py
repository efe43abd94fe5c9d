"""GET /models and GET /models/{prefix}: filters, and pages without gaps or doubles."""

import random

import psycopg
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.db.session import Database
from app.registry.models import catalogue
from app.registry.pages import Cursor
from app.words import Stage, Verdict
from tests.databases import empty
from tests.integration.app.registry import Registry, listening

DEVELOPMENT, STAGING, PRODUCTION = Stage


def prefixes(api: TestClient, **filters: str) -> list[str]:
    return [item["prefix"] for item in api.get("/models", params=filters).json()["items"]]


def test_a_model_is_shown_whole(api: TestClient, registry: Registry) -> None:
    prefix = registry.model("1.0.0", branch="feature/x", stages=(DEVELOPMENT, STAGING))
    shown = api.get(f"/models/{prefix}").json()
    assert shown["branch"] == "feature/x"
    assert shown["metrics"] == {"everyday": {"count": 200, "top_1": 0.62}}
    assert shown["stages"] == ["development", "staging"]
    assert [promotion["stage"] for promotion in shown["promotions"]] == ["development", "staging"]
    assert [artifact["name"] for artifact in shown["artifacts"]] == ["model.zip"]
    assert shown["published_at"].endswith("Z")


def test_a_prefix_without_a_model_is_not_found(api: TestClient) -> None:
    answer = api.get("/models/1.0.0-abcdef1")
    assert answer.status_code == 404
    assert "GET /builds?prefix=1.0.0-abcdef1" in answer.json()["detail"]


def test_models_are_listed_by_version_branch_and_stage(api: TestClient, registry: Registry) -> None:
    a = registry.model("1.0.0", branch="main", stages=(DEVELOPMENT,))
    b = registry.model("1.0.0", branch="feature", stages=(DEVELOPMENT, STAGING))
    c = registry.model("1.1.0", branch="feature")
    assert prefixes(api) == [c, b, a]
    assert prefixes(api, version="1.0.0") == [b, a]
    assert prefixes(api, branch="feature") == [c, b]
    assert prefixes(api, stage="development") == [b, a]
    assert prefixes(api, stage="staging", version="1.0.0", branch="feature") == [b]
    assert prefixes(api, stage="production") == []
    # Promoted again and again, it is still one model.
    registry.promote(a, DEVELOPMENT)
    assert prefixes(api, stage="development") == [b, a]


def test_models_are_listed_by_verdict_origin_time_and_text(api: TestClient, registry: Registry) -> None:
    a = registry.model("1.0.0", branch="main")
    b = registry.model("1.1.0", verdict=Verdict.FAILED, branch="feature/50%_more")
    moment = api.get(f"/models/{b}").json()["published_at"]
    assert prefixes(api, verdict="failed") == [b]
    assert prefixes(api, origin="built") == [b, a]
    assert prefixes(api, origin="imported") == []
    assert prefixes(api, since=moment) == [b]
    assert prefixes(api, until=moment) == [a]
    assert prefixes(api, q="FEATURE/50%_") == [b]
    assert prefixes(api, q="%") == [b]
    assert prefixes(api, q=a[2:9]) == [a]
    assert prefixes(api, q="main", verdict="failed") == []
    umlaut = registry.model("1.2.0", branch="Größe/ÄPFEL")
    assert prefixes(api, q="gRÖSSE/") == []
    assert prefixes(api, q="gRößE/Äpfel") == [umlaut]
    refused = api.get("/models", params={"since": "yesterday"})
    assert refused.status_code == 422
    assert "2026-11-23T10:12:44Z" in refused.text


def test_builds_are_listed_by_version_time_and_text(api: TestClient, registry: Registry) -> None:
    a, b = registry.queue("1.0.0", branch="main"), registry.queue("1.1.0", branch="feature/x")

    def ids(**filters: str) -> list[str]:
        return [item["id"] for item in api.get("/builds", params=filters).json()["items"]]

    moment = api.get(f"/builds/{b}").json()["created_at"]
    assert ids(version="1.1.0") == ids(since=moment) == ids(q="Feature") == [str(b)]
    assert ids(until=moment) == ids(q="1.0.0") == [str(a)]


def test_a_page_takes_three_statements_however_many_models_are_on_it(
    database: Database, registry: Registry
) -> None:
    for _ in range(5):
        registry.model(stages=(DEVELOPMENT,))
    with database.transaction() as session, listening(database) as statements:
        assert len(catalogue.find(session, limit=50).items) == 5
    assert len(statements.seen) == 3


def test_the_last_page_has_no_cursor(api: TestClient, registry: Registry) -> None:
    assert api.get("/models").json() == {"items": [], "next": None}
    all_ = [registry.model() for _ in range(4)]
    first = api.get("/models", params={"limit": 2}).json()
    last = api.get("/models", params={"limit": 2, "cursor": first["next"]}).json()
    assert last["next"] is None
    assert [item["prefix"] for item in first["items"] + last["items"]] == all_[::-1]


def insert(registry: Registry, number: int, second: int) -> None:
    """A model published at that second of an hour: several may share one."""
    registry.execute(
        """
        WITH made AS (
            INSERT INTO builds (prefix, version, sha, branch, search_config, requested_by, state, finished_at)
            VALUES ('1.0.0-' || lpad(to_hex(CAST(:n AS int)), 7, '0'), '1.0.0',
                    lpad(to_hex(CAST(:n AS int)), 7, '0'), 'main', '', 'x', 'succeeded', now())
            RETURNING *)
        INSERT INTO models
               (prefix, version, sha, branch, build_id, metrics, verdict, verdict_reason, published_at)
        SELECT prefix, version, sha, branch, id, '{}', 'passed', '',
               timestamptz '2026-01-01' + CAST(:s AS int) * interval '1 second'
          FROM made
        """,
        n=number,
        s=second,
    )


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seconds=st.lists(st.integers(0, 5), max_size=12),
    limit=st.integers(1, 5),
    seed=st.integers(0, 1000),
)
def test_pages_have_no_gaps_or_doubles_while_models_are_added(
    registry: Registry, seconds: list[int], limit: int, seed: int
) -> None:
    with psycopg.connect(registry.database.conninfo) as connection:
        empty(connection)
    for number, second in enumerate(seconds):
        insert(registry, number, second)
    expected = registry.values("SELECT prefix FROM models ORDER BY published_at DESC, id DESC")
    chance = random.Random(seed)
    seen: list[str] = []
    cursor: Cursor | None = None
    number = len(seconds)
    while True:
        with registry.database.transaction() as session:
            page = catalogue.find(session, limit=limit, cursor=cursor)
        seen += [model.prefix for model in page.items]
        assert len(page.items) <= limit
        if page.next is None:
            break
        cursor = Cursor.parse(str(page.next))
        if chance.random() < 0.5:
            # Newer than everything: it belongs before the first page.
            insert(registry, number, 3600)
            number += 1
    assert seen == expected


def test_pages_of_a_search_hold_every_item_once(api: TestClient, registry: Registry) -> None:
    """Also together with other filters, and for items that are not next to each other in the whole list."""
    wanted = []
    for number in range(4):
        wanted.append(registry.model(f"1.{number}.0", branch="Feature/x", stages=(DEVELOPMENT,)))
        registry.model(f"2.{number}.0", branch="main", stages=(DEVELOPMENT,))
        registry.model(f"3.{number}.0", branch="feature/not-promoted")
    filters = {"q": "feature", "stage": "development", "limit": "1"}
    found: list[str] = []
    page = api.get("/models", params=filters).json()
    while True:
        found += [item["prefix"] for item in page["items"]]
        if page["next"] is None:
            break
        page = api.get("/models", params=filters | {"cursor": page["next"]}).json()
    assert found == wanted[::-1]
