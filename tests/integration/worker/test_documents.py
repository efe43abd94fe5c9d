"""The documents for auditors: each satisfies its published schema, and a model always gives the same text."""

import json
from datetime import UTC, datetime
from typing import Any

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from google.protobuf import json_format
from in_toto_attestation.predicates.provenance.v1 import provenance_pb2
from in_toto_attestation.v1.statement import Statement
from in_toto_attestation.v1.statement_pb2 import Statement as StatementPb

from app.registry import inputs
from app.registry.inputs import InputRecord
from app.storage import keys
from app.words import InputKind
from tests.integration.worker.conftest import OUTPUT, Flow, sha256
from tests.integration.worker.test_signing import finish
from worker.documents.sbom import Described, sbom


def published(flow: Flow, prefix: str, name: str) -> dict[str, Any]:
    content = flow.clouds.bucket.fetch(keys.artifact_key(prefix, name), 1 << 20).content
    document: dict[str, Any] = json.loads(content)
    return document


def test_the_published_documents_satisfy_their_schemas(trained: Flow) -> None:
    prefix = finish(trained)
    bill = published(trained, prefix, keys.SBOM)
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(bill)) is None
    assert bill["metadata"]["component"]["hashes"] == [
        {"alg": "SHA-256", "content": sha256(OUTPUT[keys.MODEL_ZIP])}
    ]
    card = bill["metadata"]["component"]["modelCard"]["quantitativeAnalysis"]
    assert {"slice": "known", "type": "top_1", "value": "0.5"} in card["performanceMetrics"]

    statement = published(trained, prefix, keys.PROVENANCE)
    parsed = json_format.ParseDict(statement, StatementPb())
    Statement.copy_from_pb(parsed).validate()
    predicate = json_format.ParseDict(statement["predicate"], provenance_pb2.Provenance())
    metadata = predicate.run_details.metadata
    assert metadata.invocation_id == str(trained.build_id)
    assert metadata.started_on.ToDatetime() < metadata.finished_on.ToDatetime()

    # Each recorded input is there, in both.
    with trained.database.transaction() as session:
        used = inputs.of_build(session, trained.build_id)
    assert {part["bom-ref"] for part in bill["components"]} == {f"{item.kind}:{item.name}" for item in used}
    named = statement["predicate"]["buildDefinition"]["resolvedDependencies"]
    assert {one["name"] for one in named} == {item.name for item in used}
    [code] = [one for one in named if one["name"] == "training repository"]
    with trained.database.transaction():
        assert code["digest"]["gitCommit"] == trained.view().sha
    for one in named:
        assert "@" not in one.get("uri", "").partition("://")[2].partition("/")[0]


def test_the_same_model_gives_the_same_text() -> None:
    used = (
        InputRecord(InputKind.RAW_DATA, "raw_source_data.zip", "a" * 64, 3, "s3://bucket/inputs/sha256/a"),
        InputRecord(InputKind.CODE, "commit", None, None, f"git+https://example.org/code@{'b' * 40}"),
        InputRecord(InputKind.TRANSFORMER, "a/transformer", "c" * 64),
    )
    at = datetime(2026, 11, 23, 10, 0, 41, tzinfo=UTC)
    model = Described("0.0.2-aff1242", "d" * 64, at, used, {"everyday": {"top_1": 0.62, "count": 200}})
    text = sbom(model)
    assert text == sbom(model)
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    undated = sbom(Described("0.0.2-aff1242", "d" * 64, None, ()))
    assert "timestamp" not in json.loads(undated)["metadata"]
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(undated) is None
