"""The outbox: what is due, and for how long a failing change is put off."""

from datetime import timedelta

from app.registry import outbox
from app.words import Stage
from tests.integration.app.registry import Registry


def due(registry: Registry) -> list[str]:
    with registry.database.transaction() as session:
        return [change.key for change in outbox.due(session)]


def test_changes_are_due_in_their_order_until_they_are_done(registry: Registry) -> None:
    prefix = registry.model(stages=(Stage.DEVELOPMENT, Stage.STAGING))
    assert due(registry) == [f"{prefix}/passed", f"{prefix}/development", f"{prefix}/staging"]
    with registry.database.transaction() as session:
        outbox.done(session, outbox.due(session)[0].id)
    assert due(registry) == [f"{prefix}/development", f"{prefix}/staging"]


def test_a_failing_change_is_put_off_ever_longer_and_keeps_no_other_waiting(registry: Registry) -> None:
    prefix = registry.model(stages=(Stage.DEVELOPMENT,))
    with registry.database.transaction() as session:
        first = outbox.due(session)[0].id
    waits = []
    for _ in range(12):
        with registry.database.transaction() as session:
            waits.append(outbox.failed(session, first, "SlowDown: later"))
    assert waits == [timedelta(seconds=min(300, 2**n)) for n in range(12)]
    assert due(registry) == [f"{prefix}/development"]
    row = "SELECT last_error || ' ' || attempts FROM outbox WHERE id = :id"
    assert registry.value(row, id=first) == "SlowDown: later 12"
    registry.execute("UPDATE outbox SET next_attempt_at = now()")
    assert len(due(registry)) == 2


def test_a_change_that_has_failed_for_years_is_still_tried(registry: Registry) -> None:
    registry.model()
    registry.execute("UPDATE outbox SET attempts = 1000000")
    with registry.database.transaction() as session:
        assert outbox.failed(session, outbox.due(session)[0].id, "x") == timedelta(minutes=5)


def test_done_twice_keeps_the_first_time(registry: Registry) -> None:
    registry.model()
    with registry.database.transaction() as session:
        change = outbox.due(session)[0].id
        outbox.done(session, change)
    first = registry.value("SELECT done_at FROM outbox")
    with registry.database.transaction() as session:
        outbox.done(session, change)
    assert registry.value("SELECT done_at FROM outbox") == first
