"""Schemathesis goes through the whole OpenAPI document, against a real Postgres and the simulated S3.

It sends the document's examples, every boundary value, random requests that the document allows and forbids,
and sequences of requests that use the ids of earlier answers. Each answer is compared with the document.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from unittest.mock import AsyncMock

import pytest
import schemathesis
from fastapi import FastAPI
from schemathesis import engine
from schemathesis.config import SchemathesisConfig
from schemathesis.engine.events import FatalError, NonFatalError, ScenarioFinished
from schemathesis.engine.recorder import ScenarioRecorder

from app.api.builds import changes, following
from app.api.common import examples
from app.main import create_app
from app.registry.builds import requests
from app.registry.builds.requests import BuildRequest
from app.registry.inputs import InputRecord
from app.settings import Settings, Token
from app.storage import keys
from app.storage.bucket import Bucket
from app.words import Access, InputKind, Scope, Stage, Verdict
from tests.integration.app.registry import Registry
from tests.integration.app.snapshot import document

TOKEN = "t0ken"


@dataclass
class Findings:
    """What was found, and the statuses that each operation was answered with."""

    faults: list[str] = field(default_factory=list)
    requests: int = 0
    statuses: Mapping[str, set[int]] = field(default_factory=lambda: defaultdict(set))

    def add(self, recorder: ScenarioRecorder) -> None:
        self.requests += len(recorder.interactions)
        for case_id, interaction in recorder.interactions.items():
            if interaction.response is not None:
                label = recorder.cases[case_id].value.operation.label
                self.statuses[label].add(interaction.response.status_code)
        for checks in recorder.checks.values():
            self.faults += [
                f"{check.name}: {check.failure_info.failure}\n{check.failure_info.code_sample}"
                for check in checks
                if check.failure_info is not None
            ]


def explore(app: FastAPI, examples: int) -> Findings:
    """Send the requests. With the same number of examples, they are made in the same way each time."""
    config = SchemathesisConfig.from_dict(
        {
            "seed": 1,
            "headers": {"Authorization": f"Bearer {TOKEN}"},
            "generation": {"deterministic": True, "max-examples": examples, "database": "none"},
            # Some rules are not in the document, such as that a cursor must come from a page. So a request
            # that the document allows can be refused. How it is refused must be in the document.
            "checks": {"positive_data_acceptance": {"enabled": False}},
        }
    )
    schema = schemathesis.openapi.from_asgi("/openapi.json", app, config=config)
    findings = Findings()
    for event in engine.from_schema(schema).execute():
        match event:
            case ScenarioFinished():
                findings.add(event.recorder)
            case NonFatalError() | FatalError():
                findings.faults.append(str(event))
    return findings


def posted_example() -> BuildRequest:
    create = examples.BUILD_CREATE
    return BuildRequest(create["sha"], create["branch"], create["search_config"])


def add_provenance(registry: Registry, prefix: str) -> None:
    content = json.dumps(examples.PROVENANCE).encode()
    key = keys.artifact_key(prefix, keys.PROVENANCE)
    registry.execute(
        "INSERT INTO artifacts (model_id, name, key, sha256, size_bytes, content_type)"
        " SELECT id, :name, :key, :sha256, :size, 'application/json' FROM models WHERE prefix = :prefix",
        name=keys.PROVENANCE,
        key=key,
        sha256=hashlib.sha256(content).hexdigest(),
        size=len(content),
        prefix=prefix,
    )
    assert registry.bucket is not None
    registry.bucket.write(key, content, over=None)


@pytest.fixture
def app(settings: Settings, registry: Registry, monkeypatch: pytest.MonkeyPatch) -> FastAPI:
    """The API over a registry that has something of everything, where every call needs a token."""
    # The stream of an active build would not end for half an hour. So short a stream needs to hear nothing,
    # and the loops that Schemathesis runs the application in never stop what listens.
    monkeypatch.setattr(following, "LONGEST_S", 0.05)
    monkeypatch.setattr(changes.Changes, "_listen", AsyncMock())
    registry.bucket = Bucket.of(settings)
    registry.model("1.0.0", stages=tuple(Stage))
    registry.model("1.1.0", verdict=Verdict.FAILED, stages=(Stage.DEVELOPMENT,))
    # The models of the document's examples, so that they find something.
    registry.publish(registry.queue("0.0.1", sha="11ce0f5".ljust(40, "0")))
    with registry.database.transaction() as session:
        answer = requests.request(session, posted_example())
    assert answer.build is not None
    registry.use(answer.build.id, InputRecord(InputKind.RAW_DATA, "raw_source_data.zip", examples.DIGEST, 10))
    registry.publish(answer.build.id)
    add_provenance(registry, examples.PREFIX)
    for stage in Stage:
        registry.promote(examples.PREFIX, stage)
    registry.queue("2.0.0")
    registry.take(registry.queue("3.0.0"))
    registry.fail(registry.queue("4.0.0"))
    digest = hashlib.sha256(TOKEN.encode()).hexdigest()
    token = Token.parse(f"root={digest}:{'+'.join(Scope)}")
    return create_app(settings.model_copy(update={"access": Access.TOKENS, "api_tokens": (token,)}))


def check(findings: Findings) -> None:
    assert not findings.faults, "\n\n".join(findings.faults[:10])
    labels = [
        f"{method.upper()} {path}" for path, methods in document()["paths"].items() for method in methods
    ]
    # Only what has succeeded was really tried. Nobody but an issuer can make the body of this one.
    refused = [label for label in labels if min(findings.statuses[label]) >= 400]
    assert refused == ["POST /auth/github"]


def test_every_answer_is_as_the_document_says(app: FastAPI) -> None:
    check(explore(app, examples=10))


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_every_answer_is_as_the_document_says_however_long_one_tries(app: FastAPI) -> None:
    check(explore(app, examples=100))
