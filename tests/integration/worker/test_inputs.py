"""What a build records of everything that shaped its model, with a fake training that reports it."""

import hashlib
import json
from collections.abc import Callable, Iterator
from uuid import UUID

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from sqlalchemy import select

from app.db.session import Database
from app.db.tables import Input, InputPart
from app.registry import inputs
from app.registry.builds import requests
from app.registry.builds.requests import BuildRequest
from app.settings import Settings
from app.storage import keys
from app.words import InputKind, StepName
from local.fake_training import Control, Repository
from local.simcloud.server import SimCloud
from local.simcloud.settings import Settings as CloudSettings
from tests.integration.worker.conftest import CONFIG, Flow
from tests.integration.worker.test_documents import published
from tests.integration.worker.test_signing import finish
from worker.steps.job import Benchmark
from worker.steps.reported import JobInput

THRESHOLDS = """
[[thresholds]]
name = "Right"
benchmark = "known"
metric = "right"
direction = "increase_is_good"
high = 0.2
"""


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    return Repository.make(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module")
def head(repository: Repository) -> str:
    return repository.commit(CONFIG.replace("{version}", "0.0.2"))


@pytest.fixture(scope="module")
def _module_cloud(
    tmp_path_factory: pytest.TempPathFactory, repository: Repository, head: str
) -> Iterator[SimCloud]:
    """Its instances have the fake training for their repository."""
    control = Control(tmp_path_factory.mktemp("control"))
    settings = CloudSettings(
        repository=repository.folder, session_environment=control.environment(seconds=0.1)
    )
    with SimCloud(settings) as cloud:
        yield cloud


@pytest.fixture
def settings(settings: Settings, repository: Repository) -> Settings:
    return settings.model_copy(update={"code_repository": str(repository.folder)})


@pytest.fixture
def built(database: Database, head: str, filled_bucket: object, flow_of: Callable[[UUID], Flow]) -> Flow:
    """A build whose instance is gone."""
    with database.transaction() as session:
        config = CONFIG.replace("{version}", "0.0.2")
        answer = requests.request(session, BuildRequest(head, "main", config, thresholds=THRESHOLDS))
        assert answer.build is not None
        build_id = answer.build.id
    flow = flow_of(build_id)
    flow.do_until(StepName.VALIDATE)
    return flow


def test_everything_that_shaped_a_model_is_recorded_kept_and_named_in_its_provenance(built: Flow) -> None:
    with built.database.transaction() as session:
        used = {(one.kind, one.name): one for one in inputs.of_build(session, built.build_id)}
    by_kind = {kind: one for (kind, _), one in used.items()}
    assert set(by_kind) == set(InputKind) - {InputKind.ADDITIONAL_SOURCE, InputKind.REFERENCE_DATA}
    assert used[InputKind.HARDWARE, "instance type"].details == {
        "instance_type": "g5.xlarge",
        "region": "eu-west-2",
    }
    assert used[InputKind.HARDWARE, "training machine"].details == {"cpu": "fake"}
    assert by_kind[InputKind.DETERMINISM].details == {"seed": 0}
    assert by_kind[InputKind.TRANSFORMER].details == {"found_in": "image", "revision": "1"}
    # The rows of sources that come from the raw data.
    assert by_kind[InputKind.RAW_DATA].details["rows_by_source"] == {"cn": 21}

    # What was posted and the packages are kept. Training and benchmark ran in one environment: one input.
    for kind in (InputKind.CONFIG, InputKind.THRESHOLDS, InputKind.PYTHON_ENVIRONMENT):
        [one] = [one for one in used.values() if one.kind is kind]
        key = keys.input_key(one.sha256 or "")
        content = built.clouds.bucket.fetch(key, 1 << 20).content
        assert hashlib.sha256(content).hexdigest() == one.sha256
        assert one.origin == f"s3://{built.clouds.bucket.name}/{key}"
    with built.database.transaction() as session:
        environment = by_kind[InputKind.PYTHON_ENVIRONMENT].sha256
        stored = session.scalar(select(Input.content).where(Input.sha256 == environment))
        of_transformer = InputPart.container == by_kind[InputKind.TRANSFORMER].sha256
        files = session.scalars(select(InputPart.path).where(of_transformer)).all()
    assert stored == {"packages": {"fake": "1.0", "torch": "2.0"}}
    assert files == ["model.safetensors"]

    prefix = finish(built)
    predicate = published(built, prefix, keys.PROVENANCE)["predicate"]
    definition = predicate["buildDefinition"]
    named = {(one["annotations"]["kind"], one["name"]): one for one in definition["resolvedDependencies"]}
    assert set(named) == set(used)
    for key_of, one in used.items():
        assert named[key_of].get("digest", {}).get("sha256") == one.sha256
        assert one.sha256 is not None or one.origin is not None
    assert named[InputKind.DETERMINISM, "seed and switches"]["annotations"] == {
        "kind": "determinism",
        "seed": 0,
    }
    bill = published(built, prefix, keys.SBOM)
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(bill)) is None
    packages = {one["purl"] for one in bill["components"] if one["type"] == "library"}
    assert packages == {"pkg:pypi/fake@1.0", "pkg:pypi/torch@2.0"}
    [seed_of_bill] = [one for one in bill["components"] if one["bom-ref"].startswith("determinism:")]
    assert {"name": "tariff-model-registry:seed", "value": "0"} in seed_of_bill["properties"]
    # The files inside model.zip, which the worker has looked at.
    inside = {one["name"] for one in predicate["runDetails"]["byproducts"]}
    assert inside == {f"model.zip/target/{name}" for name in ("model.pt", "model.toml", "subheadings.json")}
    posted = definition["externalParameters"]
    assert (posted["search_config"], posted["thresholds"]) == (built.view().search_config, THRESHOLDS)


def test_what_a_training_tells_of_itself_is_stored_with_the_build(built: Flow) -> None:
    trained = built.view().outputs[StepName.TRAIN]
    assert trained["epochs"] == [{"epoch": 1, "loss": 0.5, "accuracy": 0.5}]
    assert trained["phases"] == [{"phase": "train", "seconds": 0.1}]
    assert trained["data"] == {"cn": {"rows": 21, "usable": 20, "broken": 1}}
    assert trained["warnings"] == ["one row is broken"]


def test_another_environment_of_the_benchmark_has_a_name_of_its_own(built: Flow) -> None:
    same = JobInput.model_validate(built.view().outputs[StepName.BENCHMARK]["contents"][0])
    other = same.model_copy(update={"sha256": "f" * 64})
    named = [Benchmark().named(built.view(), one).name for one in (same, other)]
    assert named == ["python 3.11.7", "python 3.11.7 (benchmark)"]
