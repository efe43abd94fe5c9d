"""What a build makes of a database that cannot do its work for a while, and what it does to others then."""

import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from app.db.session import Database, is_temporary
from app.registry.builds import listing
from app.registry.builds.lease import Lease, fence, release, take
from app.settings import Settings
from worker.main import open_database
from worker.runner import MAX_TAKINGS, Runner

Post = Callable[..., UUID]
NewRunner = Callable[[], Runner]


@pytest.fixture
def workers_database(settings: Settings) -> Iterator[Database]:
    opened = open_database(settings)
    yield opened
    opened.close()


def idles_too_long(database: Database) -> None:
    with database.transaction() as session:
        session.execute(text("SET LOCAL idle_in_transaction_session_timeout = '50ms'"))
        time.sleep(0.3)
        session.execute(text("SELECT 1"))


def finds_a_standby(database: Database) -> None:
    with database.transaction() as session:
        session.execute(text("SET TRANSACTION READ ONLY"))
        session.execute(text("DELETE FROM outbox"))


def is_shut_down(database: Database) -> None:
    with database.transaction() as session:
        session.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))


def waits_for_a_lock(database: Database) -> None:
    with database.transaction() as holder, database.transaction() as waiter:
        holder.execute(text("LOCK TABLE outbox"))
        waiter.execute(text("SET LOCAL lock_timeout = '50ms'"))
        waiter.execute(text("LOCK TABLE outbox"))


@pytest.mark.parametrize("trouble", [idles_too_long, finds_a_standby, is_shut_down, waits_for_a_lock])
def test_trouble_of_the_database_does_not_end_a_build(
    trouble: Callable[[Database], None],
    database: Database,
    post: Post,
    new_runner: NewRunner,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("worker.steps.image.FindImage.act", lambda *_: trouble(database))
    build_id = post()
    with pytest.raises(DBAPIError) as raised:
        new_runner().carry(build_id)
    assert is_temporary(raised.value)
    with database.transaction() as session:
        build = listing.get(session, build_id)
    assert (build.state, build.failure_code) == ("running", None)


def test_a_worker_that_is_paused_in_a_transaction_keeps_the_build_no_longer_than_its_lease(
    workers_database: Database, database: Database, settings: Settings, post: Post
) -> None:
    build_id = post()
    with workers_database.transaction() as session:
        lease = take(session, build_id, "paused", settings.lease)
    assert lease is not None
    waited: list[timedelta] = []

    def be_paused() -> None:
        with workers_database.transaction() as paused:
            fence(paused, lease)
            began = time.monotonic()
            with database.transaction() as other:
                other.execute(text("SELECT 1 FROM builds FOR UPDATE"))
            waited.append(timedelta(seconds=time.monotonic() - began))
            paused.execute(text("SELECT 1"))

    with pytest.raises(DBAPIError) as raised:
        be_paused()
    assert is_temporary(raised.value)
    assert waited[0] < settings.lease


def test_a_workers_thread_does_not_wait_for_a_lock_longer_than_its_lease(
    workers_database: Database, database: Database, settings: Settings, post: Post
) -> None:
    build_id = post()
    with workers_database.transaction() as session:
        lease = take(session, build_id, "a worker", settings.lease)
    assert lease is not None
    with database.transaction() as other:
        other.execute(text("SELECT 1 FROM builds FOR UPDATE"))
        began = time.monotonic()
        with pytest.raises(DBAPIError) as raised, workers_database.transaction() as session:
            fence(session, lease)
        waited = timedelta(seconds=time.monotonic() - began)
    assert is_temporary(raised.value)
    assert waited < settings.lease


def test_no_trouble_of_the_database_counts_as_a_try_that_got_nowhere(
    database: Database, post: Post, new_runner: NewRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What a build does when the table of its steps is locked for long, or the database's disk is full.
    monkeypatch.setattr("app.registry.builds.steps.start", lambda *_: waits_for_a_lock(database))
    build_id = post()
    for _ in range(MAX_TAKINGS + 2):
        # Nobody has to wait until the lease ends either.
        with pytest.raises(DBAPIError):
            new_runner().carry(build_id)
    with database.transaction() as session:
        build = listing.get(session, build_id)
    assert (build.state, build.failure_code, build.lease_owner) == ("running", None, None)


def test_a_build_that_met_an_outage_is_free_as_soon_as_the_outage_ends(
    database: Database, post: Post, new_runner: NewRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The outage goes on while the worker tries to give the build back.
    outage = [True, True, True]

    def fails_for_a_while(session: Session, lease: Lease) -> None:
        if outage:
            outage.pop()
            session.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
        release(session, lease)

    monkeypatch.setattr("worker.runner.release", fails_for_a_while)
    monkeypatch.setattr("worker.steps.image.FindImage.act", lambda *_: is_shut_down(database))
    build_id = post()
    with pytest.raises(DBAPIError):
        new_runner().carry(build_id)
    with database.transaction() as session:
        assert listing.get(session, build_id).lease_owner is None
