"""A request is refused unless every part of it means one clear thing: parameters, texts, booleans, JSON."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.api.common import examples
from app.settings import Settings
from app.storage.bucket import Bucket
from app.words import Stage
from tests.integration.app.registry import Registry, config_of
from tests.integration.app.snapshot import document

JSON = {"Content-Type": "application/json"}
PATHS = {
    "id": "6f1c2b7e-0d5a-4c39-9a51-3e0c9d1f7b42",
    "prefix": "1.0.0-abcdef1",
    "other": "1.0.0-abcdef2",
    "name": "provenance.json",
    "sha256": "a" * 64,
    "stage": "development",
}
BODIES: dict[str, dict[str, Any]] = {
    "/builds": Registry(None).body(base_search_config=config_of("0.9.0")),  # type: ignore[arg-type]
    "/models/{prefix}/verdict": {"verdict": "failed", "reason": "bad"},
    "/models/{prefix}/sign": {},
    "/models/{prefix}/reproduce": {},
    "/models/{prefix}/restore": {},
    "/models/{prefix}/pin": {"note": "why"},
    "/models/{prefix}/release": {"reason": "why"},
    "/models/{prefix}/promotions": {"stage": "development", "note": "why"},
    "/stages/{stage}/rollback": {"expected": "1.0.0-abcdef1", "note": "why"},
    "/runs/{id}/stop": {},
    "/mirror/reconcile": {},
    "/builds/{id}/cancel": {},
    "/builds/{id}/retry": {},
    "/imports": {},
    "/tokens": {"name": "ci", "scopes": ["build"]},
    "/auth/github": examples.GITHUB_SIGN_IN,
    "/trusted-publishers": examples.PUBLISHER_CREATE,
    "/notifications/test": {},
    "/images/clean": {},
    "/gc/runs": {},
    "/gc/release-rules": examples.RELEASE_RULE_CREATE,
}


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document()["paths"].items():
        for method, operation in methods.items():
            yield method, path, operation


def address(path: str) -> str:
    return re.sub(r"{(\w+)}", lambda found: PATHS[found[1]], path)


OPERATIONS = [(method, path) for method, path, _ in operations()]


def refusal(api: TestClient, method: str, path: str, **more: Any) -> dict[str, Any]:
    """What is wrong with the request, by its place."""
    if method == "post" and "content" not in more:
        more.setdefault("json", BODIES[path])
    answer = api.request(method, address(path), **more)
    assert answer.status_code == 422, answer.text
    problem = answer.json()
    assert problem["type"] == "/problems/invalid-request"
    return {found["where"]: found["message"] for found in problem["problems"]}


@pytest.mark.parametrize(("method", "path"), OPERATIONS, ids=str)
def test_a_query_parameter_that_an_endpoint_does_not_know_is_refused(
    unchanged_api: TestClient, method: str, path: str
) -> None:
    parameters = document()["paths"][path][method].get("parameters", [])
    known = sorted(parameter["name"] for parameter in parameters if parameter["in"] == "query")
    for misspelt in ("verison=1.0.0", "limit%20=5", "Limit=5", "=", "%00=1"):
        found = refusal(unchanged_api, method, f"{path}", params=misspelt)
        [(where, message)] = found.items()
        assert where.startswith("query.")
        assert (f"takes: {', '.join(known)}." if known else "takes no query parameters") in message


def test_a_misspelt_version_is_not_answered_with_another_model(api: TestClient, registry: Registry) -> None:
    registry.model("1.0.0", stages=(Stage.DEVELOPMENT,))
    answer = api.get("/models/development/latest?verison=2.0.0")
    assert answer.status_code == 422
    assert "'verison'" in answer.json()["detail"] or "query.verison" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("method", "path", "name"),
    [
        (method, path, parameter["name"])
        for method, path, operation in operations()
        for parameter in operation.get("parameters", [])
        if parameter["in"] == "query"
    ],
)
def test_a_query_parameter_that_comes_twice_is_refused(
    unchanged_api: TestClient, method: str, path: str, name: str
) -> None:
    found = refusal(unchanged_api, method, path, params=f"{name}=1&{name}=2")
    assert "came 2 times" in found[f"query.{name}"]


def test_the_start_page_takes_no_parameters_either(unchanged_api: TestClient) -> None:
    assert unchanged_api.get("/?x=1", follow_redirects=False).status_code == 422


# Texts


def is_of(kind: str, schema: dict[str, Any]) -> bool:
    """Whether a value may be of this JSON type, and free: not one of a set of words."""
    kinds = [schema, *schema.get("anyOf", [])]
    return any(each.get("type") == kind for each in kinds) and not any("enum" in each for each in kinds)


def fields(kind: str) -> list[tuple[str, str]]:
    """The fields of this JSON type in every body, nullable ones too."""
    schemas = document()["components"]["schemas"]
    found = []
    for method, path, operation in operations():
        if "requestBody" not in operation:
            continue
        assert method == "post"
        reference = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
        for name, field in schemas[reference.rpartition("/")[2]]["properties"].items():
            if is_of(kind, field):
                found.append((path, name))
    return found


QUERY_TEXTS = [
    (path, parameter["name"])
    for _, path, operation in operations()
    for parameter in operation.get("parameters", [])
    if parameter["in"] == "query" and is_of("string", parameter["schema"])
]
# A line break, NUL, the start of a terminal's command, C1's, a line separator, an override of the direction.
CONTROLS = ["\x00", "\x1b[31m", "\x7f", "\x9b", "\u2028", "\u202e"]
SURROGATES = ["\\ud800", "\\udfff", "\\udc00\\ud800"]


def test_the_bodies_have_texts_and_booleans() -> None:
    assert {name for _, name in fields("string")} >= {"sha", "branch", "base_search_config", "note"}
    assert {name for _, name in fields("boolean")} >= {"force", "dry_run", "override", "apply"}
    assert {name for _, name in QUERY_TEXTS} >= {"version", "branch", "prefix", "cursor"}


@pytest.mark.parametrize(("path", "field"), fields("string"))
def test_a_text_with_a_control_character_is_refused(unchanged_api: TestClient, path: str, field: str) -> None:
    for character in CONTROLS:
        found = refusal(unchanged_api, "post", path, json=BODIES[path] | {field: f"a{character}b"})
        assert f"U+{ord(character[0]):04X}" in found[f"body.{field}"]


@pytest.mark.parametrize(("path", "field"), fields("string"))
def test_a_text_with_half_of_a_surrogate_pair_is_refused(
    unchanged_api: TestClient, path: str, field: str
) -> None:
    for escape in SURROGATES:
        content = json.dumps(BODIES[path] | {field: "PLACE"}).replace("PLACE", f"a{escape}b")
        found = refusal(unchanged_api, "post", path, content=content, headers=JSON)
        assert f"U+{escape[2:6].upper()}" in found[f"body.{field}"]


@pytest.mark.parametrize(("path", "name"), QUERY_TEXTS)
@pytest.mark.parametrize("character", ["\n", *CONTROLS])
def test_a_query_with_a_control_character_is_refused(
    unchanged_api: TestClient, path: str, name: str, character: str
) -> None:
    assert f"query.{name}" in refusal(unchanged_api, "get", path, params={name: f"a{character}b"})


def test_one_line_texts_refuse_line_breaks_and_others_take_them(
    api: TestClient, registry: Registry, settings: Settings
) -> None:
    registry.bucket = Bucket.of(settings)
    body = registry.body(search_config=config_of("1.0.0") + "\t\r\n# Größe ½ 🚢\n")
    assert "body.branch" in refusal(api, "post", "/builds", json=body | {"branch": "a\nb"})
    assert api.post("/builds", json=body).status_code == 202
    note = "two\nlines\tand a tab"
    made = api.post(f"/models/{registry.model()}/promotions", json={"stage": "development", "note": note})
    assert made.json()["note"] == note


@pytest.mark.parametrize("key", ["\\ud800", "\\u0000", "x" * 100_000])
def test_a_key_that_no_text_can_hold_is_shown_escaped_and_cut(unchanged_api: TestClient, key: str) -> None:
    answer = unchanged_api.post("/builds", content=f'{{"{key}": 1}}', headers=JSON)
    assert answer.status_code == 422
    assert len(answer.content) < 10_000


# Booleans


@pytest.mark.parametrize(("path", "field"), fields("boolean"))
@pytest.mark.parametrize("value", ["yes", "true", "on", 1, 0, 1.0, "", None])
def test_a_boolean_is_true_or_false_and_nothing_else(
    unchanged_api: TestClient, path: str, field: str, value: object
) -> None:
    assert (
        "valid boolean"
        in refusal(unchanged_api, "post", path, json=BODIES[path] | {field: value})[f"body.{field}"]
    )


# JSON


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"{", "Expecting property name"),
        (b"\xff\xfe{\x00}\x00", "not UTF-8"),
        ('{"sha": "é"}'.encode("latin-1"), "not UTF-8"),
        (b"\x1f\x8b\x08\x00", "not UTF-8"),
        (b"\xef\xbb\xbf{}", "BOM"),
        (b'{"force": false, "sha": "a", "force": true}', "'force' comes twice"),
        (b'{"force": NaN}', "NaN is not a JSON number"),
        (b'{"force": -Infinity}', "-Infinity is not a JSON number"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"force": ' + b"9" * 5000 + b"}", "digits"),
    ],
    ids=["cut off", "utf-16", "latin-1", "gzip", "bom", "twice", "nan", "infinity", "deep", "huge number"],
)
def test_a_body_that_is_not_clear_json_is_refused_with_the_reason(
    unchanged_api: TestClient, content: bytes, says: str
) -> None:
    [message] = refusal(unchanged_api, "post", "/builds", content=content, headers=JSON).values()
    assert says in message
    assert len(message) < 300


# The type of a body


@pytest.mark.parametrize("path", [path for _, path, operation in operations() if "requestBody" in operation])
@pytest.mark.parametrize(
    "type_",
    [
        None,
        "",
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/merge-patch+json",
        "application/jsonx",
        "json",
    ],
    ids=str,
)
def test_a_body_that_is_not_announced_as_json_is_refused(
    unchanged_api: TestClient, path: str, type_: str | None
) -> None:
    headers = {} if type_ is None else {"Content-Type": type_}
    # The type is refused before the body is parsed, so a broken one does not matter.
    for content in (b"", b"{", json.dumps(BODIES[path]).encode()):
        answer = unchanged_api.post(address(path), content=content, headers=headers)
        assert (answer.status_code, answer.headers["accept"]) == (415, "application/json")
        problem = answer.json()
        assert problem["type"] == "/problems/unsupported-media-type"
        assert (repr(type_) if type_ else "without a content type") in problem["detail"]
        assert "`Content-Type: application/json`" in problem["detail"]


@pytest.mark.parametrize(
    "type_",
    ["application/json", "Application/JSON", "application/json;charset=utf-8", "application/json ; x"],
)
def test_json_can_be_announced_in_every_usual_way(unchanged_api: TestClient, type_: str) -> None:
    answer = unchanged_api.post("/builds", content=b"{}", headers={"Content-Type": type_})
    assert answer.status_code == 422
    assert "body.sha: Field required" in answer.json()["detail"]


@pytest.mark.parametrize("coding", ["gzip", "br", "deflate, gzip"])
def test_a_compressed_body_is_refused(unchanged_api: TestClient, coding: str) -> None:
    answer = unchanged_api.post(
        "/builds", content=b"\x1f\x8b\x08\x00", headers=JSON | {"Content-Encoding": coding}
    )
    assert (answer.status_code, answer.headers["accept-encoding"]) == (415, "identity")
    assert answer.json()["detail"].startswith(f"The body has the encoding '{coding}'. Send it uncompressed")


# How large an answer can get


@pytest.mark.parametrize(
    ("body", "total"),
    [
        ({f"key {number}": 1 for number in range(100_000)}, 100_003),
        ({"sha": ["x"] * 100_000}, 3),
        ({"stage": "x" * 500_000}, 4),
    ],
    ids=["many keys", "a list for a text", "a long text"],
)
def test_a_problem_document_stays_small(unchanged_api: TestClient, body: dict[str, Any], total: int) -> None:
    answer = unchanged_api.post("/builds", json=body)
    assert answer.status_code == 422
    assert len(answer.content) < 20_000
    problem = answer.json()
    assert len(problem["problems"]) + problem.get("problems_left_out", 0) == total
    if total > 50:
        assert re.search(r"; and 99,9\d\d more", problem["detail"])


def test_a_configuration_with_countless_problems_is_refused_with_the_first_ones(
    unchanged_api: TestClient, unchanged: Registry
) -> None:
    config = config_of("1.0.0") + "".join(f"key_{number} = 1\n" for number in range(20_000))
    answer = unchanged_api.post("/builds", json=unchanged.body(search_config=config))
    assert answer.json()["type"] == "/problems/invalid-search-config"
    assert len(answer.content) < 20_000
    problems = answer.json()["problems"]
    assert problems[0]["key"] == "key_0"
    assert "more problems" in problems[-1]["message"]
