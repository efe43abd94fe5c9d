"""GET /builds/{id}/log: a reader can get any part of the log, to the byte."""

from uuid import UUID

import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.registry.builds import log
from tests.integration.app.registry import Registry

CHUNKS = ["plain\n", "größer\n", "日本語のログ\n", "🚢", "x" * 100, "\n", "naïve café\n"]
WHOLE = "".join(CHUNKS).encode()


@pytest.fixture
def build_id(registry: Registry) -> UUID:
    build_id = registry.queue()
    lease = registry.take(build_id)
    for chunk in CHUNKS:
        with registry.database.transaction() as session:
            log.append(session, lease, chunk)
    return build_id


def test_the_log_is_utf_8_text_with_where_to_go_on(api: TestClient, build_id: UUID) -> None:
    answer = api.get(f"/builds/{build_id}/log")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.content == WHOLE
    assert answer.headers["x-log-next-offset"] == answer.headers["x-log-size"] == str(len(WHOLE))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, len(WHOLE) + 3), st.integers(4, 40))
def test_any_part_is_the_same_bytes_and_ends_between_characters(
    registry: Registry, build_id: UUID, offset: int, limit: int
) -> None:
    with registry.database.transaction() as session:
        part, size = log.read(session, build_id, offset, limit)
    assert size == len(WHOLE)
    assert part == WHOLE[offset : offset + len(part)]
    assert len(part) <= limit
    assert part or offset >= len(WHOLE)
    WHOLE[: offset + len(part)].decode()


@pytest.mark.parametrize("limit", [4, 7, 64, 1000])
def test_following_by_offsets_gives_the_whole(registry: Registry, build_id: UUID, limit: int) -> None:
    found, offset = b"", 0
    while True:
        with registry.database.transaction() as session:
            part, _ = log.read(session, build_id, offset, limit)
        if not part:
            break
        part.decode()
        found, offset = found + part, offset + len(part)
    assert found == WHOLE


def test_a_follower_gets_what_came_since(api: TestClient, registry: Registry) -> None:
    build_id = registry.queue()
    lease = registry.take(build_id)
    offset, found = 0, ""
    for chunk in CHUNKS:
        with registry.database.transaction() as session:
            log.append(session, lease, chunk)
        answer = api.get(f"/builds/{build_id}/log", params={"offset": offset})
        assert answer.text == chunk
        offset, found = int(answer.headers["x-log-next-offset"]), found + answer.text
    assert found.encode() == WHOLE
    beyond = api.get(f"/builds/{build_id}/log", params={"offset": offset + 5})
    assert (beyond.content, beyond.headers["x-log-size"]) == (b"", str(len(WHOLE)))


def test_a_character_that_postgres_cannot_hold_is_replaced(api: TestClient, registry: Registry) -> None:
    build_id = registry.queue()
    with registry.database.transaction() as session:
        log.append(session, registry.take(build_id), "a\0b")
    assert api.get(f"/builds/{build_id}/log").text == "a\N{REPLACEMENT CHARACTER}b"


def test_a_build_that_has_logged_nothing_has_an_empty_log(api: TestClient, registry: Registry) -> None:
    answer = api.get(f"/builds/{registry.queue()}/log")
    assert (answer.status_code, answer.text) == (200, "")


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (f"/builds/{UUID(int=7)}/log", 404),
        (f"/builds/{UUID(int=7)}", 404),
        ("/builds/none", 422),
        (f"/builds/{UUID(int=1)}/log?offset=-1", 422),
        (f"/builds/{UUID(int=1)}/log?offset={10**30}", 422),
    ],
)
def test_a_log_that_does_not_exist_is_refused_with_a_problem(api: TestClient, path: str, status: int) -> None:
    answer = api.get(path)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_part_of_a_long_log_reads_no_more_than_its_chunks(registry: Registry) -> None:
    build_id = registry.queue()
    registry.execute(
        "INSERT INTO build_log_chunks (build_id, start, size_bytes, content)"
        " SELECT :id, n * 1000, 1000, repeat('x', 1000) FROM generate_series(0, 999) n",
        id=build_id,
    )
    registry.execute("ANALYZE build_log_chunks")
    with registry.database.transaction() as session:
        part, size = log.read(session, build_id, 500_500, 2000)
        read = session.connection().exec_driver_sql(
            "SELECT idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relname = 'build_log_chunks'"
        )
        fetched = read.scalar_one()
    assert (len(part), size) == (2000, 1_000_000)
    assert fetched < 10
