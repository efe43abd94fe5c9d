"""GET /builds: nothing that is stored makes an answer fail, and nothing private is shown."""

import copy
import json
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from fastapi.testclient import TestClient

from app.db.session import Database
from app.registry.builds import steps
from app.words import BuildKind, Stage, StepName
from tests.integration.app.registry import Registry, listening
from worker.flows import FLOWS

# What only the worker needs: networks, private addresses, the secret's name, and paths of machines.
HIDDEN = {
    # Where the code came from may be a path of the worker's machine.
    StepName.FIND_IMAGE: {"pins"},
    StepName.FIND_NETWORK: {"subnet_id", "vpc_id", "security_group_id"},
    StepName.LAUNCH_INSTANCE: {"launch_id", "host_key"},
    StepName.AWAIT_ADDRESS: {"address"},
    StepName.FETCH_KEY: {"secret", "secret_version"},
    StepName.VALIDATE_CONNECTION: {"host_key", "home"},
    StepName.BRING_CODE: {"origin"},
    # The configuration is long, and is published with the model.
    StepName.TRAIN: {"log_bytes", "snapshots", "contents", "config"},
    # Only a training has epochs.
    StepName.BENCHMARK: {"log_bytes", "snapshots", "contents", "config", "epochs"},
    # It is published with the model, as check_result.json.
    StepName.VALIDATE: {"report"},
}


# What can be long, and is left out of the list of builds.
LONG = ("epochs", "phases", "data", "warnings", "model_files")


def shown(api: TestClient, build_id: UUID) -> dict[str, Any]:
    """The build as its page shows it. The list shows the same, but for what can be long."""
    one = api.get(f"/builds/{build_id}")
    assert one.status_code == 200, one.text
    many = api.get("/builds")
    assert many.status_code == 200, many.text
    found: dict[str, Any] = one.json()
    short = copy.deepcopy(found)
    for step in short["steps"]:
        for name in LONG:
            (step["output"] or {}).pop(name, None)
    assert short in many.json()["items"]
    return found


@pytest.mark.parametrize(
    "progress",
    [
        {"phase": "embed", "percent": -5},
        {"phase": "embed", "percent": 100.5},
        {"phase": "embed", "percent": "half"},
        {"phase": "embed", "percent": 50, "eta_seconds": -1},
        {"phase": "embed", "percent": 50, "eta_seconds": "soon"},
        {"phase": None, "percent": 50},
        {"phase": "x" * 100_000, "percent": 50},
        {"percent": 50},
        {},
        {"phase": ["embed"], "percent": {}},
    ],
    ids=lambda progress: json.dumps(progress)[:40],
)
def test_progress_that_makes_no_sense_is_not_shown(
    api: TestClient, registry: Registry, progress: dict[str, Any]
) -> None:
    build_id = registry.queue()
    registry.take(build_id)
    other = registry.queue()
    registry.take(other)
    registry.execute(
        "UPDATE builds SET progress = CAST(:p AS jsonb) WHERE id = :id", p=json.dumps(progress), id=build_id
    )
    registry.execute(
        """UPDATE builds SET progress = '{"phase": "embed", "percent": 37.5}' WHERE id = :id""", id=other
    )
    assert shown(api, build_id)["progress"] is None
    assert shown(api, other)["progress"] == {"phase": "embed", "percent": 37.5, "eta_seconds": None}


def test_words_that_only_a_newer_version_knows_are_shown_as_they_stand(
    api: TestClient, registry: Registry
) -> None:
    prefix = registry.model(stages=(Stage.DEVELOPMENT,))
    build_id = registry.value("SELECT id FROM builds")
    for table, constraint in [
        ("builds", "state"),
        ("builds", "kind"),
        ("builds", "promote_to"),
        ("build_steps", "state"),
        ("models", "verdict"),
        ("promotions", "stage"),
    ]:
        registry.execute(f"ALTER TABLE {table} DROP CONSTRAINT ck_{table}_{constraint}")
    registry.execute(
        "INSERT INTO build_steps (build_id, name, state, attempts, started_at, output)"
        """ VALUES (:id, 'warm_the_cache', 'paused', 1, now(), '{"secret": 1}')""",
        id=build_id,
    )
    registry.execute(
        "UPDATE builds SET state = 'superseded', kind = 'distil', promote_to = 'canary',"
        " failure_step = 'melt', failure_code = 'melted', failure_message = 'Too hot.'"
    )
    registry.execute("UPDATE models SET verdict = 'undecided'")
    registry.execute(
        "INSERT INTO promotions (stage, model_id, version, promoted_by)"
        " SELECT 'canary', id, version, 'x' FROM models"
    )
    build = shown(api, build_id)
    assert (build["state"], build["kind"], build["promote_to"]) == ("superseded", "distil", "canary")
    assert build["failure"] == {"step": "melt", "code": "melted", "message": "Too hot.", "retry_helps": None}
    [step] = [step for step in build["steps"] if step["name"] == "warm_the_cache"]
    assert (step["state"], step["output"]) == ("paused", {})
    model = api.get(f"/models/{prefix}").json()
    assert (model["verdict"], model["stages"]) == ("undecided", ["development", "canary"])
    del model["warnings"]
    assert api.get("/models").json()["items"] == [model]
    assert api.get("/models/development/latest").json()["verdict"] == "undecided"


OUTPUTS: list[dict[str, Any]] = [
    {},
    {"instance_id": "i-1"},
    {"instance_id": 7, "instance_type": None, "region": []},
    {"name": {"a": 1}},
]


@pytest.mark.parametrize("output", OUTPUTS, ids=str)
def test_an_output_that_another_version_wrote_makes_no_answer_fail(
    api: TestClient, registry: Registry, output: dict[str, Any]
) -> None:
    build_id = registry.queue()
    lease = registry.take(build_id)
    for name in BuildKind.TRAIN.steps:
        with registry.database.transaction() as session:
            steps.start(session, lease, name)
            steps.finish(session, lease, name, output)
    assert shown(api, build_id)["instance"] is None


def test_every_field_of_every_steps_output_is_either_shown_or_hidden_on_purpose(
    api: TestClient, registry: Registry
) -> None:
    build_id = registry.queue()
    lease = registry.take(build_id)
    # Those of a reproduction come last: what its steps have beside those of the others counts.
    flow = {step.name: step for kind in (BuildKind.TRAIN, BuildKind.REPRODUCE) for step in FLOWS[kind]}
    for name in flow:
        output = {field: f"value of {name}.{field}" for field in flow[name].output.model_fields}
        with registry.database.transaction() as session:
            steps.start(session, lease, name)
            steps.finish(session, lease, name, output)
    for step in shown(api, build_id)["steps"]:
        hidden = HIDDEN.get(step["name"], set())
        assert set(step["output"]) == set(flow[step["name"]].output.model_fields) - hidden, step["name"]


def test_a_message_is_shown_without_sql_and_not_at_any_length(api: TestClient, registry: Registry) -> None:
    build_id = registry.queue()
    registry.fail(build_id)
    sql = (
        "IntegrityError: (psycopg.errors.CheckViolation) new row violates a check\n"
        "[SQL: INSERT INTO build_inputs (secret) VALUES (%(secret)s)]\n[parameters: {'secret': 'x'}]"
    )
    registry.execute("UPDATE builds SET failure_message = :message", message=sql)
    registry.execute("UPDATE build_steps SET message = :message", message="x" * 3_000_000)
    build = shown(api, build_id)
    assert build["failure"]["message"] == sql.partition("\n")[0]
    assert len(json.dumps(build)) < 20_000


@pytest.fixture
def queries(api: TestClient) -> Callable[[str], list[str]]:
    database: Database = api.app.state.database  # type: ignore[attr-defined]

    def of(path: str) -> list[str]:
        with listening(database) as statements:
            assert api.get(path, follow_redirects=False).status_code in (200, 307)
        return statements.seen

    return of


def test_no_answer_loads_what_it_does_not_show(
    queries: Callable[[str], list[str]], registry: Registry
) -> None:
    """A configuration can have a MiB: a page of 200 builds would load 400."""
    prefix = registry.model(stages=(Stage.DEVELOPMENT,))
    build_id = registry.value("SELECT id FROM builds")
    for path in ("/builds", f"/builds/{build_id}", f"/builds/{build_id}/log"):
        assert not [query for query in queries(path) if "search_config" in query], path
    assert not [query for query in queries(f"/builds/{build_id}/log") if "build_steps" in query]
    assert not [query for query in queries(f"/models/{prefix}/artifacts/model.zip") if "promotions" in query]
