"""GET /models/{prefix}/benchmarks and …/compare/{other}: figures, worst answers, and what got better."""

import io
import json
import zipfile
from hashlib import sha256
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.registry.errors import BucketUnavailable
from app.registry.models import benchmarks
from app.registry.models.kept_results import KeptResults
from app.settings import Settings
from app.storage.bucket import Bucket
from local.simcloud.server import SimCloud
from tests.integration.app.registry import Registry

KEY = "benchmark_results.zip"
SHIRT, TROUSERS, SHOES = "610910", "620342", "640399"


@pytest.fixture
def bucket(settings: Settings) -> Bucket:
    return Bucket.of(settings)


def ours(name: str, answers: dict[str, tuple[str | None, list[str]]], **metrics: float) -> dict[str, Any]:
    """The file of one benchmark. Each description has its right code, and the codes that were answered."""
    return {
        "benchmark": name,
        "metrics": {"count": len(answers), "measurement": 2, **metrics},
        "predictions": [
            {
                "description": description,
                "code": code,
                "results": [
                    {"code": found, "score": round(0.8 / place, 3)} for place, found in enumerate(codes, 1)
                ],
            }
            for description, (code, codes) in answers.items()
        ],
    }


def packed(files: dict[str, Any]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, value in files.items():
            archive.writestr(name, json.dumps(value))
    return content.getvalue()


def archived(registry: Registry, bucket: Bucket, *files: dict[str, Any], known: bool = True) -> str:
    """A model with this archive of results, and with the figures in it. Returns its prefix."""
    return of_archive(
        registry,
        bucket,
        packed({f"{file['benchmark']}.json": file for file in files}),
        {file["benchmark"]: file["metrics"] for file in files},
        known=known,
    )


def of_archive(
    registry: Registry, bucket: Bucket, content: bytes, metrics: dict[str, Any], *, known: bool = True
) -> str:
    prefix = registry.model()
    registry.execute(
        "UPDATE models SET metrics = CAST(:metrics AS jsonb) WHERE prefix = :prefix",
        metrics=json.dumps(metrics),
        prefix=prefix,
    )
    registry.execute(
        "INSERT INTO artifacts (model_id, name, key, sha256, size_bytes, content_type) "
        "SELECT id, :name, prefix || '/' || :name, :sha256, :size, 'application/zip' FROM models "
        "WHERE prefix = :prefix",
        name=KEY,
        sha256=sha256(content).hexdigest() if known else None,
        size=len(content),
        prefix=prefix,
    )
    bucket.write(f"{prefix}/{KEY}", content, over=None)
    return prefix


GOOD = ours(
    "everyday",
    {
        "tee": (SHIRT, [SHIRT]),
        "slacks": (TROUSERS, [TROUSERS, SHIRT]),
        "jeans": (TROUSERS, [SHIRT, TROUSERS]),
        "boots": (SHOES, [SHIRT]),
    },
    top_1=0.5,
)
BAD = ours(
    "everyday",
    {
        "tee": (SHIRT, [TROUSERS, SHIRT]),
        "slacks": (TROUSERS, []),
        "jeans": (TROUSERS, [TROUSERS]),
        "boots": (SHOES, [SHIRT, TROUSERS]),
        "only here": (SHOES, [SHOES]),
    },
    top_1=0.4,
)
VAGUE = ours("vague", {"goods": (None, []), "parts": (None, [SHIRT])}, no_result=0.5)
FIRM = ours("vague", {"goods": (None, [SHOES]), "parts": (None, [])}, no_result=0.5)


def test_figures_chapters_and_the_worst_answers_are_shown(
    api: TestClient, registry: Registry, bucket: Bucket
) -> None:
    prefix = archived(registry, bucket, GOOD, VAGUE)
    shown = api.get(f"/models/{prefix}/benchmarks").json()
    assert shown["problem"] is None
    everyday, vague = shown["benchmarks"]
    assert (everyday["name"], everyday["measurement"]) == ("everyday", 2)
    assert everyday["figures"] == {"count": 4, "top_1": 0.5}
    assert everyday["chapters"] == [
        {"chapter": "61", "count": 1, "top_1": 1, "top_5": 1, "no_result": 0},
        {"chapter": "62", "count": 2, "top_1": 0.5, "top_5": 1, "no_result": 0},
        {"chapter": "64", "count": 1, "top_1": 0, "top_5": 0, "no_result": 0},
    ]
    assert everyday["wrong"] == 2
    assert [(answer["description"], answer["place"]) for answer in everyday["worst"]] == [
        ("boots", None),
        ("jeans", 2),
    ]
    assert everyday["worst"][0]["predictions"] == [{"code": SHIRT, "score": 0.8}]
    # An answer where none is deserved is wrong, and a refusal is right.
    assert (vague["chapters"], vague["wrong"]) == ([], 1)
    assert [answer["description"] for answer in vague["worst"]] == ["parts"]


def test_lists_are_as_long_as_asked_for_and_totals_count_all(
    api: TestClient, registry: Registry, bucket: Bucket
) -> None:
    prefix, other = archived(registry, bucket, GOOD, VAGUE), archived(registry, bucket, BAD)
    [shown] = api.get(f"/models/{prefix}/benchmarks?benchmark=everyday&limit=1").json()["benchmarks"]
    assert (shown["wrong"], len(shown["worst"])) == (2, 1)
    [compared] = api.get(f"/models/{prefix}/compare/{other}?benchmark=Everyday&limit=1").json()["benchmarks"]
    assert (compared["better"]["total"], len(compared["better"]["first"])) == (2, 1)
    for call in ("benchmarks", f"compare/{other}"):
        assert api.get(f"/models/{prefix}/{call}?limit=201").status_code == 422
        unknown = api.get(f"/models/{prefix}/{call}?benchmark=everyda")
        assert (unknown.status_code, unknown.json()["type"]) == (404, "/problems/not-found")
        assert "everyday, vague" in unknown.json()["detail"]


def test_two_models_are_compared_by_their_figures_and_their_answers(
    api: TestClient, registry: Registry, bucket: Bucket
) -> None:
    prefix, other = archived(registry, bucket, GOOD, VAGUE), archived(registry, bucket, BAD, FIRM)
    shown = api.get(f"/models/{prefix}/compare/{other}").json()
    assert (shown["prefix"], shown["other"], shown["problems"]) == (prefix, other, [])
    everyday, vague = shown["benchmarks"]
    assert everyday["comparable"] is True
    top_1 = {"figure": "top_1", "this": 0.5, "other": 0.4, "difference": 0.1}
    assert top_1 in everyday["figures"]
    # What only one of them was asked is not compared.
    assert everyday["compared"] == 4
    assert [
        (one["description"], one["place"], one["other_place"]) for one in everyday["better"]["first"]
    ] == [
        ("slacks", 1, None),
        ("tee", 1, 2),
    ]
    assert everyday["better"]["first"][0]["other_first"] is None
    [worse] = everyday["worse"]["first"]
    assert (worse["description"], worse["first"]["code"], worse["other_first"]["code"]) == (
        "jeans",
        SHIRT,
        TROUSERS,
    )
    assert [one["description"] for one in vague["better"]["first"]] == ["goods"]
    assert [one["description"] for one in vague["worse"]["first"]] == ["parts"]
    mirrored = api.get(f"/models/{other}/compare/{prefix}").json()["benchmarks"][0]
    assert mirrored["worse"]["total"] == everyday["better"]["total"]
    alike = api.get(f"/models/{prefix}/compare/{prefix}").json()["benchmarks"]
    assert [(one["better"]["total"], one["worse"]["total"]) for one in alike] == [(0, 0), (0, 0)]


def test_figures_that_were_measured_in_other_ways_have_no_difference(
    api: TestClient, registry: Registry, bucket: Bucket
) -> None:
    old = GOOD | {"metrics": {"top_1": 0.7}}
    prefix, other = archived(registry, bucket, GOOD), archived(registry, bucket, old)
    [one] = api.get(f"/models/{prefix}/compare/{other}").json()["benchmarks"]
    assert one["comparable"] is False
    assert {"figure": "top_1", "this": 0.5, "other": 0.7, "difference": None} in one["figures"]


def test_an_imported_model_answers_what_is_known(api: TestClient, registry: Registry, bucket: Bucket) -> None:
    details = [{"description": "tee", "correct_code": SHIRT, "predictions": [{"code": SHOES, "score": 1}]}]
    folder = "benchmarking_data/results"
    goods = ours("good-goods-descriptions", {"tee": (SHIRT, [SHIRT])}, top_1=1.0)
    mine = archived(registry, bucket, goods)
    content = packed(
        {
            f"{folder}/benchmark_results_good_goods.json": {"result1Percent": 0},
            f"{folder}/benchmark_details_good_goods.json": details,
        }
    )
    theirs = of_archive(registry, bucket, content, {"good_goods": {"top_1": 0.0}}, known=False)
    bare = registry.model()

    [shown] = api.get(f"/models/{theirs}/benchmarks").json()["benchmarks"]
    assert (shown["name"], shown["measurement"], shown["wrong"]) == ("good_goods", 1, 1)
    # They have other names for the same benchmark.
    [one] = api.get(f"/models/{mine}/compare/{theirs}").json()["benchmarks"]
    assert (one["benchmark"], one["other_benchmark"]) == ("good-goods-descriptions", "good_goods")
    assert [pair["description"] for pair in one["better"]["first"]] == ["tee"]

    shown = api.get(f"/models/{bare}/benchmarks").json()
    assert f"{bare} has no {KEY}" in shown["problem"]
    assert shown["benchmarks"][0]["figures"] == {"count": 200, "top_1": 0.62}
    assert shown["benchmarks"][0]["wrong"] is None
    compared = api.get(f"/models/{mine}/compare/{bare}").json()
    assert len(compared["problems"]) == 1
    assert [(one["benchmark"], one["other_benchmark"]) for one in compared["benchmarks"]] == [
        ("good-goods-descriptions", None),
        (None, "everyday"),
    ]


@pytest.mark.parametrize("content", [b"no zip", packed({"x.json": [1]}), packed({"everyday.json": {}})])
def test_an_archive_that_cannot_be_read_leaves_the_figures(
    api: TestClient, registry: Registry, bucket: Bucket, content: bytes
) -> None:
    prefix = of_archive(
        registry, bucket, content, {"everyday": {"top_1": 0.5, "count": None, "x": "y"}, "b": 1}
    )
    shown = api.get(f"/models/{prefix}/benchmarks").json()
    assert "no answers that can be read" in shown["problem"]
    assert [(one["name"], one["figures"]) for one in shown["benchmarks"]] == [("everyday", {"top_1": 0.5})]


def test_texts_of_an_archive_that_are_not_valid_unicode_are_shown_escaped(
    api: TestClient, registry: Registry, bucket: Bucket
) -> None:
    prefix = archived(registry, bucket, ours("everyday", {"a\ud800b\x00": (SHIRT, ["\udfff"])}))
    [shown] = api.get(f"/models/{prefix}/benchmarks").json()["benchmarks"]
    assert shown["worst"][0]["description"] == "a\\ud800b\x00"


def test_an_archive_that_is_gone_or_changed_is_a_problem_of_its_own(
    api: TestClient, registry: Registry, bucket: Bucket
) -> None:
    gone, changed, missed = (archived(registry, bucket, GOOD | {"schema": n}) for n in range(3))
    bucket.delete(f"{gone}/{KEY}")
    bucket.write(f"{changed}/{KEY}", b"other", over=bucket.head(f"{changed}/{KEY}"))
    registry.execute("UPDATE artifacts SET missing_since = now() WHERE key = :key", key=f"{missed}/{KEY}")
    for prefix in (gone, changed, missed):
        for call in (f"/models/{prefix}/benchmarks", f"/models/{gone}/compare/{prefix}"):
            answer = api.get(call)
            assert (answer.status_code, answer.json()["type"]) == (503, "/problems/artifacts-missing")
            assert answer.headers["Retry-After"]
            assert answer.json()["artifacts"] == [KEY]


def test_without_s3_only_what_was_read_before_is_answered(
    api: TestClient, registry: Registry, bucket: Bucket, cloud: SimCloud
) -> None:
    known, other = archived(registry, bucket, GOOD), archived(registry, bucket, BAD)
    assert api.get(f"/models/{known}/benchmarks").status_code == 200
    cloud.faults.add("s3", code="ServiceUnavailable", status=503, times=None)
    assert api.get(f"/models/{known}/benchmarks").status_code == 200
    refused = api.get(f"/models/{known}/compare/{other}")
    assert (refused.status_code, refused.json()["type"]) == (503, "/problems/bucket-unavailable")
    assert refused.headers["Retry-After"]


def test_a_model_that_does_not_exist_is_not_found(
    api: TestClient, registry: Registry, bucket: Bucket
) -> None:
    there, absent = archived(registry, bucket, GOOD), "9.9.9-0000000"
    for call in (f"{absent}/benchmarks", f"{absent}/compare/{there}", f"{there}/compare/{absent}"):
        answer = api.get(f"/models/{call}")
        assert (answer.status_code, answer.json()["type"]) == (404, "/problems/not-found")
        assert absent in answer.json()["detail"]
    assert api.get(f"/models/{there}/compare/production").status_code == 422


def test_what_is_kept_is_bounded_and_the_oldest_goes_first(
    api: TestClient, registry: Registry, bucket: Bucket, cloud: SimCloud
) -> None:
    subjects = []
    for number in range(3):
        file = ours("everyday", {f"{number} {row}": (SHIRT, [SHIRT] * 5) for row in range(10)})
        prefix = archived(registry, bucket, file)
        with registry.database.transaction() as session:
            found = benchmarks.subject(session, prefix)
        assert found.archive is not None
        subjects.append(found.archive)
    size = sum(one.size_bytes for one in KeptResults(bucket).of(subjects[0]).values())
    kept = KeptResults(bucket, limit_bytes=2 * size + size // 2)
    for archive in (subjects[0], subjects[1], subjects[0], subjects[2]):
        kept.of(archive)
    cloud.faults.add("s3", code="ServiceUnavailable", status=503, times=None)
    assert kept.of(subjects[0])
    assert kept.of(subjects[2])
    with pytest.raises(BucketUnavailable):
        kept.of(subjects[1])
