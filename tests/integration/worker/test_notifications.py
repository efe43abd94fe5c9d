"""Notifications, from the change that writes one to the server that gets it."""

import base64
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

from app.db.session import Database
from app.registry import notifications
from app.registry.builds import cancellation
from app.registry.keeping import marks
from app.registry.keeping.marks import MarkReason
from app.registry.models import catalogue, verdicts
from app.registry.runs import lifecycle
from app.registry.stages import promotions
from app.registry.stages.promotions import PromotionRequest
from app.settings import Settings
from app.words import Actor, NotificationKind, NotificationTarget, RunKind, Stage, Verdict
from tests.conftest import ROOT
from tests.integration.app.registry import Registry
from tests.integration.worker.receiver import OK, Behaviour, Received, Receiver, receiving, status
from worker.notifications import sending, turns
from worker.notifications.targets import targets_of

WEBHOOK, SLACK = NotificationTarget
SECRET = "whsec_" + base64.b64encode(b"k" * 32).decode()
OTHER_SECRET = "whsec_" + base64.b64encode(b"o" * 32).decode()


def documented_check() -> Callable[[dict[str, str], bytes, str], bool]:
    """The function that docs/notifications.md tells receivers to use."""
    page = (ROOT / "docs" / "notifications.md").read_text(encoding="utf-8")
    [code] = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    check: Callable[[dict[str, str], bytes, str], bool] = names["is_genuine"]
    return check


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as made:
        yield made


@pytest.fixture
def registry(database: Database) -> Registry:
    return Registry(database)


@pytest.fixture
def make_settings(database: Database, receiver: Receiver) -> Callable[..., Settings]:
    def make(**changes: Any) -> Settings:
        both = {
            "database_url": database.conninfo,
            "public_url": "https://registry.example/",
            "webhook_url": f"{receiver.url}/webhook?token=hush",
            "webhook_secret": SECRET,
            "slack_webhook_url": f"{receiver.url}/slack/hush",
        }
        return Settings.model_validate(both | changes)

    return make


@pytest.fixture
def send(database: Database, make_settings: Callable[..., Settings]) -> Callable[..., int]:
    """Send what is due to the webhook, or to another target."""

    def send(target: NotificationTarget = WEBHOOK, **settings: Any) -> int:
        return turns.send_due(database, target, targets_of(make_settings(**settings)))

    return send


def rows(registry: Registry, target: NotificationTarget = WEBHOOK) -> list[tuple[str, int, str | None]]:
    """State, attempts and error of each message, in their order."""
    columns = "json_build_array(state, attempts, last_error)"
    where = "WHERE target = :target ORDER BY id"
    return [
        tuple(row) for row in registry.values(f"SELECT {columns} FROM notifications {where}", target=target)
    ]


def waits(registry: Registry) -> list[float]:
    """For how many seconds each of the webhook's pending messages is put off."""
    return [
        float(wait)
        for wait in registry.values(
            "SELECT extract(epoch FROM next_attempt_at - clock_timestamp()) FROM notifications"
            " WHERE target = 'webhook' AND state = 'pending' ORDER BY id"
        )
    ]


def make_due(registry: Registry) -> None:
    registry.execute("UPDATE notifications SET next_attempt_at = now()")


def everything_happens(registry: Registry) -> None:
    """One change of each kind that is told about."""
    newest = registry.publish(registry.queue("1.0.1", promote_to=Stage.DEVELOPMENT))
    registry.fail(registry.queue("1.0.2"))
    cancelled = registry.queue("1.0.3")
    other = registry.model("1.0.4", Verdict.FAILED)
    with registry.database.transaction() as session:
        cancellation.cancel(session, cancelled, "someone", Actor.TOKEN)
        verdicts.change(session, "chief", Actor.TOKEN, other, Verdict.PASSED, "a <typing> error & more")
        promotions.record(session, "chief", other, PromotionRequest(Stage.DEVELOPMENT, "<!here> try"))
    # What is rolled back must not be told.
    with registry.database.transaction() as session:
        promotions.record(session, "chief", newest, PromotionRequest(Stage.STAGING))
        session.rollback()
    with registry.database.transaction() as session:
        old = registry.model("0.0.9")
        found = catalogue.get_locked(session, old)
        reason = MarkReason("branch_gone", "the branch feature/x is gone")
        marks.mark(session, found.id, reason, None)
        marks.restore(session, old, "someone", Actor.TOKEN)
        marks.mark(session, found.id, reason, None)
    with registry.database.transaction() as session:
        marks.begin_sweep(session, found.id, {})
        marks.collected(session, found.id)
    with registry.database.transaction() as session:
        run = lifecycle.request(session, RunKind.COLLECTION, {"dry_run": True}, "schedule", Actor.SYSTEM)
        lease = lifecycle.take(session, run.id, timedelta(minutes=1), [RunKind.COLLECTION])
        assert lease is not None
        lifecycle.save(session, lease, {}, {}, {"dry_run": True, "marked": 1_200, "listed": ["x"]})
        lifecycle.succeed(session, lease)
    # Other runs are not told about.
    with registry.database.transaction() as session:
        run = lifecycle.request(session, RunKind.IMPORT, {}, "someone")
        lifecycle.stop(session, run.id, "someone")


def test_every_change_is_posted_signed_and_told_to_slack(
    registry: Registry, receiver: Receiver, send: Callable[..., int]
) -> None:
    everything_happens(registry)
    assert send(webhook_secret=f"{OTHER_SECRET},{SECRET}") == 16
    assert send() == 0
    posted = receiver.all("/webhook?token=hush")
    first = posted[0]
    assert [each.what[0] for each in posted if "1.0.1" in each.what[1]] == [
        "model.verdict",
        "stage.promoted",
        "build.ended",
    ]
    ended = [each.json["data"] for each in posted if each.json["type"] == "build.ended"]
    assert [(data["version"], data["state"]) for data in ended] == [
        ("1.0.1", "succeeded"),
        ("1.0.2", "failed"),
        ("1.0.4", "succeeded"),
        ("1.0.3", "cancelled"),
        ("0.0.9", "succeeded"),
    ]
    assert ended[1]["failure"] == {
        "step": "train",
        "code": "out_of_memory",
        "message": "Take a larger machine.",
    }
    assert ended[3]["cancelled_by"] == "someone"
    last = posted[-1].json
    assert last["type"] == "collection.ended"
    assert last["url"] == f"https://registry.example/runs/{last['data']['run']}"
    assert (last["data"]["counts"], last["data"]["dry_run"]) == ({"marked": 1_200}, True)
    of_old = [each.what[0] for each in posted if each.what[1].startswith("0.0.9")]
    assert of_old == [
        "model.verdict",
        "build.ended",
        "model.marked",
        "model.restored",
        "model.marked",
        "model.collected",
    ]

    # A receiver that knows either of the secrets accepts each message, and nothing that somebody changed.
    is_genuine = documented_check()
    for each in posted:
        assert is_genuine(each.headers, each.body, SECRET)
        assert is_genuine(each.headers, each.body, OTHER_SECRET)
    assert not is_genuine(first.headers, first.body + b" ", SECRET)
    assert not is_genuine(first.headers, first.body, "whsec_" + base64.b64encode(b"x" * 32).decode())
    assert not is_genuine(first.headers | {"webhook-id": "msg_1"}, first.body, SECRET)
    old = str(int(time.time()) - 3600)
    assert not is_genuine(first.headers | {"webhook-timestamp": old}, first.body, SECRET)
    assert len({each.headers["webhook-id"] for each in posted}) == 16

    # Slack gets sentences, and not each model of a collection.
    assert send(SLACK) == 12
    told = [each.json for each in receiver.all("/slack/hush")]
    texts = [each["blocks"][0]["text"]["text"] for each in told]
    shown = "\n".join(texts)
    assert (
        "failed*\nBranch main, requested by anonymous.\ntrain: out_of_memory: Take a larger machine." in shown
    )
    assert "chief changed the verdict from failed to passed*\na &lt;typing&gt; error &amp; more" in shown
    assert "runs in development now, promoted by chief*\nIt replaces 1.0.1-" in shown
    assert "Note: &lt;!here&gt; try" in shown
    assert (
        texts[-1] == "*The dry run of a garbage collection succeeded*\nRequested by schedule.\nmarked: 1,200"
    )
    assert told[-1]["blocks"][1]["elements"][0]["text"].startswith("<https://registry.example/runs/")
    assert "garbage collection*" not in "\n".join(texts[:-1])


def test_where_nothing_is_configured_nothing_is_kept(registry: Registry, send: Callable[..., int]) -> None:
    registry.model()
    assert registry.count("notifications") == 4
    # However many changes there are, one job for each target waits.
    jobs = "SELECT task_name FROM procrastinate_jobs WHERE queue_name = 'notifications' ORDER BY 1"
    assert registry.values(jobs) == ["send_to_slack", "send_to_webhook"]
    # A kind that is switched off is deleted, and one that only a newer version knows is left to it.
    registry.execute(
        "UPDATE notifications SET kind = 'later.kind' WHERE target = 'slack' AND kind = 'build.ended'"
    )
    assert send(SLACK, slack_events="stage.promoted") == 0
    left = registry.values("SELECT kind FROM notifications WHERE target = 'slack'")
    assert left == ["later.kind"]
    assert send(SLACK, slack_webhook_url=None) == send(webhook_url=None, webhook_secret="") == 0
    assert registry.count("notifications") == 0


def test_a_message_is_tried_again_and_those_after_it_about_the_same_subject_wait(
    registry: Registry, receiver: Receiver, send: Callable[..., int]
) -> None:
    receiver.behaviours = [status(500, b"no upstream"), OK]
    first, second = registry.model("1.0.0"), registry.model("1.0.1")
    assert send() == 2
    # The messages about the other model went on, and that about the first model's build waits.
    assert [each.what for each in receiver.received] == [
        ("model.verdict", first),
        ("model.verdict", second),
        ("build.ended", second),
    ]
    assert rows(registry)[:2] == [
        ("pending", 1, "The target answered 500: no upstream"),
        ("pending", 0, None),
    ]
    assert 2 < waits(registry)[0] <= 5
    assert send() == 0
    make_due(registry)
    assert send() == 2
    assert [each.what for each in receiver.received[3:]] == [("model.verdict", first), ("build.ended", first)]
    again, before = receiver.received[3], receiver.received[0]
    assert again.headers["webhook-id"] == before.headers["webhook-id"]
    assert again.body == before.body
    assert rows(registry)[0] == ("sent", 2, None)


def drips(handler: Any, _request: Received) -> None:
    """Sends a header for as long as it may."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    for _ in range(200):
        handler.wfile.write(b"x")
        handler.wfile.flush()
        time.sleep(0.02)


def never_ends(handler: Any, _request: Received) -> None:
    """Answers with a body that goes on and on."""
    handler.send_response(200)
    handler.end_headers()
    for _ in range(1000):
        handler.wfile.write(b"x" * 65536)


def cuts(handler: Any, _: Received) -> None:
    handler.close_connection = True


TROUBLES: dict[str, tuple[Behaviour, str, str, float]] = {
    "drips": (drips, "pending", "no answer within", 5),
    "cuts": (cuts, "pending", "RemoteProtocolError", 5),
    "busy": (status(429, Retry_After="600"), "pending", "answered 429", 600),
    "refused": (status(403), "pending", "answered 403", 300),
    "redirected": (status(302, Location="/elsewhere"), "pending", "Redirects are not followed", 300),
    "gone": (status(410, b"closed"), "failed", "answered 410: closed", 0),
    "never ends": (never_ends, "sent", "", 0),
}


@pytest.mark.parametrize(("behaviour", "state", "error", "wait"), TROUBLES.values(), ids=TROUBLES)
def test_whatever_a_receiver_does_is_recorded_and_never_holds_the_worker(
    registry: Registry,
    receiver: Receiver,
    send: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    behaviour: Behaviour,
    state: str,
    error: str,
    wait: float,
) -> None:
    if behaviour is drips:
        monkeypatch.setattr(sending, "_ANSWER_S", 0.5)
    receiver.behaviours = [behaviour]
    registry.fail(registry.queue())
    assert send() == (state == "sent")
    [(found, attempts, said)] = rows(registry)
    assert (found, attempts) == (state, 1)
    assert error in (said or "")
    assert len(receiver.received) == 1
    if state == "pending":
        assert wait - 60 < waits(registry)[0] <= wait
    assert "hush" not in caplog.text + str(said)
    assert ("given up" in caplog.text) == (state == "failed")


def test_a_receiver_that_is_down_costs_a_turn_three_attempts_and_an_old_message_is_given_up(
    registry: Registry,
    receiver: Receiver,
    send: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    receiver.behaviours = [receiver.hang]
    for version in ("1.0.0", "1.0.1", "1.0.2", "1.0.3"):
        registry.fail(registry.queue(version))
    with monkeypatch.context() as patched:
        patched.setattr(sending, "_ANSWER_S", 0.5)
        assert send() == 0
    assert len(receiver.received) == 3
    receiver.behaviours = [status(503)]
    # The fourth attempt waits 8 times as long as the first, and no attempt longer than an hour.
    registry.execute("UPDATE notifications SET attempts = 3 WHERE attempts = 1 AND id % 4 = 1")
    registry.execute("UPDATE notifications SET attempts = 40 WHERE attempts = 1")
    make_due(registry)
    send()
    assert sorted(attempts for _, attempts, _ in rows(registry)) == [0, 4, 4, 41]
    assert [35 < wait <= 40 or 3540 < wait <= 3600 for wait in waits(registry)].count(True) == 3
    registry.execute("UPDATE notifications SET created_at = created_at - interval '3 days'")
    make_due(registry)
    send()
    assert [state for state, _, _ in rows(registry)].count("failed") == 3
    assert "given up after" in caplog.text
    # What was given up can be seen for a while.
    registry.execute("UPDATE notifications SET finished_at = finished_at - interval '89 days'")
    receiver.behaviours = [OK]
    make_due(registry)
    assert send() == 1
    assert registry.count("notifications", "target = 'webhook' AND state = 'failed'") == 3
    registry.execute("UPDATE notifications SET finished_at = finished_at - interval '8 days'")
    send()
    assert registry.count("notifications", "target = 'webhook'") == 0


def test_a_message_whose_worker_dies_after_sending_it_is_sent_again_as_the_same_one(
    registry: Registry, receiver: Receiver, send: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        """As SIGKILL, nothing catches it."""

    def killed(*_: object) -> None:
        raise Killed

    registry.fail(registry.queue())
    with monkeypatch.context() as patched:
        patched.setattr(notifications, "sent", killed)
        with pytest.raises(Killed):
            send()
    # Until its claim is over, no other worker sends it.
    assert send() == 0
    make_due(registry)
    assert send() == 1
    assert len(receiver.received) == 2
    assert len({each.headers["webhook-id"] for each in receiver.received}) == 1
    assert rows(registry) == [("sent", 2, None)]


def test_a_worker_that_was_paused_records_nothing_about_a_message_that_another_one_has(
    registry: Registry, database: Database, send: Callable[..., int], receiver: Receiver
) -> None:
    kinds = list(NotificationKind)
    registry.fail(registry.queue())
    with database.transaction() as session:
        paused = notifications.claim(session, WEBHOOK, kinds)
    assert paused is not None
    make_due(registry)
    with database.transaction() as session:
        other = notifications.claim(session, WEBHOOK, kinds)
        assert other is not None
        assert not notifications.sent(session, paused)
        assert not notifications.give_up(session, paused, "gone")
        assert notifications.put_off(session, paused, "late", timedelta(0)) is None
    assert rows(registry) == [("pending", 2, None)]
    with database.transaction() as session:
        assert notifications.sent(session, other)
    assert send() == 0
    assert receiver.received == []


def test_two_workers_send_each_message_once_and_those_about_a_subject_in_their_order(
    registry: Registry, receiver: Receiver, send: Callable[..., int]
) -> None:
    """Also if the queue's lock fails to keep them apart."""
    built = [registry.model(f"1.0.{number}") for number in range(6)]
    for prefix in (*built, *reversed(built)):
        registry.promote(prefix, Stage.DEVELOPMENT)
    total = registry.count("notifications", "target = 'webhook'")
    counts: list[int] = []

    def work() -> None:
        while registry.count("notifications", "target = 'webhook' AND state = 'pending'"):
            counts.append(send())

    workers = [threading.Thread(target=work) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sum(counts) == len(receiver.received) == total
    assert len({each.headers["webhook-id"] for each in receiver.received}) == total
    promoted = [each.what[1] for each in receiver.received if each.what[0] == "stage.promoted"]
    assert promoted == [*built, *reversed(built[:-1])]
    for prefix in built:
        about = [kind for kind, of in (each.what for each in receiver.received) if of == prefix]
        assert about.index("model.verdict") < about.index("build.ended")


def test_the_examples_of_the_documentation_have_the_fields_that_are_sent(
    registry: Registry, receiver: Receiver, send: Callable[..., int]
) -> None:
    page = (ROOT / "docs" / "notifications.md").read_text(encoding="utf-8")
    examples = [json.loads(code) for code in re.findall(r"```json\n(.*?)```", page, re.DOTALL)]
    [promoted] = re.findall(r"\n(\{\"type\": \"stage.promoted\".*?)```", page, re.DOTALL)
    documented = {example["type"]: example for example in (*examples, json.loads(promoted))}
    everything_happens(registry)
    send()
    for each in receiver.received:
        sent = each.json
        example = documented.get(sent["type"]) or documented["model.marked"]
        assert list(sent) == list(example)
        assert set(sent["data"]) == set(example["data"])
