"""The state of a model, on a real Postgres: what the database refuses, and who wins when two things meet."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import product
from uuid import UUID

import psycopg
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.registry.builds import requests
from app.registry.builds.requests import BuildRequest
from app.registry.errors import CollectionRefused, Conflict, ModelCollected, RegistryError
from app.registry.keeping import marks
from app.registry.keeping.marks import MarkReason
from app.registry.models import documents
from app.registry.prefixes import Prefix
from app.registry.runs import imports
from app.registry.stages import baseline, promotions
from app.registry.stages.promotions import PromotionRequest
from app.settings import Settings
from app.storage.bucket import Bucket
from app.words import Actor, ModelState, Stage, Verdict
from tests.integration.app.registry import Registry, config_of, sha_of

DEVELOPMENT, STAGING, PRODUCTION = Stage
KEPT, MARKED, SWEEPING, COLLECTED = ModelState
GONE = MarkReason("branch_gone", "the branch feature/x is gone")
WAITING = (
    "SELECT count(*) > 0 FROM pg_stat_activity"
    " WHERE datname = current_database() AND wait_event_type = 'Lock'"
)


# What a build's model has of the documents that outlive its files.
DOCUMENTS = ("documents/provenance.json", "documents/model.sig")


def id_of(registry: Registry, prefix: str) -> UUID:
    return UUID(str(registry.value("SELECT id FROM models WHERE prefix = :p", p=prefix)))


def state_of(registry: Registry, prefix: str) -> str:
    return str(registry.value("SELECT state FROM models WHERE prefix = :p", p=prefix))


def mark(registry: Registry, prefix: str) -> None:
    with registry.database.transaction() as session:
        marks.mark(session, id_of(registry, prefix), GONE, None)


def sweep(registry: Registry, prefix: str) -> None:
    with registry.database.transaction() as session:
        marks.begin_sweep(session, id_of(registry, prefix), {})


def restore(registry: Registry, prefix: str) -> None:
    with registry.database.transaction() as session:
        marks.restore(session, prefix, "someone", Actor.TOKEN)


def release(registry: Registry, prefix: str) -> None:
    registry.execute(
        "UPDATE models SET released_at = clock_timestamp(), released_by = 'x', released_by_kind = 'token',"
        " release_note = 'it was replaced' WHERE prefix = :p",
        p=prefix,
    )


def superseded(registry: Registry, *stages: Stage) -> str:
    """A model that was in the stages, where another one runs now."""
    prefix = registry.model("1.0.0", stages=stages)
    registry.model("1.1.0", stages=stages)
    return prefix


def rule_of(change: Callable[[], None]) -> str:
    """The rule by which the database refuses the change."""
    with pytest.raises((CollectionRefused, IntegrityError)) as refused:
        change()
    if isinstance(refused.value, CollectionRefused):
        return refused.value.rule
    assert isinstance(refused.value, IntegrityError)
    assert isinstance(refused.value.orig, psycopg.Error)
    return str(refused.value.orig.diag.constraint_name)


def test_the_database_allows_exactly_the_changes_of_the_state_that_the_words_name(registry: Registry) -> None:
    prefix = registry.model()
    with registry.database.engine.connect() as connection:
        for before, after in product(ModelState, ModelState):
            values = """
                UPDATE models SET state = :state,
                    marked_at = CASE WHEN :state <> 'kept' THEN now() END,
                    mark_reason = CASE WHEN :state <> 'kept' THEN '{"code": "a", "text": "b"}'::jsonb END,
                    collected_at = CASE WHEN :state = 'collected' THEN now() END
                 WHERE prefix = :prefix
            """
            connection.execute(text("SET LOCAL session_replication_role = replica"))
            connection.execute(text(values), {"state": before, "prefix": prefix})
            connection.execute(text("SET LOCAL session_replication_role = origin"))
            allowed = after == before or after in before.next
            try:
                connection.execute(text(values), {"state": after, "prefix": prefix})
                assert allowed, f"{before} to {after}"
            except IntegrityError:
                assert not allowed, f"{before} to {after}"
            connection.rollback()


def test_a_model_that_runs_in_a_stage_is_never_marked(registry: Registry) -> None:
    prefix = registry.model(stages=(DEVELOPMENT,))
    assert rule_of(lambda: mark(registry, prefix)) == "models_running"
    registry.promote(prefix, STAGING)
    registry.model("1.1.0", stages=(DEVELOPMENT,))
    release(registry, prefix)
    assert rule_of(lambda: mark(registry, prefix)) == "models_running"
    assert state_of(registry, prefix) == KEPT


def test_what_was_in_staging_or_production_needs_a_release_after_its_last_promotion(
    registry: Registry,
) -> None:
    only_development = superseded(registry, DEVELOPMENT)
    mark(registry, only_development)
    assert state_of(registry, only_development) == MARKED

    prefix = superseded(registry, DEVELOPMENT, STAGING, PRODUCTION)
    assert rule_of(lambda: mark(registry, prefix)) == "models_released"
    # Whatever the program is that writes to the database.
    raw = "UPDATE models SET state = 'marked', marked_at = now(), mark_reason = '{}' WHERE prefix = :p"
    assert rule_of(lambda: registry.execute(raw, p=prefix)) == "models_released"
    release(registry, prefix)
    mark(registry, prefix)
    # The release is looked at again when its objects are about to be deleted.
    registry.execute(
        "UPDATE models SET released_at = NULL, released_by = NULL, released_by_kind = NULL,"
        " release_note = NULL WHERE prefix = :p",
        p=prefix,
    )
    assert rule_of(lambda: sweep(registry, prefix)) == "models_released"

    # A release says nothing about promotions that came after it.
    restore(registry, prefix)
    release(registry, prefix)
    registry.promote(prefix, STAGING)
    registry.model("1.2.0", stages=(DEVELOPMENT, STAGING))
    assert rule_of(lambda: mark(registry, prefix)) == "models_released"


def test_a_pinned_model_is_not_marked(registry: Registry) -> None:
    prefix = registry.model()
    registry.execute(
        "UPDATE models SET pinned_at = now(), pinned_by = 'x', pinned_by_kind = 'token', pin_note = 'mine'"
    )
    assert rule_of(lambda: mark(registry, prefix)) == "pinned"
    raw = "UPDATE models SET state = 'marked', marked_at = now(), mark_reason = '{}'"
    assert rule_of(lambda: registry.execute(raw)) == "ck_models_pinned_kept"


@pytest.mark.parametrize("state", [MARKED, SWEEPING, COLLECTED])
def test_the_database_refuses_to_promote_a_model_that_is_not_kept(
    registry: Registry, state: ModelState
) -> None:
    prefix = registry.model()
    mark(registry, prefix)
    if state is not MARKED:
        sweep(registry, prefix)
    if state is COLLECTED:
        with registry.database.transaction() as session:
            marks.collected(session, id_of(registry, prefix))
    assert state_of(registry, prefix) == state
    raw = (
        "INSERT INTO promotions (model_id, version, stage, promoted_by)"
        " SELECT id, version, 'development', 'x' FROM models"
    )
    assert rule_of(lambda: registry.execute(raw)) == "promotions_of_kept_models"


@pytest.mark.parametrize("change", ["DELETE FROM models", "TRUNCATE models CASCADE"])
def test_a_model_keeps_its_row_for_ever(registry: Registry, change: str) -> None:
    registry.model()
    registry.execute("ALTER TABLE promotions DISABLE TRIGGER promotions_append_only")
    assert rule_of(lambda: registry.execute(change)) == "models_stay"
    assert rule_of(lambda: registry.execute("UPDATE models SET prefix = '9.9.9-abcdef1'")) == "models_prefix"


def test_each_change_of_the_state_can_be_repeated_and_leaves_one_entry_in_the_audit_trail(
    registry: Registry,
) -> None:
    prefix = registry.model()
    of = id_of(registry, prefix)
    for _ in range(2):
        mark(registry, prefix)
    since = registry.value("SELECT marked_at FROM models")
    for _ in range(2):
        restore(registry, prefix)
    assert registry.value("SELECT marked_at IS NULL AND mark_reason IS NULL FROM models")
    with pytest.raises(Conflict, match="not marked"):
        sweep(registry, prefix)
    mark(registry, prefix)
    assert registry.value("SELECT marked_at FROM models") > since
    for _ in range(2):
        sweep(registry, prefix)
    for change in (mark, restore):
        with pytest.raises(ModelCollected, match="the branch feature/x is gone"):
            change(registry, prefix)
    for _ in range(2):
        with registry.database.transaction() as session:
            assert marks.collected(session, of).collected_at is not None
    with pytest.raises(ModelCollected):
        sweep(registry, prefix)
    actions = registry.values("SELECT action FROM audit WHERE subject = :p ORDER BY id", p=prefix)
    assert actions == ["model_marked", "model_restored", "model_marked", "model_swept", "model_collected"]
    entry = registry.values("SELECT after FROM audit WHERE action = 'model_marked' ORDER BY id")[0]
    assert entry == {"state": "marked", "reason": {"code": GONE.code, "text": GONE.text}, "run": None}


def test_what_is_known_of_a_model_stays_readable_and_its_files_are_not_handed_out(
    api: TestClient, registry: Registry, settings: Settings
) -> None:
    registry.bucket = Bucket.of(settings)
    build_id = registry.queue("1.0.0")
    prefix = registry.publish(build_id, model_zip=8, provenance_json=8, model_sig=9, check_result_json=7)
    registry.promote(prefix, DEVELOPMENT)
    newer = registry.model("1.1.0", stages=(DEVELOPMENT,))
    record = f"/models/{prefix}"
    parts = ("lineage", "provenance", "benchmarks", "validation")
    about = [record, *(f"{record}/{name}" for name in (*parts, *DOCUMENTS))]
    about += [f"{record}/compare/{newer}", "/stages/development/history", f"/models?state={KEPT}"]
    before = {path: api.get(path) for path in about}
    shown = before[record].json()
    assert (shown["state"], shown["mark"], shown["collected_at"]) == ("kept", None, None)

    def refusals(problem: str) -> None:
        calls = [
            api.get(f"{record}/artifacts/model.zip", follow_redirects=False),
            api.get("/models/development/latest?version=1.0.0"),
            api.post(f"{record}/promotions", json={"stage": "staging", "override": True, "note": "x"}),
            api.post(f"{record}/verdict", json={"verdict": "failed", "reason": "x"}),
            api.post(
                "/stages/development/rollback",
                json={"expected": newer, "to": prefix, "override": True, "note": "x"},
            ),
        ]
        for answer in calls:
            said = answer.json()
            assert (answer.status_code, said["type"]) == (410, f"/problems/{problem}"), answer.text
            assert (said["reason"], said["prefix"]) == ("branch_gone", prefix)
            assert said["since"].endswith("Z")
            assert "the branch feature/x is gone" in said["detail"]
        assert api.get(f"{record}/artifacts/nothing.zip").status_code == 404
        # Without another model that is kept, there is nothing to roll back to.
        chosen = api.post("/stages/development/rollback", json={"expected": newer, "note": "x"})
        assert chosen.json()["type"] == "/problems/nothing-to-roll-back-to"
        assert api.get("/models/development/latest").json()["prefix"] == newer
        for path in about:
            answer = api.get(path)
            assert answer.status_code == 200, answer.text
            if path.endswith(("/provenance", "/validation", "/history", *DOCUMENTS)):
                assert answer.content == before[path].content
        report = api.get(f"{record}/documents/check_result.json")
        assert (report.status_code, f"{record}/validation" in report.json()["detail"]) == (404, True)
        assert [one["prefix"] for one in api.get(f"/models?state={KEPT}").json()["items"]] == [newer]
        assert len(api.get("/models").json()["items"]) == 2

    mark(registry, prefix)
    refusals("model-marked")
    shown = api.get(record).json()
    assert (shown["state"], shown["mark"]["reason"], shown["mark"]["run"]) == ("marked", "branch_gone", None)
    assert f"POST {record}/restore" in api.get(f"{record}/artifacts/model.zip").json()["detail"]

    with registry.database.transaction() as session:
        files = documents.to_save(session, [id_of(registry, prefix)])
    saved = documents.fetch(registry.bucket, files[id_of(registry, prefix)])
    with registry.database.transaction() as session:
        marks.begin_sweep(session, id_of(registry, prefix), saved)
    for key, _ in list(registry.bucket.list(f"{prefix}/")):
        registry.bucket.delete(key)
    refusals("model-collected")
    with registry.database.transaction() as session:
        marks.collected(session, id_of(registry, prefix))
    refusals("model-collected")
    benchmarks = api.get(f"{record}/benchmarks").json()
    assert "was collected" in benchmarks["problem"]
    assert benchmarks["benchmarks"][0]["figures"] == {"count": 200, "top_1": 0.62}
    assert [one["prefix"] for one in api.get("/models?state=collected").json()["items"]] == [prefix]
    # A model that is not kept is compared with no other one.
    with registry.database.transaction() as session:
        found = baseline.find(session)
    assert found is not None
    assert found.prefix == newer


def test_the_report_of_an_imported_model_outlives_its_files_and_what_was_lost_before_does_not(
    api: TestClient, registry: Registry, settings: Settings
) -> None:
    registry.bucket = Bucket.of(settings)
    prefix = registry.publish(registry.queue("1.0.0"), check_result_json=7)
    registry.execute("UPDATE models SET origin = 'imported', build_id = NULL")
    report, signature = (f"/models/{prefix}/documents/{name}" for name in ("check_result.json", "model.sig"))
    before = api.get(report)
    assert (before.status_code, before.headers["content-type"]) == (200, "application/json")
    assert "nobody has signed it" in api.get(signature).json()["detail"]
    mark(registry, prefix)
    model = id_of(registry, prefix)
    with registry.database.transaction() as session:
        files = documents.to_save(session, [model])
    saved = documents.fetch(registry.bucket, files[model])
    registry.bucket.delete(f"{prefix}/check_result.json")
    assert api.get(report).json()["type"] == "/problems/artifacts-missing"
    with registry.database.transaction() as session:
        marks.begin_sweep(session, model, {})
    assert api.get(report).json()["type"] == "/problems/model-collected"
    with registry.database.transaction() as session:
        documents.save(session, model, saved)
    assert api.get(report).content == before.content


def test_posting_a_marked_prefix_again_restores_its_model(api: TestClient, registry: Registry) -> None:
    sha = sha_of(0xB000001)
    prefix = registry.publish(registry.queue("1.0.0", sha=sha))
    body = registry.body("1.0.0", sha=sha)
    mark(registry, prefix)
    before = registry.counts() | {"audit": registry.count("audit")}
    answer = api.post("/builds", json=body | {"dry_run": True})
    assert (answer.status_code, answer.json()["outcome"]) == (200, "exists")
    assert "would restore it" in answer.json()["warnings"][-1]
    assert registry.counts() | {"audit": registry.count("audit")} == before
    assert state_of(registry, prefix) == MARKED

    answer = api.post("/builds", json=body)
    assert (answer.status_code, answer.json()["outcome"]) == (200, "exists")
    assert "has restored it" in answer.json()["warnings"][-1]
    assert state_of(registry, prefix) == KEPT
    [entry] = api.get("/audit", params={"action": "model_restored"}).json()["items"]
    assert (entry["subject"], entry["who"]) == (prefix, "anonymous")
    assert api.post("/builds", json=body).json()["warnings"] == []


def test_the_prefix_of_a_collected_model_is_never_used_again(api: TestClient, registry: Registry) -> None:
    sha = sha_of(0xB000001)
    failed = registry.queue("1.0.0", sha=sha)
    registry.fail(failed)
    prefix = registry.publish(registry.queue("1.0.0", sha=sha))
    mark(registry, prefix)
    assert api.post(f"/builds/{failed}/retry").json()["reason"] == "model_exists"
    assert state_of(registry, prefix) == MARKED
    body = registry.body("1.0.0", sha=sha)
    found = imports.FoundModel(
        Prefix.parse(prefix), None, {}, Verdict.PASSED, "imported", datetime.now(UTC), {}, {}
    )

    def refusals() -> None:
        before = registry.counts()
        calls = [
            api.post("/builds", json=body),
            api.post("/builds", json=body | {"dry_run": True}),
            api.post("/builds", json=body | {"force": True}),
            api.post(f"/builds/{failed}/retry"),
        ]
        for answer in calls:
            assert (answer.status_code, answer.json()["type"]) == (409, "/problems/prefix-collected")
            assert "Raise the version" in answer.json()["detail"]
        with registry.database.transaction() as session:
            assert imports.known(session, [prefix]) == {prefix}
            assert imports.adopt(session, [found]) == []
        assert registry.counts() == before

    sweep(registry, prefix)
    refusals()
    with registry.database.transaction() as session:
        marks.collected(session, id_of(registry, prefix))
    refusals()


# What meets at the same moment: the first one has not committed when the second one begins.


def meanwhile(registry: Registry, first: Callable[[Session], object], second: Callable[[], object]) -> str:
    """Do the second while the first has not committed. Returns why the second was refused, or "done"."""
    ended: list[str] = []

    def run() -> None:
        try:
            second()
            ended.append("done")
        except RegistryError as exc:
            ended.append(getattr(exc, "rule", type(exc).__name__))

    thread = threading.Thread(target=run)
    with registry.database.transaction() as session:
        first(session)
        thread.start()
        registry.await_value(WAITING)
    thread.join(60)
    return ended[0]


@pytest.mark.parametrize("stage", [DEVELOPMENT, STAGING])
def test_a_mark_waits_for_a_promotion_and_is_then_refused(registry: Registry, stage: Stage) -> None:
    prefix = superseded(registry, DEVELOPMENT)

    def promote(session: Session) -> None:
        promotions.record(session, "x", prefix, PromotionRequest(stage))

    assert meanwhile(registry, promote, lambda: mark(registry, prefix)) == "models_running"
    assert state_of(registry, prefix) == KEPT


def test_a_promotion_waits_for_a_mark_and_is_then_refused(registry: Registry) -> None:
    prefix = superseded(registry, DEVELOPMENT)
    of = id_of(registry, prefix)

    def promote() -> None:
        registry.promote(prefix, STAGING)

    assert meanwhile(registry, lambda session: marks.mark(session, of, GONE, None), promote) == "ModelMarked"
    assert registry.count("promotions", "stage = 'staging'") == 0


def test_a_sweep_and_a_restore_or_a_post_cannot_both_happen(registry: Registry) -> None:
    one, two = superseded(registry, DEVELOPMENT), registry.model()
    for prefix in (one, two):
        mark(registry, prefix)
    of = id_of(registry, one)
    late = meanwhile(
        registry, lambda session: marks.begin_sweep(session, of, {}), lambda: restore(registry, one)
    )
    assert (late, state_of(registry, one)) == ("ModelCollected", SWEEPING)

    def posting() -> None:
        with registry.database.transaction() as session:
            requests.request(session, BuildRequest(three_sha, "main", config_of("3.0.0")))

    three_sha = sha_of(0xB000003)
    three = registry.publish(registry.queue("3.0.0", sha=three_sha))
    mark(registry, three)
    of_three = id_of(registry, three)
    late = meanwhile(registry, lambda session: marks.begin_sweep(session, of_three, {}), posting)
    assert (late, state_of(registry, three)) == ("PrefixCollected", SWEEPING)

    def restoring(session: Session) -> None:
        marks.restore(session, two, "someone", Actor.TOKEN)

    assert meanwhile(registry, restoring, lambda: sweep(registry, two)) == "Conflict"
    assert state_of(registry, two) == KEPT
