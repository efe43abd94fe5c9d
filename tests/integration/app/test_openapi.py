"""The OpenAPI document: the committed snapshot, and what it must say about every operation."""

import json
import re
from typing import Any
from uuid import UUID

import pytest
from fastapi.testclient import TestClient

from app.api.common import examples
from app.settings import Settings
from app.storage.bucket import Bucket
from app.words import Stage
from tests.integration.app.registry import Registry
from tests.integration.app.snapshot import SNAPSHOT, document
from tests.integration.app.test_access import FOR_ADMINS


def operations() -> list[tuple[str, dict[str, Any]]]:
    return [
        (f"{method} {path}", operation)
        for path, methods in document()["paths"].items()
        for method, operation in methods.items()
    ]


# Whoever calls it has no token yet.
SIGN_IN = "post /auth/github"


def test_the_snapshot_is_the_document() -> None:
    how = "The API changed. If that was meant: python -m tests.integration.app.snapshot"
    assert json.loads(SNAPSHOT.read_text(encoding="utf-8")) == document(), how


@pytest.mark.parametrize(("name", "operation"), operations(), ids=[name for name, _ in operations()])
def test_an_operation_is_described_to_its_last_parameter(name: str, operation: dict[str, Any]) -> None:
    assert operation["summary"]
    assert operation["description"]
    resource, _, verb = operation["operationId"].partition(":")
    assert resource == operation["tags"][0]
    assert verb.isalpha()
    for parameter in operation.get("parameters", []):
        assert parameter["description"], parameter["name"]
    for status, response in operation["responses"].items():
        # The framework's own words say nothing about what the answer is.
        assert response["description"] not in ("", "Successful Response"), status


@pytest.mark.parametrize(("name", "operation"), operations(), ids=[name for name, _ in operations()])
def test_an_operation_documents_the_problems_that_it_can_answer_with(
    name: str, operation: dict[str, Any]
) -> None:
    if name in ("get /healthz", "get /readyz"):
        return
    documented = {}
    for status, response in operation["responses"].items():
        if status.startswith(("4", "5")):
            assert list(response["content"]) == ["application/problem+json"]
            for type_, example in response["content"]["application/problem+json"]["examples"].items():
                assert example["value"]["type"] == f"/problems/{type_}"
                assert example["value"]["status"] == int(status)
                documented[type_] = int(status)
    # Every call can be given a wrong parameter, and can meet a database that is away, or a defect.
    always = {"invalid-request": 422, "database-unavailable": 503, "internal-error": 500}
    assert documented.items() >= (always | {"unauthorized": 401, "forbidden": 403}).items()
    if "requestBody" in operation:
        bodies = {"body-too-large": 413, "unsupported-media-type": 415, "request-timeout": 408}
        assert documented.items() >= bodies.items()
    # The page sends the token with every call that may need it, and says where it is always needed.
    optional = name == SIGN_IN or (name.startswith("get") and name.removeprefix("get ") not in FOR_ADMINS)
    assert operation["security"] == [*([{}] if optional else []), {"HTTPBearer": []}]
    # Which stages there are is known: another one is an invalid request.
    if "{" in name.replace("/stages/{stage}", ""):
        assert 404 in documented.values()


def test_an_answer_leaves_no_field_out() -> None:
    """A client that is generated from the document must not check whether a field is there."""
    whole = document()
    answers = {
        schema["$ref"].rpartition("/")[2]
        for _, operation in operations()
        for response in operation["responses"].values()
        for content in response.get("content", {}).values()
        if "$ref" in (schema := content.get("schema", {}))
    }
    found = {}
    while answers:
        schema = whole["components"]["schemas"][answers.pop()]
        if (title := schema["title"]) not in found:
            found[title] = schema.get("properties", {}).keys() - set(schema.get("required", ()))
            inner = re.findall(r'"#/components/schemas/(\w+)"', json.dumps(schema))
            answers |= set(inner)
    assert len(found) > 10
    assert {title: optional for title, optional in found.items() if optional} == {}


def test_no_parameter_is_a_null() -> None:
    """One that may be left out is not required, and a URL has no null that could be sent."""
    parameters = [parameter for _, operation in operations() for parameter in operation.get("parameters", ())]
    assert parameters
    assert [each["name"] for each in parameters if "null" in json.dumps(each["schema"])] == []


def test_operation_ids_are_unique() -> None:
    ids = [operation["operationId"] for _, operation in operations()]
    assert len(set(ids)) == len(ids)


def test_every_body_and_every_answer_has_an_example() -> None:
    whole = document()

    def has_example(content: dict[str, Any]) -> bool:
        schema = content.get("schema", {})
        named = whole["components"]["schemas"].get(schema.get("$ref", "").rpartition("/")[2], schema)
        properties = named.get("properties", {}).values()
        whole_examples = "example" in content or "examples" in content or "examples" in named
        return whole_examples or (bool(properties) and all("examples" in value for value in properties))

    missing = [
        (name, status)
        for name, operation in operations()
        for status, response in [("body", operation.get("requestBody", {})), *operation["responses"].items()]
        for content in response.get("content", {}).values()
        if not has_example(content)
    ]
    assert missing == []


def test_the_example_of_every_body_works_when_it_is_sent(
    api: TestClient, registry: Registry, settings: Settings
) -> None:
    """In the order of the document: each finds what those before it have made."""
    registry.bucket = Bucket.of(settings)
    registry.model("0.0.1", stages=(Stage.DEVELOPMENT,))
    schemas = document()["components"]["schemas"]
    for name, operation in operations():
        # test_github_sign_in.py tests this one, whose body only an issuer can make.
        if "requestBody" not in operation or name == SIGN_IN:
            continue
        method, _, path = name.partition(" ")
        schema = operation["requestBody"]["content"]["application/json"]["schema"]
        address = path.format(prefix=examples.PREFIX, stage="development")
        for example in schemas[schema["$ref"].rpartition("/")[2]]["examples"]:
            answer = api.request(method, address, json=example)
            assert 200 <= answer.status_code < 300, f"{name}: {answer.text}"
            assert str(answer.status_code) in operation["responses"], name
            if name == "post /builds":
                registry.publish(UUID(answer.json()["build"]["id"]))
                registry.promote(examples.PREFIX, Stage.DEVELOPMENT)
