"""Whatever a machine or a configuration says can be stored: recording never fails because of the content."""

import json
import math
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import String

from app.db.storable import MESSAGE_LIMIT, StorableJson, StorableText, json_of, text_of
from app.db.tables import Base
from app.registry import inputs, launches
from app.registry.builds import ending, listing, log, steps
from app.registry.builds.steps import Failure
from app.registry.inputs import InputRecord
from app.words import BuildState, InputKind, StepName
from tests.integration.app.registry import Registry

NASTY = [
    "a\x00b",
    "\ud800",
    "\x1b[2J",
    "x" * 1_000_000,
    "é" * 5_000,
    "",
    "\u202e",
    "'; DROP TABLE builds; --",
]
NASTY_NUMBERS: list[Any] = [math.inf, -math.inf, math.nan, 10**5000, -(10**400), 1e308, True, -5]


@pytest.mark.parametrize("nasty", NASTY, ids=range(len(NASTY)))
def test_a_failure_is_recorded_and_ends_its_build_whatever_it_says(shared: Registry, nasty: str) -> None:
    lease = shared.take(shared.queue())
    with shared.database.transaction() as session:
        steps.start(session, lease, StepName.TRAIN)
        steps.note(session, lease, StepName.TRAIN, nasty)
        log.append(session, lease, nasty)
        # A code and a step may come from a training or a worker of another version.
        steps.fail(session, lease, Failure(StepName.TRAIN, nasty, nasty))
    with shared.database.transaction() as session:
        ending.end(session, lease, BuildState.FAILED)
    with shared.database.transaction() as session:
        build = listing.get(session, lease.build_id)
    assert build.state == BuildState.FAILED
    assert len(build.failure_message or "") <= MESSAGE_LIMIT


@pytest.mark.parametrize("nasty", NASTY[:6], ids=range(6))
def test_names_urls_and_refusals_are_recorded_whatever_they_say(shared: Registry, nasty: str) -> None:
    lease = shared.take(shared.queue())
    with shared.database.transaction() as session:
        name = nasty[:1000]
        inputs.record(
            session, lease, [InputRecord(InputKind.TRANSFORMER, name, "a" * 64, origin=name or "x")]
        )
        place = launches.Place("eu-west-2", "eu-west-2a", "subnet-1")
        request = launches.request(session, lease, place, "g5.xlarge")
        launches.refused(session, lease, request.id, nasty[:1000], nasty)


@pytest.mark.parametrize("number", NASTY_NUMBERS, ids=range(len(NASTY_NUMBERS)))
def test_outputs_checkpoints_and_progress_are_stored_whatever_their_numbers(
    shared: Registry, number: Any
) -> None:
    lease = shared.take(shared.queue())
    content = {"number": number, "list": [number, {"deep": number}], "a\x00key": "a\ud800value"}
    with shared.database.transaction() as session:
        steps.start(session, lease, StepName.TRAIN)
        steps.checkpoint(session, lease, StepName.TRAIN, content)
        steps.set_progress(session, lease, content)
        steps.finish(session, lease, StepName.TRAIN, content)
    with shared.database.transaction() as session:
        assert set(steps.view(session, lease).outputs[StepName.TRAIN]) == {"number", "list", "a\ufffdkey"}


def test_every_text_and_json_column_passes_the_gate() -> None:
    loose = [
        f"{table.name}.{column.name}"
        for table in Base.metadata.tables.values()
        for column in table.columns
        if isinstance(column.type, String) or "JSON" in type(column.type).__name__.upper()
        if not isinstance(column.type, StorableText | StorableJson)
    ]
    assert loose == []


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(JSON, st.text(st.characters(), max_size=50))
def test_any_value_is_storable(shared: Registry, value: Any, words: str) -> None:
    with shared.database.engine.connect() as connection:
        statement = "SELECT CAST(:words AS text), CAST(:value AS jsonb)"
        connection.exec_driver_sql(
            statement.replace(":words", "%(words)s").replace(":value", "%(value)s"),
            {"words": text_of(words), "value": json_text(json_of(value))},
        )


def json_text(value: Any) -> str:
    return json.dumps(value, allow_nan=False)


def test_a_text_is_cut_and_says_so() -> None:
    cut = text_of("x" * 5_000, 100)
    assert len(cut) == 100
    assert cut.endswith("more characters)")
    assert text_of("short", 100) == "short"
